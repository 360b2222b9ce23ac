"""Mounted snapshots beside the native directory and squashfuse_ll: first touches, and again.

Contents are in the page cache throughout, so nobody waits for a disk. Every first touch is a mount
of its own; before that of the native directory the kernel drops what it knows of names and inodes
(drop_caches 2), and contents are read again by file handles, which need no names. "Again" is the
best of three more runs: a machine that reclaims memory ahead of need (DAMON) takes some pages of
the first, and the kernel moves pages between its lists at the second. Needs root, and for the peers
the packages squashfuse, squashfs-tools and fio.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from measuring import machine, warm, write_json

_CASTFS = [sys.executable, "-m", "castfs"]
_BLOCK = 1 << 20
#: Files that are enough for tar, and for grep.
_MANY, _MANY_PY = 50_000, 10_000
_AGAIN = 3
#: Seconds that one command may take.
_LIMIT = 300
LANE, ALONE, SQUASH, NATIVE = "castfs", "pyfuse3 alone", "squashfuse_ll", "native"


@dataclass(frozen=True)
class Work:
    """A shell command on a mounted tree, which it finds in $R. `target` has the ratios that are
    wanted, by peer, at most (least, for rates): of the first touch and of the second."""

    name: str
    tree: str
    command: str
    first: dict[str, float] = field(default_factory=dict)
    again: dict[str, float] = field(default_factory=dict)
    #: Bytes that it reads, where a rate says more than seconds.
    size: int = 0
    #: Bytes of memory that the kernel fills with it.
    memory: int = 1 << 28
    #: Contents are read, so blobs and images have to be in the page cache.
    reads: bool = True
    #: As a user's mount is, who has no passthrough and may not raise the kernel's read-ahead.
    unprivileged: bool = False


@dataclass
class Measured:
    work: str
    peer: str
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)


class Handles:
    """Every file of a tree by what name_to_handle_at(2) gives, not by its name."""

    class _Handle(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint),
            ("type", ctypes.c_int),
            ("data", ctypes.c_ubyte * 128),
        )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handles = []
        for directory, _, names in os.walk(path):
            for name in names:
                file = os.path.join(directory, name)
                if os.path.isfile(file) and not os.path.islink(file):
                    handle = self._Handle(size=128)
                    mount = ctypes.c_int()
                    if self._libc.name_to_handle_at(
                        -100, os.fsencode(file), ctypes.byref(handle), ctypes.byref(mount), 0
                    ):
                        raise OSError(ctypes.get_errno(), "name_to_handle_at", file)
                    self._handles.append(handle)

    def warm(self) -> None:
        mount = os.open(self._path, os.O_RDONLY)
        buffer = bytearray(_BLOCK)
        for handle in self._handles:
            fd = self._libc.open_by_handle_at(mount, ctypes.byref(handle), os.O_RDONLY)
            if fd >= 0:
                while os.readv(fd, [buffer]):
                    pass
                os.close(fd)
        os.close(mount)


class Trees:
    """What is mounted: a native directory each, its snapshot and its image."""

    def __init__(self, work: Path, *, squash: bool) -> None:
        self._work = work
        self._squash = squash
        self._paths: dict[str, Path] = {}
        self._ids: dict[str, str] = {}
        self._handles: dict[str, Handles] = {}

    def add(self, name: str, path: Path) -> None:
        done = subprocess.run(
            [*_CASTFS, "ingest", "-q", str(path)], check=False, stdout=subprocess.PIPE, text=True
        )
        if done.returncode not in (0, 3):
            raise SystemExit(f"{path} cannot be ingested")
        self._paths[name], self._ids[name] = path, done.stdout.strip()
        self._handles[name] = Handles(path)
        if self._squash:
            self._image(name).parent.mkdir(exist_ok=True)
            image = ["mksquashfs", str(path), str(self._image(name)), "-comp", "lz4", "-quiet"]
            subprocess.run([*image, "-no-progress"], check=True, stdout=subprocess.DEVNULL)

    def _image(self, name: str) -> Path:
        return self._work / "images" / f"{name}.squashfs"

    @contextlib.contextmanager
    def shown(self, work: Work, peer: str) -> Iterator[Path]:
        """The tree as `peer` shows it, with no name of it known to the kernel."""
        name = work.tree
        if peer == NATIVE:
            _touch_memory(work.memory)
            Path("/proc/sys/vm/drop_caches").write_text("2")
            self._handles[name].warm()
            yield self._paths[name]
            return
        if work.reads:
            warm(self._work / "store" / "blobs" if peer != SQUASH else self._image(name).parent)
        # Last: warming takes memory, too.
        _touch_memory(work.memory)
        point = self._work / "mnt"
        point.mkdir(exist_ok=True)
        if peer == SQUASH:
            command = ["squashfuse_ll", str(self._image(name)), str(point)]
        else:
            flags = ["--no-fast-lane"] if peer == ALONE else []
            if work.unprivileged:
                flags += ["-o", "nopassthrough"]
            command = [*_CASTFS, "mount", *flags, self._ids[name], str(point)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=_LIMIT)
        try:
            if work.unprivileged:
                device = point.stat().st_dev
                bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}")
                (bdi / "read_ahead_kb").write_text("128")
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True, timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path("/usr"), help="what is mounted")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes of the large file")
    parser.add_argument("--only", help="part of the name of what is to be measured")
    parser.add_argument("--without", action="append", default=[], help="a peer to leave out")
    parser.add_argument(
        "--quick", action="store_true", help="a small tree, castfs and native alone, in a minute"
    )
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.tree, options.rounds, options.size = Path("/usr/share/doc"), 3, 1 << 28
        options.without += [SQUASH, ALONE]
    work = Path(tempfile.mkdtemp(prefix="castfs-bench-", dir=options.work))
    os.environ["CASTFS_STORE"] = str(work / "store")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        os.environ[variable] = str(work / variable)
    try:
        _bench(options, work)
    finally:
        shutil.rmtree(work)


def _bench(options: argparse.Namespace, work: Path) -> None:
    peers = [peer for peer in (NATIVE, SQUASH, ALONE, LANE) if peer not in options.without]
    if not shutil.which("squashfuse_ll") or not shutil.which("mksquashfs"):
        print("without squashfuse_ll: it is not installed")
        peers = [peer for peer in peers if peer != SQUASH]
    works = [item for item in _works(options) if not options.only or options.only in item.name]
    trees = Trees(work, squash=SQUASH in peers)
    for name in {item.tree: None for item in works}:
        trees.add(name, _make(name, options, work))
    files, size = warm(work / "store" / "blobs")
    print(f"{machine()}\n{files:,} blobs in the page cache, {size / 1e9:.2f} GB")
    measured = {(item.name, peer): Measured(item.name, peer) for item in works for peer in peers}
    for _ in range(options.rounds):
        # The native ones come last: dropping names drops the pages of blobs, too.
        for peer in reversed(peers):
            for item in works:
                with trees.shown(item, peer) as place:
                    result = measured[item.name, peer]
                    result.first.append(_time(item.command, place))
                    again = [_time(item.command, place) for _ in range(_AGAIN)]
                    result.again.append(min(again))
    for item in works:
        _print(item, [measured[item.name, peer] for peer in peers])
    ready = _ready(trees, works, options.rounds)
    write_json(options.json, mounts=[vars(item) for item in measured.values()], ready=ready)


def _works(options: argparse.Namespace) -> list[Work]:
    part = shlex.quote(_smallest_part(options.tree, _MANY))
    sources = shlex.quote(_smallest_part(options.tree, _MANY_PY, ".py"))
    large = options.size + (options.size >> 1)
    works = [
        Work(
            "find -type f", "tree", "find $R -type f", {SQUASH: 0.5}, {NATIVE: 1.1},
            reads=False,
        ),
        Work(
            "find -size +1M", "tree", "find $R -size +1M", {SQUASH: 0.25}, {NATIVE: 1.2},
            reads=False,
        ),
        Work(
            "ls -lR", "tree", "ls -lR $R", {SQUASH: 0.12, NATIVE: 1.6}, {NATIVE: 1.1},
            reads=False,
        ),
        Work(
            "tar", "tree", f"tar cf - -C $R {part} | cat",
            {SQUASH: 0.3, ALONE: 0.25, NATIVE: 3.5}, {NATIVE: 1.2}, memory=large,
        ),
        Work(
            "grep -r", "tree",
            f"cd $R/{sources} && grep -rc --include='*.py' -e yield .",
            {SQUASH: 0.3}, {NATIVE: 1.2},
        ),
        Work(
            "1 GiB sequential", "large", "dd if=$R/file of=/dev/null bs=1M status=none",
            {NATIVE: 4.0}, {NATIVE: 1 / 0.7}, options.size, large,
        ),
        Work(
            "1 GiB sequential, as a user", "large", "dd if=$R/file of=/dev/null bs=1M status=none",
            {NATIVE: 1 / 0.12}, {NATIVE: 1 / 0.7}, options.size, large, unprivileged=True,
        ),
    ]  # fmt: skip
    if shutil.which("fio"):
        fio = (
            "fio --name=x --filename=$R/file --readonly --rw=randread --bs=4k --numjobs=4 "
            f"--size={options.size // 16} --ioengine=psync --thread --norandommap "
            "--invalidate=0 --randrepeat=1 --group_reporting"
        )
        works.append(
            Work("4 KiB random", "large", fio, {}, {NATIVE: 1 / 0.9}, options.size // 4, large)
        )
    if not options.quick:
        works.append(
            Work(
                "import numpy, pandas", "packages",
                f"PYTHONPATH=$R {shlex.quote(sys.executable)} -c 'import numpy, pandas'",
                {NATIVE: 2.0}, {NATIVE: 1.15},
            )
        )  # fmt: skip
    return works


def _smallest_part(tree: Path, least: int, suffix: str = "") -> str:
    """The smallest directory with `least` such files or more below it; else the tree itself."""
    counts: Counter[Path] = Counter()
    for directory, _, names in os.walk(tree):
        count = sum(name.endswith(suffix) for name in names)
        place = Path(directory)
        while count and place != tree:
            counts[place] += count
            place = place.parent
    enough = [(count, place) for place, count in counts.items() if count >= least]
    return str(min(enough)[1].relative_to(tree)) if enough else "."


def _make(name: str, options: argparse.Namespace, work: Path) -> Path:
    if name == "tree":
        return Path(options.tree)
    path = work / name
    path.mkdir()
    if name == "large":
        with open("/dev/urandom", "rb") as noise, (path / "file").open("wb") as file:
            for _ in range(options.size // _BLOCK):
                file.write(noise.read(_BLOCK))
    else:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(path)]
        subprocess.run([*pip, "numpy", "pandas"], check=True)
        run = {**os.environ, "PYTHONPATH": str(path)}
        run.pop("PYTHONDONTWRITEBYTECODE")
        subprocess.run([sys.executable, "-c", "import numpy, pandas"], check=True, env=run)
    return path


def _time(command: str, place: Path) -> float:
    before = time.perf_counter()
    # Not `timeout=`: Popen then looks every 50 ms whether the command has ended.
    subprocess.run(
        ["timeout", f"{_LIMIT}", "sh", "-c", command],
        env={**os.environ, "R": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return time.perf_counter() - before


def _touch_memory(size: int) -> None:
    """Have as much free memory as what follows will fill: a virtual machine gives back what it does
    not use, and its host returns it at a tenth of the speed of what is measured."""
    if size:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def _print(work: Work, measured: list[Measured]) -> None:
    """One line for each peer: medians, and castfs's ratio to it beside the one that is wanted."""
    print(f"\n{work.name}")
    heads = "".join(f"{touch:>9}{'castfs x':>10}{'wanted':>8} " for touch in ("first", "again"))
    print(f"  {'':16}{heads}  runs")
    ours = next(item for item in measured if item.peer == LANE)
    for item in measured:
        line = f"  {item.peer:16}"
        for touch, wanted in (("first", work.first), ("again", work.again)):
            seconds = statistics.median(getattr(item, touch))
            ratio = statistics.median(getattr(ours, touch)) / seconds
            target = f"{wanted[item.peer]:.2f}" if item.peer in wanted else ""
            line += f"{seconds:>9.3f}{ratio:>10.2f}{target:>8} "
        runs = " ".join(f"{a:.2f}/{b:.2f}" for a, b in zip(item.first, item.again, strict=True))
        if work.size:
            rate = work.size / 1e9 / statistics.median(item.first)
            again = work.size / 1e9 / statistics.median(item.again)
            line += f" {rate:.2f} and {again:.2f} GB/s;"
        print(f"{line} {runs}")


def _ready(trees: Trees, works: list[Work], rounds: int) -> list[float]:
    """Seconds until a mount with a cached index answers."""
    seconds = []
    for _ in range(rounds):
        before = time.perf_counter()
        with trees.shown(replace(works[0], reads=False, memory=0), LANE):
            seconds.append(time.perf_counter() - before)
    runs = " ".join(f"{each:.2f}" for each in seconds)
    print(
        f"\nmount with a cached index, until it answers: {statistics.median(seconds):.2f} s  {runs}"
    )
    return seconds


if __name__ == "__main__":
    main()
