"""Directories with everything in them that a tree can record."""

from __future__ import annotations

import os
from pathlib import Path


def make_source(root: Path) -> Path:
    """Every kind of entry, awkward names, awkward modes and times. Needs root for what is 0000."""
    root.mkdir()
    raw = os.fsencode(root)
    (root / "sub").mkdir()
    (root / "sub" / "x").write_text("hello\n")
    (root / "sub-dash").write_text("sorts between sub and sub/x")
    (root / "empty").mkdir()
    (root / "empty file").touch()
    (root / "-rf").write_text("leading dash")
    (root / "h\u00e9").write_text("utf-8")
    os.mkdir(raw + b"/not\xffutf8")
    (root / os.fsdecode(b"not\xffutf8") / "a\nb").write_text("newline")
    (root / ("n" * 255)).write_text("longest name")
    os.makedirs(root / ("l" * 120) / ("m" * 120))
    (root / ("l" * 120) / ("m" * 120) / "deep").write_text("beyond a ustar header")
    (root / "large").write_bytes(os.urandom(100) * 30_000)
    (root / "zeros").write_bytes(bytes(5 << 20) + b"end")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "dangling").symlink_to("no/such/place")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "up").symlink_to("../../..")
    os.symlink(b"\xfe\xfd", raw + b"/odd target")
    os.link(root / "sub" / "x", root / "hard")
    os.link(root / "sub" / "x", root / "empty-not")
    os.link(root / "dangling", root / "hard dangling", follow_symlinks=False)

    (root / "run.sh").chmod(0o4755)
    (root / "-rf").chmod(0o000)
    (root / "large").chmod(0o444)
    os.utime(root / "large", ns=(0, -1_500_000_001))
    os.utime(root / "zeros", ns=(0, 4_000_000_000_999_999_999))
    os.utime(root / "up", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    for mode, name in ((0o555, "sub"), (0o000, "empty"), (0o1777, "l" * 120)):
        os.utime(root / name, ns=(0, 1_111_111_111_000_000_000 + mode))
        (root / name).chmod(mode)
    os.utime(root, ns=(0, 987_654_321_123_456_789))
    root.chmod(0o2750)
    return root
