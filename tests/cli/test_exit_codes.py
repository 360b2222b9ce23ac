"""Each exit code, reached by what it stands for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.cli.help import EXIT_CODES
from tests.cli.conftest import TIMEOUT, Run, command, command_to_signal, environment, one_line


def blob_of(castfs: Run, snapshot: str, path: str, store: Path) -> Path:
    [entry] = castfs("ls", "--json", snapshot, path).json
    digest = str(entry["sha256"])
    return store / "blobs" / digest[:2] / digest


def test_0_done(castfs: Run, tree: Path) -> None:
    castfs("ingest", tree, code=0)


def test_1_failed(castfs: Run, tmp_path: Path, store: Path) -> None:
    line = one_line(castfs("ingest", tmp_path / "missing", code=1).err)
    assert line.startswith("castfs: ")
    assert not store.exists(), "a typo must not create a store"


def test_1_limit(castfs: Run, tree: Path) -> None:
    castfs("init")
    assert "--max-files" in one_line(castfs("ingest", tree, "--max-files", "2", code=1).err)
    assert castfs("list", "-q").out == b""


def test_1_differences(castfs: Run, taken: str, tree: Path) -> None:
    (tree / "a.txt").write_text("changed\n")
    castfs("diff", taken, f"{tree}/", code=0)
    castfs("diff", "--exit-code", taken, f"{tree}/", code=1)
    castfs("diff", "--exit-code", taken, taken, code=0)


USAGE = [
    ["ingest"],
    ["ingest", ""],
    ["ingest", ".", "--no-such-option"],
    ["ingest", ".", "--max-bytes", "many"],
    ["ingest", ".", "--meta", "novalue"],
    ["ingest", ".", "--meta", "k=1", "--meta", "k=2"],
    ["ingest", ".", "--name", os.fsdecode(b"\xff")],
    *(
        ["ingest", ".", "--name", name]
        for name in ("", " ", "a//b", "a/../b", "a:b", "a@b", "x.json", "-x")
    ),
    ["ingest", ".", "--name", "deadbeef"],
    ["ingest", ".", "-q", "--json"],
    ["ingest", ".", "--reproducible", "--owner"],
    ["--store", "", "list"],
    ["list", "--limit", "0"],
    ["ls", "-0l", "x"],
    ["mount", "x", "y", "--"],
    ["mount", "x", "y", "-f", "--", "true"],
    ["mount", "x", "y", "z"],
    ["umount"],
    ["umount", "--all", "x"],
    ["completion", "tcsh"],
    ["restore", "x", "y", "--if-exists", "maybe"],
]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_2_usage(castfs: Run, args: list[str]) -> None:
    result = castfs(*args, code=2)
    assert result.out == b""
    assert ";" in one_line(result.err), "no hint"


def test_3_skipped(castfs: Run, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    castfs("init")
    result = castfs("ingest", tree, code=3)
    assert one_line(result.err).startswith("skipped pipe: a FIFO")
    result = castfs("ingest", tree, "-q", code=3)
    assert "skipped pipe: " in castfs("show", result.text.strip()).text
    assert castfs("ingest", tree, "--json", code=3).json["skipped"][0]["path"] == "pipe"


@pytest.mark.parametrize(
    "args",
    [
        ["show", "0123456789"],
        ["show", "no-such-name"],
        ["show", "./missing.json"],
        ["ls", "{taken}", "no/such/path"],
        ["cat", "{taken}", "nothing"],
        ["cat", "{taken}", "sub"],
        ["find", "*.nothing"],
        ["restore", "{taken}", "{tmp}/target", "nothing"],
    ],
    ids=lambda args: " ".join(args),
)
def test_4_not_found(castfs: Run, taken: str, tmp_path: Path, args: list[str]) -> None:
    result = castfs(*(arg.format(taken=taken, tmp=tmp_path) for arg in args), code=4)
    assert result.out == b""
    one_line(result.err)


def test_4_ambiguous(castfs: Run, taken: str, tree: Path, store: Path) -> None:
    (tree / "a.txt").write_text("changed\n")
    later = castfs("ingest", "-q", tree).text.strip()
    # As if both had been taken in one millisecond.
    twin = taken[:12] + later[12:]
    record = (store / "snapshots" / f"{later}.json").read_text().replace(later, twin)
    (store / "snapshots" / f"{twin}.json").write_text(record)
    line = one_line(castfs("show", taken[:12], code=4).err)
    assert taken in line
    assert twin in line
    shown = castfs("list", "-q").text.split()
    assert set(shown) == {taken, later, twin}
    assert len({row.split()[0] for row in castfs("list").text.splitlines()}) == 4


def test_5_damaged_record(castfs: Run, taken: str, tree: Path, store: Path) -> None:
    (store / "snapshots" / "zzz.json").write_text("{")
    result = castfs("list", "-q", code=5)
    assert result.text == f"{taken}\n", "the others are listed all the same"
    assert "zzz.json" in one_line(result.err)


def test_5_damaged_content(castfs: Run, taken: str, store: Path) -> None:
    blob = blob_of(castfs, taken, "a.txt", store)
    blob.chmod(0o644)
    blob.write_text("ALPHA\n")
    result = castfs("cat", taken, "a.txt", code=5)
    assert "a.txt" in one_line(result.err)


def test_5_missing_content(castfs: Run, taken: str, store: Path, tmp_path: Path) -> None:
    shutil.rmtree(store / "blobs")
    (store / "blobs").mkdir()
    one_line(castfs("cat", taken, "a.txt", code=5).err)
    castfs("restore", taken, tmp_path / "target", code=5)


@pytest.mark.parametrize(
    "args",
    [["list"], ["show", "abc"], ["stats"], ["find", "x"], ["versions", "m"]],
    ids=" ".join,
)
def test_10_no_store(castfs: Run, store: Path, args: list[str]) -> None:
    line = one_line(castfs(*args, code=10).err)
    assert str(store) in line
    assert "`castfs init`" in line
    assert not store.exists()


def read_until(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not ready():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def staged(store: Path) -> bool:
    return any(files for _, _, files in os.walk(store / "staging"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough files that an ingest of them can be interrupted, and that their names do not fit into
    a pipe (64 KiB)."""
    root = tmp_path_factory.mktemp("many")
    for directory in range(10):
        (root / str(directory)).mkdir()
        for file in range(300):
            path = root / str(directory) / f"file-with-a-long-name-{file:04}"
            path.write_bytes(b"%d-%d" % (directory, file))
    return root


