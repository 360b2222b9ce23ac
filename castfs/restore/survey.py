"""What is already in the target, looked at before anything is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from castfs.errors import TargetError
from castfs.paths import RelPath
from castfs.restore.cursor import Cursor
from castfs.restore.failures import shown
from castfs.restore.plan import Plan
from castfs.restore.result import IfExists


def find_existing(plan: Plan, root_fd: int, target: Path, if_exists: IfExists) -> frozenset[bytes]:
    """The files and symlinks of the plan that the target has, under whatever kind of file.

    TargetError where the policy forbids it: with "fail" for each of them, and in every policy for a
    directory in the place of a file; for a file in the place of a directory unless it is "replace".
    """
    present = {b""}
    existing: list[bytes] = []
    in_the_way: list[bytes] = []
    with Cursor(root_fd) as cursor:
        for directory in (RelPath(b""), *plan.dirs):
            if directory and directory.rpartition(b"/")[0] not in present:
                continue
            try:
                fd = cursor.go(directory)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                if if_exists != "replace":
                    in_the_way.append(directory)
                continue
            except PermissionError:
                # The writer may open it after a chmod; what is below shows then.
                if if_exists != "replace":
                    raise
                continue
            present.add(directory)
            for path in plan.leaves.get(directory, ()):
                mode = _mode(fd, path)
                if mode and stat.S_ISDIR(mode):
                    in_the_way.append(path)
                elif mode:
                    existing.append(path)
    if in_the_way:
        raise _wrong_kind(plan, in_the_way, target)
    if existing and if_exists == "fail":
        raise _exists(existing, target)
    return frozenset(existing)


def _mode(dir_fd: int, path: bytes) -> int:
    try:
        return os.lstat(path.rpartition(b"/")[2], dir_fd=dir_fd).st_mode
    except FileNotFoundError:
        return 0


def _wrong_kind(plan: Plan, paths: list[bytes], target: Path) -> TargetError:
    first = paths[0]
    others = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
    if RelPath(first) in plan.tree.dirs:
        return TargetError(
            f"{shown(first)} is a directory in the snapshot and none in {target}{others}",
            hint="move it away, or give --if-exists replace",
        )
    return TargetError(
        f"{shown(first)} is a directory in {target} and none in the snapshot{others}",
        hint="move it away: castfs never removes a directory",
    )


def _exists(paths: list[bytes], target: Path) -> TargetError:
    what = f"{shown(paths[0])} exists in {target}"
    if len(paths) > 1:
        what = f"{len(paths)} of the files exist in {target}, the first is {shown(paths[0])}"
    return TargetError(
        f"{what}; nothing was written",
        hint="give --if-exists skip or --if-exists replace, or another target",
    )
