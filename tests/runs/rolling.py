"""A workspace whose outputs are scanned, with a clock that stands still and a store in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from castfs.runs.outputs import Output, OutputScanner, ScanReport

ROOT = Path(__file__).parents[2]
#: Longer than anything takes on a busy machine.
PATIENCE = 30.0
START = 1_700_000_000.0


class Workspace:
    """`taken` holds (key, what was in it) in the order in which it was taken."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.state_file = root / "state.json"
        self.now = START
        self.taken: list[tuple[str, object]] = []
        self.outputs: list[Output] = []
        self.errors: dict[str, Exception] = {}
        self.options: dict[str, Any] = {"output_dirs": ["out"], **options}
        (root / "out").mkdir(exist_ok=True)
        self.scanner = self.make()

    def make(self, **options: Any) -> OutputScanner:
        options = {**self.options, **options}
        return OutputScanner(
            self.root,
            options.pop("output_dirs"),
            state_file=self.state_file,
            take=self._take,
            clock=lambda: self.now,
            **options,
        )

    def restart(self, **options: Any) -> None:
        """As after a crash: another scanner knows only the state file."""
        self.scanner = self.make(**options)

    def write(self, name: str | bytes, data: bytes = b"x", *, age: float = 100.0) -> bytes:
        path = os.path.join(os.fsencode(self.root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        self.age(path, age)
        return path

    def age(self, path: bytes, age: float) -> None:
        mtime_ns = round((self.now - age) * 1e9)
        os.utime(path, ns=(mtime_ns, mtime_ns))

    def scan(self, count: int = 1, **options: Any) -> ScanReport:
        for _ in range(count):
            report = self.scanner.scan_once(**options)
        return report

    def taken_keys(self) -> list[str]:
        return [key for key, _ in self.taken]

    def _take(self, output: Output) -> str:
        if output.key in self.errors:
            raise self.errors[output.key]
        self.outputs.append(output)
        self.taken.append((output.key, contents(output.path)))
        return f"{output.key}@{len(self.taken)}"


def contents(path: Path) -> object:
    if path.is_dir():
        return {each.name: contents(each) for each in path.iterdir()}
    return path.read_bytes()


def waiting(report: ScanReport) -> dict[str, str]:
    return {each.key: each.reason.name for each in report.waiting}


def failed(report: ScanReport) -> dict[str, str]:
    return {each.key: each.reason for each in report.failed}


def taken(report: ScanReport) -> list[str]:
    return [each.key for each in report.taken]


def run_python(code: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def names(below: Path) -> Iterable[str]:
    return sorted(path.name for path in below.iterdir())
