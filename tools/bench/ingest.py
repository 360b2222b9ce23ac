"""First and repeated ingest of a real tree, beside restic, cp and git. Source in the page cache.

Nothing is deleted between timed commands: ext4 avoids inodes that were freed within the last
minute, and a run after a large deletion spends most of its time looking for others.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from measuring import Series, machine, print_table, run_timed, warm, write_json

_CASTFS = [sys.executable, "-m", "castfs"]
_RESTIC_ENV = {"RESTIC_PASSWORD": "bench"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path("/usr"), help="what is ingested")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where copies go (three times the tree a round)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="castfs-bench-", dir=options.work))
    try:
        _bench(options.tree, options.rounds, work, options.json)
    finally:
        shutil.rmtree(work)


def _bench(tree: Path, rounds: int, work: Path, output: Path | None) -> None:
    files, size = warm(tree)
    print(f"{machine()}\n{tree}: {files:,} files, {size / 1e9:.2f} GB, in the page cache")
    names = ("castfs ingest", "restic backup", "cp -a", "cp -a and sync")
    first = {name: Series(name) for name in names}
    again = {name: Series(name) for name in ("castfs ingest", "restic backup", "git status")}
    repository = _make_git(tree, work)
    for number in range(rounds):
        place = work / str(number)
        place.mkdir()
        env = {
            "XDG_CACHE_HOME": str(place / "cache"),
            "CASTFS_STORE": str(place / "store"),
            **_RESTIC_ENV,
        }
        ingest = [*_CASTFS, "ingest", "-q", str(tree)]
        _record(first["castfs ingest"], run_timed(ingest, env=env))
        run_timed(["restic", "init", "-q", "-r", str(place / "restic")], env=env)
        backup = ["restic", "backup", "-q", "-r", str(place / "restic"), str(tree)]
        _record(first["restic backup"], run_timed(backup, env=env))
        _record(first["cp -a"], run_timed(["cp", "-a", str(tree), str(place / "copy")]))
        script = 'cp -a "$0" "$1" && sync -f "$1"'
        synced = ["sh", "-c", script, str(tree), str(place / "synced")]
        _record(first["cp -a and sync"], run_timed(synced))
        # After all that writes, because the journal goes on working for a while: so each has the
        # same distance to its first run.
        _record(again["castfs ingest"], run_timed(ingest, env=env))
        _record(again["restic backup"], run_timed(backup, env=env))
        _record(again["git status"], run_timed(["git", "status", "--short"], cwd=repository))
    print_table("first", list(first.values()), ["restic backup", "cp -a", "cp -a and sync"])
    print_table("again, nothing changed", list(again.values()), ["restic backup", "git status"])
    write_json(
        output, tree=str(tree), files=files, size_bytes=size,
        first=list(first.values()), again=list(again.values()),
    )  # fmt: skip


def _record(series: Series, result: tuple[float, int]) -> None:
    seconds, rss = result
    series.seconds.append(seconds)
    series.rss_kib = max(series.rss_kib, rss)


def _make_git(tree: Path, work: Path) -> Path:
    """The same tree as a git work tree with everything committed."""
    repository = work / "git"
    run_timed(["cp", "-a", str(tree), str(repository)])
    shutil.rmtree(repository / ".git", ignore_errors=True)
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"]
    run_timed(["git", "init", "-q"], cwd=repository)
    run_timed(["git", "add", "-A", "-f"], cwd=repository)
    run_timed(["git", *who, "commit", "-q", "-m", "all"], cwd=repository)
    return repository


if __name__ == "__main__":
    main()
