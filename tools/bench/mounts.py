"""Time until a mount answers, and sequential reads through it. Blobs in the page cache."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Series, machine, print_table, run_timed, warm, write_json

_CASTFS = [sys.executable, "-m", "castfs"]
_BLOCK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path("/usr"), help="what is mounted")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes of the large file")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="castfs-bench-", dir=options.work))
    os.environ["CASTFS_STORE"] = str(work / "store")
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        os.environ[variable] = str(work / variable)
    try:
        _bench(options, work)
    finally:
        shutil.rmtree(work)


def _bench(options: argparse.Namespace, work: Path) -> None:
    large = work / "large"
    large.mkdir()
    with open("/dev/urandom", "rb") as noise, (large / "file").open("wb") as file:
        for _ in range(options.size // _BLOCK):
            file.write(noise.read(_BLOCK))
    tree_id, large_id = _ingest(options.tree), _ingest(large)
    files, _ = warm(work / "store" / "blobs")
    print(f"{machine()}\n{files:,} blobs in the page cache")
    names = ("mount until it answers", "find, first", "find, again", "find, native")
    tree = {name: Series(name) for name in names}
    read = {name: Series(name) for name in ("read, first", "read, again", "read, native")}
    for _ in range(options.rounds):
        point = work / "mnt"
        point.mkdir(exist_ok=True)
        _add(tree["mount until it answers"], [*_CASTFS, "mount", tree_id, str(point)])
        find = ["find", str(point), "-type", "f", "-size", "+1M"]
        _add(tree["find, first"], find)
        _add(tree["find, again"], find)
        subprocess.run([*_CASTFS, "umount", str(point)], check=True, timeout=60)
        _add(tree["find, native"], ["find", str(options.tree), "-type", "f", "-size", "+1M"])
        subprocess.run([*_CASTFS, "mount", large_id, str(point)], check=True, timeout=60)
        read["read, first"].seconds.append(_read(point / "file"))
        read["read, again"].seconds.append(_read(point / "file"))
        subprocess.run([*_CASTFS, "umount", str(point)], check=True, timeout=60)
        read["read, native"].seconds.append(_read(large / "file"))
    print_table(f"{options.tree}", list(tree.values()), ["find, native"])
    print_table(f"{options.size / 1e9:.2f} GB sequential", list(read.values()), ["read, native"])
    for series in read.values():
        print(f"{series.name:34}{options.size / 1e9 / series.median:>10.2f} GB/s")
    write_json(options.json, tree=list(tree.values()), read=list(read.values()))


def _ingest(source: Path) -> str:
    command = [*_CASTFS, "ingest", "-q", str(source)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} failed")
    return done.stdout.strip()


def _add(series: Series, command: list[str]) -> None:
    seconds, rss = run_timed(command)
    series.seconds.append(seconds)
    series.rss_kib = max(series.rss_kib, rss)


def _read(path: Path) -> float:
    """Seconds for one pass, 1 MiB at a time."""
    buffer = bytearray(_BLOCK)
    before = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
