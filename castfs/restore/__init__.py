"""Restore: a tree becomes a directory again, exactly, and nothing outside the target is touched.

    plan (which entries) → survey (what is there, writes nothing) → blobs all there?
    → directories and files → hard links → modes and times of directories, deepest first

Every directory is reached from the target by one `openat` for each component, with O_NOFOLLOW, so
neither a symlink that was planted before nor one that is planted meanwhile leads anywhere. Every
file is written under a temporary name, hashed on the way, and renamed.
"""

from castfs.restore.result import IfExists, NotSet, RestoreResult
from castfs.restore.run import restore_tree

__all__ = ["IfExists", "NotSet", "RestoreResult", "restore_tree"]