@pytest.mark.semantics("I29")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_discards_what_was_staged(
    castfs: Run, many: Path, store: Path, number: signal.Signals, code: int
) -> None:
    castfs("init")
    with subprocess.Popen(
        command_to_signal("ingest", many),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        read_until(process, lambda: staged(store))
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (code, b"")
    one_line(err.decode())
    for directory in ("staging", "leases", "snapshots", "manifests"):
        assert [path for path in (store / directory).rglob("*") if path.is_file()] == []
    castfs("ingest", many, code=0)


def test_signal_that_is_ignored_stays_ignored(many: Path) -> None:
    """nohup(1) and shells' background jobs."""
    script = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += "from castfs.cli.process import signals_raised\n"
    script += "with signals_raised(): signal.raise_signal(signal.SIGHUP)\n"
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=TIMEOUT)


def test_141_reader_went_away(castfs: Run, many: Path) -> None:
    snapshot = castfs("ingest", "-q", many).text.strip()
    for args in (["ls", "-R"], ["ls", "-lR"], ["ls", "-R", "--json"], ["show", "--manifest"]):
        with subprocess.Popen(
            command(*args, snapshot),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(1)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141, args


def test_full_disk_under_stdout(castfs: Run, taken: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("ls", taken), stdout=full, stderr=subprocess.PIPE, env=environment()
        )
    assert done.returncode == 1
    assert "No space left" in one_line(done.stderr.decode())


def test_closed_stdout(castfs: Run, taken: str) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command("cat", taken, "a.txt")],
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=TIMEOUT,
    )
    assert done.returncode == 1
    assert "stdout is closed" in one_line(done.stderr.decode())


def test_table_names_every_code() -> None:
    for code in (0, 1, 2, 3, 4, 5, 10, 11, 130, 129, 143, 141):
        assert f" {code}" in EXIT_CODES
