"""A scanner that is killed at any line goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs.rolling import run_python

#: A child is killed (SIGKILL) when it comes to the given line of the scanner's own code, counted as
#: they run; then scans go on in this process. In a process of its own, since pytest has threads.
KILLED = """
import json, os, random, signal, sys
from pathlib import Path
from castfs.runs.outputs import OutputScanner

place, seed, points, many = Path(sys.argv[1]), *map(int, sys.argv[2:])
OURS = ("castfs/runs/outputs", "castfs/atomic.py", "castfs/regular.py")

def make(root):
    def take(output):
        fd = os.open(root / "takes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, json.dumps([output.key, output.path.read_text()]).encode() + b"\\n")
        os.close(fd)
        return output.key
    return OutputScanner(root, ["out"], state_file=root / "state" / "outputs.json", take=take,
                         clock=lambda: clock[0])

clock = [1.7e9]

def write(root, name, text):
    path = root / "out" / name
    path.write_text(text)
    os.utime(path, (1.6e9, 1.6e9 + len(text)))

def work(root):
    # Files come and change while it is scanned, as in a run; a crash does not undo them.
    for step in range(3):
        for number in range(many):
            for ending in ("pt", "log"):
                write(root, f"{number}.{ending}", "x" * (step + 1))
        clock[0] += 100
        scanner = make(root)
        scanner.scan_once()
        scanner.scan_once()

def lines_until(limit):
    count = 0
    def trace(frame, event, argument):
        nonlocal count
        if not any(part in frame.f_code.co_filename for part in OURS):
            return None
        if event == "line":
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    return lambda: count

def prepare(name):
    root = place / name
    (root / "out").mkdir(parents=True)
    (root / "state").mkdir()
    return root

clock[0] = 1.7e9
counted = lines_until(0)
work(prepare("count"))
sys.settrace(None)
total = counted()

chosen = sorted(random.Random(seed).sample(range(1, total + 1), points))
results = []
for point in chosen:
    clock[0] = 1.7e9
    root = prepare(str(point))
    child = os.fork()
    if child == 0:
        lines_until(point)
        work(root)
        os._exit(9)
    status = os.waitpid(child, 0)[1]
    state = root / "state" / "outputs.json"
    readable = not state.exists() or bool(json.loads(state.read_bytes()))
    clock[0] += 1000
    for number in range(many):
        for ending in ("pt", "log"):
            write(root, f"{number}.{ending}", "xxx")
    scanner = make(root)
    reports = [scanner.scan_once() for _ in range(4)]
    takes = [json.loads(line) for line in (root / "takes").read_text().splitlines()]
    results.append({
        "point": point, "signal": os.WTERMSIG(status), "readable": readable, "takes": takes,
        "quiet": not reports[-1].taken and not reports[-1].waiting,
    })
print(json.dumps({"total": total, "results": results}))
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_anywhere(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed, points=50, many=3)


@pytest.mark.slow
def test_killed_at_many_more_points(tmp_path: Path) -> None:
    check(tmp_path, 100, points=250, many=3)


def check(tmp_path: Path, seed: int, *, points: int, many: int) -> None:
    told = json.loads(run_python(KILLED, tmp_path, seed, points, many))
    assert len(told["results"]) == points
    for result in told["results"]:
        assert result["signal"] == 9, result
        assert result["readable"], result
        assert result["quiet"], result
        takes = [tuple(take) for take in result["takes"]]
        latest = dict(takes)
        assert latest == {f"out/{n}.{e}": "xxx" for n in range(many) for e in ("pt", "log")}
        # Only what was taken in the moment before the crash may be taken once more.
        assert len(takes) - len(set(takes)) <= 1, result


def test_many_outputs_are_not_all_taken_once_more(tmp_path: Path) -> None:
    """The state is not written for each of them, and yet a crash repeats only a few."""
    code = """
import os, signal, sys
from pathlib import Path
from castfs.runs.outputs import OutputScanner
from castfs.runs.outputs.state import StateFile

root = Path(sys.argv[1])
(root / "out").mkdir()
for number in range(2000):
    (root / "out" / f"{number}.pt").write_text("x")

def scan(limit):
    takes = []
    def take(output):
        takes.append(output.key)
        if len(takes) == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return "id"
    scanner = OutputScanner(root, "out", state_file=root / "state", take=take, min_age_sec=0)
    scanner.scan_once()
    scanner.scan_once()
    return takes

child = os.fork()
if child == 0:
    scan(1500)
    os._exit(9)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
saves, save = [], StateFile.save
StateFile.save = lambda self: saves.append(1) or save(self)
print(len(scan(0)), len(saves))
"""
    count, saves = map(int, run_python(code, tmp_path).split())
    assert 501 <= count <= 501 + 2000 // 128
    assert saves <= 50
