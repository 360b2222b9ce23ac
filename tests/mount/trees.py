"""Source trees that are hard to get right."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

#: Awkward names, as many as one directory takes.
NAMES = (
    b"plain", b"with space", b"-leading-dash", b"new\nline", b"tab\there", b"\xff\xfe not utf-8",
    b"\xe2\x90\x9b escape", "smörgås".encode(), "sm\u006f\u0308rgås".encode(), b"'quotes\"`$x`",
    b"back\\slash", b"x" * 255, b"\xc3" * 255, b"*", b"...", b"~", b"#", b"con:aux",
)  # fmt: skip


def write(path: Path, content: bytes = b"", *, mode: int = 0o644, mtime_ns: int = 10**18) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def make_varied_tree(root: Path) -> None:
    """Every kind of entry, mode, time and name that a snapshot keeps."""
    random_bytes = random.Random(1).randbytes
    write(root / "empty")
    write(root / "small", b"hello\n", mode=0o640)
    write(root / "large", random_bytes(3_000_001))
    sparse = write(root / "sparse", b"")
    os.truncate(sparse, 5_000_000)
    times = root / "times"
    times.mkdir()
    for name, moment in (
        ("before 1970", -1_234_567_890_123_456_789),
        ("a ns before 1970", -1),
        ("epoch", 0),
        ("a ns", 1),
        ("2038", 2**31 * 10**9 + 999_999_999),
        ("2200", 7_258_118_400 * 10**9 + 123_456_789),
    ):
        write(times / name, name.encode(), mtime_ns=moment)
    modes = root / "modes"
    modes.mkdir()
    for bits in (0o000, 0o200, 0o444, 0o666, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777):
        write(modes / f"{bits:o}", b"mode", mode=bits)
    for mode in (0o500, 0o700, 0o755, 0o777, 0o1777, 0o2775, 0o3777):
        directory = modes / f"dir-{mode:o}"
        directory.mkdir()
        write(directory / "inside", b"x")
        directory.chmod(mode)
        os.utime(directory, ns=(0, mode * 10**15 + 7))
    names = os.fsencode(root / "names")
    os.mkdir(names)
    for odd_name in NAMES:
        with open(names + b"/" + odd_name, "wb") as file:
            file.write(odd_name)
    links = root / "links"
    links.mkdir()
    for name, target in (
        ("relative", "../small"),
        ("absolute", "/nonexistent/of castfs"),  # root may write to whatever it names
        ("dangling", "no/such/file"),
        ("loop", "loop"),
        ("directory", "../modes"),
        ("long", "x/" * 2000),
    ):
        (links / name).symlink_to(target)
    os.symlink(b"\xff\n", os.fsencode(links / "odd"))
    (root / "nothing" / "in" / "here").mkdir(parents=True)
    hard = root / "hard"
    hard.mkdir()
    write(hard / "b first", b"linked")
    os.link(hard / "b first", root / "a second")
    os.link(hard / "b first", hard / "third")
    os.link(links / "odd", hard / "odd too", follow_symlinks=False)
    for changed in (root, times, modes, root / "names", links, hard):
        os.utime(changed, ns=(0, 1_600_000_000_123_456_789))


def describe(root: Path) -> list[str]:
    """What find(1) says of every entry: path, type, size (but of directories), mode, links, mtime,
    target. The names are quoted by nothing, so entries end with NUL."""
    output = subprocess.run(
        ["find", root, "-printf", r"%P|%y|%s|%m|%n|%T@|%l\0"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode(errors="surrogateescape")
    lines = []
    for line in output.split("\0")[:-1]:
        fields = line.rsplit("|", 6) if "|d|" in line else [line]
        if len(fields) == 7 and fields[1] == "d":
            fields[2] = "-"
        lines.append("|".join(fields))
    return sorted(lines)
