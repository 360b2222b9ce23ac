"""How runs end that nobody finishes, and what is said of those that ended without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import castfs
from castfs import BusyError, NotFoundError, Run, Store
from castfs.runs.liveness import ALIVE, is_held
from castfs.runs.removing import remove_run
from castfs.runs.showing import describe_run
from tests.cli.conftest import TIMEOUT, environment


def begin(more: str = "") -> str:
    """A program that begins a run, and says which."""
    return (
        f"import castfs, os, sys; run = castfs.init('p', 'n', store=sys.argv[1]{more});"
        " print(run.id, flush=True)\n"
    )


@contextmanager
def program(
    store: Store, code: str, *flags: str, first: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    whole = (begin() if first is None else first) + textwrap.dedent(code)
    with subprocess.Popen(
        [sys.executable, "-W", "error", *flags, "-c", whole, store.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_program(store: Store, code: str, *flags: str) -> tuple[list[str], str, int]:
    """What it printed to both, and its exit code."""
    with program(store, code, *flags) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    return out.split(), err, process.returncode


def recorded(store: Store, run_id: str) -> str:
    """What the file says."""
    said = json.loads((store.path / "runs" / f"{run_id}.json").read_bytes())["status"]
    return str(said)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# The end of a program ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("run.log({'a': 1})", "finished"),
        ("sys.exit(0)", "finished"),
        ("1 / 0", "failed"),
        ("raise KeyboardInterrupt", "failed"),
        ("run.finish('failed')", "failed"),
        ("try: 1 / 0\nexcept ZeroDivisionError: pass", "finished"),
        ("with run: 1 / 0", "failed"),
    ],
)
def test_a_script_that_ends(store: Store, code: str, status: str) -> None:
    [run_id], _, _ = run_program(store, code)
    assert recorded(store, run_id) == castfs.find_run(run_id, store=store).status == status


def test_an_error_at_a_prompt_ends_nothing(store: Store) -> None:
    with program(store, "", "-i", "-q") as process:
        out, err = process.communicate("1 / 0\n", timeout=TIMEOUT)
    assert "ZeroDivisionError" in err
    assert recorded(store, out.split()[0]) == "finished"


def test_several_runs_and_their_outputs(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code = f"""
        other = castfs.init('p', 'other', store=sys.argv[1])
        print(other.id)
        run.watch_outputs({str(tmp_path / "out")!r}, interval_sec=3600, min_age_sec=0)
        open({str(tmp_path / "out" / "a.pt")!r}, 'w').write('x')
    """
    ids, err, _ = run_program(store, code)
    assert [recorded(store, run_id) for run_id in ids] == ["finished"] * 2, err
    assert [record.run for record in store.iter_snapshots()] == [ids[0]]


def test_a_child_ends_nothing(store: Store) -> None:
    code = """
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
        print(run.status)
    """
    [_, status], err, _ = run_program(store, code)
    assert status == "running", err


@pytest.mark.parametrize(
    "code",
    [
        "import shutil; shutil.rmtree(sys.argv[1])",
        "castfs.remove_run(run.id, force=True, store=sys.argv[1])",
    ],
)
def test_what_is_gone_is_no_news(store: Store, code: str) -> None:
    _, err, status = run_program(store, code)
    assert (err, status) == ("", 0)
    assert not (store.path / "runs").exists() or list((store.path / "runs").iterdir()) == []


def test_what_cannot_be_written_is(store: Store) -> None:
    code = """
        file = run.run_dir.with_name(run.id + '.json')
        file.unlink()
        file.mkdir()
    """
    _, err, status = run_program(store, code)
    assert "cannot be read" in err
    assert (err.count("\n"), status) == (1, 0)


# Without a word ---------------------------------------------------------------------------------


@pytest.mark.parametrize("run_dir", [False, True])
def test_a_run_whose_process_is_killed(store: Store, tmp_path: Path, run_dir: bool) -> None:
    more = f", run_dir={str(tmp_path / 'mine')!r}" if run_dir else ""
    with program(store, "input()", first=begin(more)) as process:
        run_id = line_of(process)
        run = castfs.find_run(run_id, store=store)
        assert (run.status, describe_run(store.depot, run_id).run.status) == ("running", "running")
        with pytest.raises(BusyError, match=f"{run_id} is running"):
            remove_run(store.depot, run_id)
        process.kill()
        process.wait(TIMEOUT)
        assert run.status == "lost"
    assert describe_run(store.depot, run_id).run.status == "lost"
    assert [each.status for each in castfs.iter_runs(store=store)] == ["lost"]
    assert recorded(store, run_id) == "running"
    remove_run(store.depot, run_id)
    assert list(castfs.iter_runs(store=store)) == []
    assert not (tmp_path / "mine" / ALIVE).exists()


def test_a_lost_run_may_be_ended_or_gone_on_with(store: Store) -> None:
    with program(store, "input()") as process:
        run_id = line_of(process)
        process.kill()
    run = castfs.find_run(run_id, store=store)
    assert run.summary() == {}
    assert run.status == "lost", "to look is not to work"
    run.log({"loss": 1})
    assert run.status == "running"
    with pytest.raises(BusyError):
        remove_run(store.depot, run_id)
    del run
    run = castfs.find_run(run_id, store=store)
    assert run.status == "lost"
    run.finish("failed")
    assert run.status == "failed"


def test_another_process_that_works_for_it(store: Store) -> None:
    """It has found the run by its id; the one that began it is killed."""
    with program(store, "input()") as first:
        run_id = line_of(first)
        find = f"import castfs, sys; run = castfs.find_run({run_id!r}, store=sys.argv[1])\n"
        with program(store, "run.log({'a': 1}); print(flush=True); input()", first=find) as second:
            line_of(second)
            first.kill()
            first.wait(TIMEOUT)
            assert castfs.find_run(run_id, store=store).status == "running"
            second.kill()
            second.wait(TIMEOUT)
    assert castfs.find_run(run_id, store=store).status == "lost"


def test_a_child_keeps_it_alive_and_a_program_does_not(store: Store) -> None:
    code = """
        import subprocess
        other = subprocess.Popen(['sleep', '600'], close_fds=False)
        child = os.fork()
        if child == 0:
            os.read(0, 1)
            os._exit(0)
        print(other.pid, flush=True)
        os.waitpid(child, 0)
    """
    with program(store, code) as process:
        run_id, other = line_of(process), int(line_of(process))
        try:
            process.kill()
            process.wait(TIMEOUT)
            assert castfs.find_run(run_id, store=store).status == "running"
            assert process.stdin is not None
            process.stdin.close()  # the child ends; `sleep` goes on
            while castfs.find_run(run_id, store=store).status == "running":
                pass  # until the test's own time is up
            assert castfs.find_run(run_id, store=store).status == "lost"
        finally:
            os.kill(other, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_outlives_the_end(store: Store) -> None:
    """Said, and not left to the close."""
    run = castfs.init(store=store)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        run.finish()
        assert is_held(store.depot, run.id) is False
        remove_run(store.depot, run.id)
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(pid, 0)


def test_where_nobody_can_tell(store: Store, tmp_path: Path, run: Run) -> None:
    """The directory is on another machine, or another run's: it goes on, as far as is known."""
    more = f", run_dir={str(tmp_path / 'mine')!r}"
    with program(store, "input()", first=begin(more)) as process:
        run_id = line_of(process)
        process.kill()
    found = castfs.find_run(run_id, store=store)
    assert found.status == "lost"
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    assert found.status == "running"
    with pytest.raises(BusyError):
        remove_run(store.depot, run_id)
    remove_run(store.depot, run_id, force=True)
    assert run.status == "running"


def test_without_locks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("castfs.runs.liveness.try_flock", refuse)
    run = castfs.init(store=store)
    run.log({"a": 1})
    assert run.status == "running"
    run.finish()
    assert run.status == "finished"


def test_runs_of_before(store: Store) -> None:
    """And imported ones: nobody ever held a lock of theirs."""
    with castfs.init(store=store) as run:
        (run.run_dir / ALIVE).unlink()
        assert run.status == "lost"


# Taking away what runs --------------------------------------------------------------------------


def test_a_run_of_this_process(store: Store) -> None:
    run = castfs.init(store=store)
    for each in (run.id, run.id[:-1]):
        with pytest.raises(BusyError):
            castfs.remove_run(each, store=store)
    assert [each.status for each in castfs.remove_run(run.id, store=store, dry_run=True).runs] == [
        "running"
    ]
    castfs.remove_run(run.id, store=store, force=True)
    with pytest.raises(NotFoundError):
        run.finish()
