"""Timing commands: interleaved rounds, medians, ratios; what the machine is goes on top."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Series:
    """The runs of one command: wall seconds, and peak resident KiB of its largest process."""

    name: str
    seconds: list[float] = field(default_factory=list)
    rss_kib: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run_timed(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[float, int]:
    """(wall seconds, peak RSS in KiB) of a command that must succeed. Its output is dropped.

    Everything dirty is written first, so that no command pays for the one before it.
    """
    os.sync()
    before = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
    return seconds, usage.ru_maxrss


def warm(tree: Path) -> tuple[int, int]:
    """Read every file of a tree, so that all start with it in the page cache. (files, bytes)."""
    count = size = 0
    buffer = bytearray(1 << 20)
    for directory, _, files in os.walk(tree):
        for name in files:
            path = os.path.join(directory, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    size += got
            count += 1
    return count, size


def machine() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def print_table(title: str, series: Sequence[Series], bases: Sequence[str]) -> None:
    """One line for each command: median, all runs, memory, and ratios to the named ones."""
    medians = {item.name: item.median for item in series}
    print(f"\n{title}")
    head = f"{'command':34}{'median s':>10}{'RSS MiB':>9}"
    print(head + "".join(f"{'x ' + base:>22}" for base in bases) + "  runs")
    for item in series:
        ratios = "".join(
            f"{item.median / medians[base]:>22.2f}" if base in medians else f"{'-':>22}"
            for base in bases
        )
        runs = " ".join(f"{second:.2f}" for second in item.seconds)
        print(f"{item.name:34}{item.median:>10.2f}{item.rss_kib / 1024:>9.0f}{ratios}  {runs}")


def write_json(path: Path | None, **content: object) -> None:
    if path is not None:
        plain = {
            key: [asdict(item) for item in value]
            if isinstance(value, list) and value and isinstance(value[0], Series)
            else value
            for key, value in content.items()
        }
        path.write_text(json.dumps({"machine": machine(), **plain}, indent=1) + "\n")


def own_rss_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
