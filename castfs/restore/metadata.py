"""Owners, extended attributes, modes and times, set on descriptors; and what the system refused."""

from __future__ import annotations

import os
import stat
import threading

from castfs.manifest import Directory, Entry, File, Symlink
from castfs.restore.result import NotSet

_SET_ID = stat.S_ISUID | stat.S_ISGID
#: 1970 to 2038, which every filesystem holds. Others are read back: ext4 clamps them silently.
_USUAL_NS = range(2**31 * 1_000_000_000)
_SECOND = 1_000_000_000


class Metadata:
    """Sets what a tree records. May be used from several threads.

    The order matters: chown(2) clears set-id bits and capabilities, and an attribute of the `user.`
    kind needs a file that may be written, so owner, attributes, mode, time.
    """

    def __init__(self, *, owner: bool) -> None:
        self._owner = owner
        self._fine_times_seen = False
        self._guard = threading.Lock()
        self._refused: dict[tuple[str, str], tuple[bytes, int]] = {}

    @property
    def not_set(self) -> tuple[NotSet, ...]:
        return tuple(
            NotSet(path=path, what=what, reason=reason, count=count)
            for (what, reason), (path, count) in self._refused.items()
        )

    def set(self, fd: int, path: bytes, entry: File | Directory) -> None:
        self._set_owner(fd, path, entry)
        if entry.xattrs is not None:
            self._set_xattrs(fd, path, entry)
        try:
            os.fchmod(fd, entry.mode)
            # The kernel drops these without a word if the caller is not in the file's group.
            if entry.mode & _SET_ID and os.fstat(fd).st_mode & _SET_ID != entry.mode & _SET_ID:
                self.refuse("set-id bits", "you are not in the file's group", path)
        except OSError as exc:
            self.refuse("mode", exc, path)
        self._set_time(fd, path, entry)

    def set_symlink(self, fd: int, path: bytes, entry: Symlink) -> None:
        """`fd` was opened with O_PATH. Its name in /proc leads to the symlink, never through it."""
        name = f"/proc/self/fd/{fd}"
        self._set_owner(name, path, entry)
        if entry.xattrs is not None:
            self._set_xattrs(name, path, entry)
        self._set_time(name, path, entry)

    def _set_owner(self, place: int | str, path: bytes, entry: Entry) -> None:
        if not self._owner or (entry.uid is None and entry.gid is None):
            return
        try:
            os.chown(
                place,
                -1 if entry.uid is None else entry.uid,
                -1 if entry.gid is None else entry.gid,
            )
        except OSError as exc:
            self.refuse("owner", exc, path)

    def _set_xattrs(self, place: int | str, path: bytes, entry: Entry) -> None:
        for name, value in entry.iter_xattrs():
            try:
                os.setxattr(place, name, value)
            except OSError as exc:
                kind = os.fsdecode(name).partition(".")[0]
                self.refuse(f"{kind}.* extended attributes", exc, path)

    def _set_time(self, place: int | str, path: bytes, entry: Entry) -> None:
        mtime_ns = entry.mtime_ns
        try:
            os.utime(place, ns=(mtime_ns, mtime_ns))
            if mtime_ns not in _USUAL_NS or (not self._fine_times_seen and mtime_ns % _SECOND):
                self._fine_times_seen = True
                if os.stat(place).st_mtime_ns != mtime_ns:
                    self.refuse("mtime", "the filesystem stores another time", path)
        except (OSError, OverflowError) as exc:
            self.refuse("mtime", exc, path)

    def refuse(self, what: str, reason: str | Exception, path: bytes) -> None:
        """Remember that `what` of `path` could not be made as it is recorded."""
        if isinstance(reason, OSError):
            reason = reason.strerror or str(reason)
        key = (what, str(reason))
        with self._guard:
            first, count = self._refused.get(key, (path, 0))
            self._refused[key] = (first, count + 1)
