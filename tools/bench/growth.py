"""What a mount costs at 10,000, 100,000 and 1,000,000 files, in one table and one picture.

The tree, its store and everything else lie on a tmpfs: nothing waits for a disk. The picture needs
matplotlib, which is installed for the moment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import machine, write_json

_CASTFS = [sys.executable, "-m", "castfs"]
_PER_DIRECTORY = 100
_LIMIT = 600

#: Columns: what is measured, and its unit.
COLUMNS = {
    "ingest": "s",
    "first mount": "s",
    "mount again": "s",
    "private": "MiB",
    "find, first": "s",
    "find, again": "s",
    "find, native": "s",
    "ls -lR, first": "s",
    "ls -lR, again": "s",
    "ls -lR, native": "s",
    "index": "MiB",
}

_PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
rows, columns, path = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
sizes = [row["files"] for row in rows]
for axis, unit, label in ((axes[0], "s", "seconds"), (axes[1], "MiB", "MiB")):
    for name, of in columns.items():
        if of == unit:
            style = "--" if "native" in name else "-"
            axis.plot(sizes, [row[name] for row in rows], style, marker="o", label=name)
    axis.set(xscale="log", yscale="log", xlabel="files", ylabel=label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
figure.savefig(path, dpi=110)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--png", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine())
    print(f"{'files':>10}" + "".join(f"{f'{name} {unit}':>19}" for name, unit in COLUMNS.items()))
    rows = []
    for count in options.files:
        work = Path(tempfile.mkdtemp(prefix="castfs-bench-", dir=options.work))
        os.environ["CASTFS_STORE"] = str(work / "store")
        for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
            os.environ[variable] = str(work / variable)
        try:
            rows.append({"files": count, **_measure(count, work)})
        finally:
            shutil.rmtree(work)
        print(f"{count:>10,}" + "".join(f"{rows[-1][name]:>19.2f}" for name in COLUMNS))
    if options.png is not None:
        _plot(rows, options.png)
    write_json(options.json, growth=rows)


def _measure(count: int, work: Path) -> dict[str, float]:
    tree, point = work / "tree", work / "mnt"
    point.mkdir()
    for number in range(count // _PER_DIRECTORY):
        directory = tree / f"{number // 100:04}" / f"{number % 100:02}"
        directory.mkdir(parents=True)
        for file in range(_PER_DIRECTORY):
            (directory / f"a_file_with_a_name_{file:02}.txt").write_text(f"{number} {file}")
    row = {}
    before = time.perf_counter()
    snapshot = _castfs("ingest", "-q", tree).strip()
    row["ingest"] = time.perf_counter() - before
    for name in ("first mount", "mount again"):
        before = time.perf_counter()
        status = json.loads(_castfs("mount", "--json", snapshot, point))
        row[name] = time.perf_counter() - before
        if name == "first mount":
            _castfs("umount", point)
    try:
        for name, command in (("find", ["find", "-type", "f"]), ("ls -lR", ["ls", "-lR"])):
            if name == "ls -lR":
                _castfs("umount", point)
                status = json.loads(_castfs("mount", "--json", snapshot, point))
            row[f"{name}, first"] = _time(command, point)
            row[f"{name}, again"] = _time(command, point)
            row[f"{name}, native"] = _time(command, tree)
        row["private"] = _private_mib(status["pid"])
    finally:
        _castfs("umount", point)
    [index] = (work / "store" / "cache" / "indexes").iterdir()
    row["index"] = index.stat().st_size / 2**20
    return row


def _castfs(*words: object) -> str:
    command = [*_CASTFS, *map(str, words)]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=_LIMIT
    ).stdout


def _time(command: list[str], place: Path) -> float:
    before = time.perf_counter()
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, timeout=_LIMIT)
    return time.perf_counter() - before


def _private_mib(pid: int) -> float:
    """What a process alone has in memory, and no file has (the index lies on the tmpfs)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def _plot(rows: list[dict[str, float]], path: Path) -> None:
    with tempfile.TemporaryDirectory() as packages:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", packages, "matplotlib"]
        subprocess.run(pip, check=True)
        subprocess.run(
            [sys.executable, "-c", _PLOT, json.dumps(rows), json.dumps(COLUMNS), str(path)],
            check=True,
            env={**os.environ, "PYTHONPATH": packages},
        )


if __name__ == "__main__":
    main()
