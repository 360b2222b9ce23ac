"""Nothing can be changed through a mount: EROFS from the kernel, and from us should it ever ask."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import Mounter, run
from tests.mount.trees import describe, write

pytestmark = pytest.mark.mounted


def _write_file(root: Path) -> None:
    (root / "file").write_bytes(b"other")


def _append(root: Path) -> None:
    os.close(os.open(root / "file", os.O_WRONLY | os.O_APPEND))


def _bind_socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "new"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": _write_file,
    "append": _append,
    "open for reading and writing": lambda root: os.open(root / "file", os.O_RDWR),
    "open and truncate": lambda root: os.open(root / "file", os.O_RDONLY | os.O_TRUNC),
    "create": lambda root: (root / "new").touch(),
    "create exclusively": lambda root: os.open(root / "new", os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "mkdir": lambda root: (root / "new").mkdir(),
    "mknod": lambda root: os.mknod(root / "new"),
    "mkfifo": lambda root: os.mkfifo(root / "new"),
    "bind a socket": _bind_socket,
    "symlink": lambda root: (root / "new").symlink_to("x"),
    "link": lambda root: os.link(root / "file", root / "new"),
    "unlink": lambda root: (root / "file").unlink(),
    "rmdir": lambda root: (root / "empty").rmdir(),
    "rename": lambda root: (root / "file").rename(root / "new"),
    "rename over": lambda root: (root / "file").rename(root / "other"),
    "chmod": lambda root: (root / "file").chmod(0o600),
    "chmod of the root": lambda root: root.chmod(0o700),
    "chown": lambda root: os.chown(root / "file", 1, 1),
    "utime": lambda root: os.utime(root / "file"),
    "utime of a symlink": lambda root: os.utime(root / "link", follow_symlinks=False),
    "truncate": lambda root: os.truncate(root / "file", 1),
    "setxattr": lambda root: os.setxattr(root / "file", "user.new", b"x"),
    "removexattr": lambda root: os.removexattr(root / "file", "user.old"),
}


def refusal(change: Callable[[Path], object], root: Path) -> int | None:
    """The errno that a change fails with."""
    try:
        change(root)
    except OSError as exc:
        return exc.errno
    return None


@pytest.mark.semantics("M44")
@pytest.mark.parametrize("remounted", [False, True], ids=["as mounted", "remounted rw"])
@pytest.mark.needs_root
def test_every_change_is_refused(mounter: Mounter, remounted: bool) -> None:
    write(mounter.source / "file", b"content")
    write(mounter.source / "other")
    (mounter.source / "empty").mkdir()
    (mounter.source / "link").symlink_to("file")
    os.setxattr(mounter.source / "file", "user.old", b"x")
    before = describe(mounter.source)
    root = mounter.mount(xattrs=True)
    if remounted:
        run("mount", "-i", "-o", "remount,rw", root)  # -i: without asking mount.fuse3
        assert not os.statvfs(root).f_flag & os.ST_RDONLY
    for name, change in CHANGES.items():
        assert refusal(change, root) == errno.EROFS, name
    assert describe(root) == before
    assert (root / "file").read_bytes() == b"content"
