"""When a rolling output is taken: the documented rules, one by one."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from castfs.errors import CastfsError, StoreError, UsageError
from castfs.runs.outputs import DEFAULT_PATTERNS
from tests.runs.rolling import START, Workspace, failed, taken, waiting


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "work"
    root.mkdir()
    return Workspace(root)


def test_a_file_is_taken_once_it_is_stable_and_old_enough(workspace: Workspace) -> None:
    workspace.write("out/model.pt", b"weights", age=0.5)
    assert waiting(workspace.scan()) == {"out/model.pt": "UNSTABLE"}
    assert waiting(workspace.scan()) == {"out/model.pt": "YOUNG"}
    workspace.now += 0.5
    (one,) = workspace.scan().taken
    assert (one.key, one.kind, one.size_bytes, one.is_log) == ("out/model.pt", "file", 7, False)
    assert one.id == "out/model.pt@1"
    assert workspace.taken == [("out/model.pt", b"weights")]
    for _ in range(3):
        report = workspace.scan()
        assert (report.taken, report.waiting, report.failed, report.unchanged) == ((), (), (), 1)


def test_what_take_is_told(workspace: Workspace) -> None:
    workspace.restart(mode="overwrite_versions")
    workspace.write("out/a.pt")
    workspace.write("out/a.log")
    workspace.scan(2)
    log, file = sorted(workspace.outputs, key=lambda output: output.key)
    assert (file.path, file.kind, file.mode) == (
        workspace.root / "out/a.pt",
        "file",
        "overwrite_versions",
    )
    assert (log.path, log.is_log, log.mode) == (workspace.root / "out/a.log", True, "rolling")


@pytest.mark.parametrize("change", ["size", "mtime", "both"])
def test_what_changes_starts_anew(workspace: Workspace, change: str) -> None:
    workspace.restart(stable_required=3)
    path = workspace.write("out/a.pt", b"one")
    workspace.scan(2)
    workspace.write("out/a.pt", b"one" if change == "mtime" else b"three")
    workspace.age(path, 100 if change == "size" else 50)
    assert taken(workspace.scan(2)) == []
    assert taken(workspace.scan()) == ["out/a.pt"]
    workspace.write("out/a.pt", b"four", age=20)
    assert taken(workspace.scan(3)) == ["out/a.pt"]
    assert len(workspace.taken) == 2


def test_one_scan_may_be_enough(workspace: Workspace) -> None:
    workspace.restart(stable_required=1, min_age_sec=0)
    workspace.write("out/a.pt", age=0)
    assert taken(workspace.scan()) == ["out/a.pt"]


def test_an_mtime_in_the_future_does_not_wait_for_it(workspace: Workspace) -> None:
    workspace.write("out/a.pt", age=-1e6)
    assert waiting(workspace.scan(2)) == {"out/a.pt": "YOUNG"}
    workspace.now += 1
    assert taken(workspace.scan()) == ["out/a.pt"]


def test_a_clock_that_is_set_back_makes_nothing_wait_for_it(workspace: Workspace) -> None:
    workspace.write("out/a.pt", age=-1e6)
    workspace.write("out/a.log", b"1")
    workspace.scan()
    workspace.now -= 1e6
    workspace.write("out/a.log", b"12")
    workspace.scan()
    workspace.now += 60
    assert sorted(taken(workspace.scan())) == ["out/a.log", "out/a.pt"]


def test_a_clock_that_is_set_back_after_a_log_has_changed(workspace: Workspace) -> None:
    workspace.write("out/a.log", b"1")
    workspace.scan()
    workspace.write("out/a.log", b"12")
    assert waiting(workspace.scan()) == {"out/a.log": "INTERVAL"}
    workspace.now -= 1e6
    workspace.scan()
    workspace.now += 60
    assert taken(workspace.scan()) == ["out/a.log"]


def test_what_was_gone_in_between_is_as_new(workspace: Workspace) -> None:
    path = workspace.write("out/a.pt", age=-1e6)
    workspace.scan()
    workspace.now += 0.9
    os.rename(path, path + b".away")
    workspace.scan()
    os.rename(path + b".away", path)
    assert waiting(workspace.scan()) == {"out/a.pt": "UNSTABLE"}
    workspace.now += 0.9
    assert waiting(workspace.scan()) == {"out/a.pt": "YOUNG"}
    workspace.now += 0.1
    assert taken(workspace.scan()) == ["out/a.pt"]


def test_logs_are_taken_at_once_and_then_at_most_once_per_interval(workspace: Workspace) -> None:
    data = b""
    for second in range(0, 200, 10):
        workspace.now = START + second
        data += b"line\n"
        workspace.write("out/train.log", data, age=0)
        workspace.scan()
    times = [len(content) // 5 for _, content in workspace.taken if isinstance(content, bytes)]
    assert times == [1, 7, 13, 19]  # at 0, 60, 120 and 180 s
    assert waiting(workspace.scan()) == {"out/train.log": "INTERVAL"}
    assert taken(workspace.scan(last=True)) == ["out/train.log"]
    workspace.now += 1000
    assert workspace.scan().unchanged == 1


@pytest.mark.parametrize(
    "name", ["a.log", "a.txt", "a.jsonl", "a.csv", "A.LOG", "events.out.tfevents.17.host"]
)
def test_what_is_a_log(workspace: Workspace, name: str) -> None:
    workspace.restart(patterns=["*"])
    workspace.write("out/" + name, age=0)
    assert [each.is_log for each in workspace.scan().taken] == [True]


def test_the_default_patterns(workspace: Workspace) -> None:
    for ending in ("pth", "pt", "ckpt", "onnx", "log", "json", "txt", "csv", "png"):
        workspace.write(f"out/a.{ending}")
        workspace.write(f"out/deep/er/b.{ending}")
    for name in ("a.py", "a.pt.tmp", "pt", "a.PT", "tfevents"):
        workspace.write(f"out/{name}")
    workspace.scan(2)
    assert len(workspace.taken) == 2 * len(DEFAULT_PATTERNS)
    assert "out/deep/er/b.onnx" in workspace.taken_keys()


def test_patterns_of_ones_own(workspace: Workspace) -> None:
    workspace.restart(patterns=["*.bin", "!tmp*", "best/*.pt", "**/last/x"])
    for name in ("a.bin", "d/tmp.bin", "d/b.bin", "best/a.pt", "d/best/a.pt", "d/last/x", "a.pt"):
        workspace.write(f"out/{name}")
    workspace.scan(2)
    assert workspace.taken_keys() == ["out/a.bin", "out/best/a.pt", "out/d/b.bin", "out/d/last/x"]


def test_a_pattern_with_a_slash_at_its_end_takes_directories(workspace: Workspace) -> None:
    workspace.restart(patterns=["checkpoint-*/", "*.pt"])
    workspace.write("out/checkpoint-1/model.pt", b"m")
    workspace.write("out/checkpoint-1/deep/state.bin", b"s")
    workspace.write("out/checkpoint-2")  # no directory
    workspace.write("out/other/a.pt", b"a")
    (workspace.root / "out/checkpoint-3").mkdir()
    report = workspace.scan(2)
    # The directory was made a moment ago, by the real clock, which is ahead of this one.
    assert waiting(report) == {"out/checkpoint-1": "YOUNG", "out/checkpoint-3": "EMPTY"}
    workspace.now += 1
    report = workspace.scan()
    workspace.taken.sort()
    assert workspace.taken == [
        ("out/checkpoint-1", {"model.pt": b"m", "deep": {"state.bin": b"s"}}),
        ("out/other/a.pt", b"a"),
    ]
    assert (report.taken[0].kind, report.taken[0].size_bytes) == ("dir", 2)
    assert workspace.scan().unchanged == 2


@pytest.mark.parametrize("change", ["content", "deep", "new", "removed", "renamed", "link", "type"])
def test_a_directory_is_judged_by_all_that_is_in_it(workspace: Workspace, change: str) -> None:
    workspace.restart(patterns=["c/"], min_age_sec=0)
    workspace.write("out/c/a", b"a")
    workspace.write("out/c/d/b", b"b")
    directory = workspace.root / "out/c"
    (directory / "link").symlink_to("a")
    (directory / "empty").mkdir()
    assert taken(workspace.scan(2)) == ["out/c"]
    match change:
        case "content":
            workspace.write("out/c/a", b"a", age=50)
        case "deep":
            workspace.write("out/c/d/b", b"bb")
        case "new":
            workspace.write("out/c/d/c", b"")
        case "removed":
            (directory / "d/b").unlink()
        case "renamed":
            (directory / "d/b").rename(directory / "d/c")
        case "link":
            (directory / "link").unlink()
            (directory / "link").symlink_to("d")
        case "type":
            (directory / "empty").rmdir()
            workspace.write("out/c/empty", b"")
    assert waiting(workspace.scan()) == {"out/c": "UNSTABLE"}
    assert taken(workspace.scan()) == ["out/c"]


def test_a_temporary_file_that_came_and_went_leaves_a_directory_as_it_was(
    workspace: Workspace,
) -> None:
    workspace.restart(patterns=["c/"], min_age_sec=0)
    workspace.write("out/c/a", b"a")
    workspace.scan(2)
    os.unlink(workspace.write("out/c/temporary"))
    assert workspace.scan().unchanged == 1


def test_symlinks_are_not_followed(workspace: Workspace, tmp_path: Path) -> None:
    workspace.write("secret/a.pt")
    out = workspace.root / "out"
    (out / "link.pt").symlink_to(workspace.root / "secret/a.pt")
    (out / "dir").symlink_to(workspace.root / "secret")
    (out / "round").symlink_to(out)
    workspace.write("out/real.pt")
    (out / "last.pt").symlink_to("real.pt")
    workspace.scan(2)
    assert workspace.taken_keys() == ["out/real.pt"]


def test_an_output_directory_may_be_a_symlink(workspace: Workspace, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "a.pt").write_bytes(b"a")
    (workspace.root / "runs").symlink_to(scratch)
    workspace.now += 1e9
    workspace.restart(output_dirs=["runs"])
    assert taken(workspace.scan(2)) == ["runs/a.pt"]


def test_what_is_no_file_is_ignored(workspace: Workspace) -> None:
    os.mkfifo(workspace.root / "out/fifo.log")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(workspace.root / "out/socket.log"))
        workspace.restart(patterns=["*", "c/"])
        workspace.write("out/c/a")
        os.mkfifo(workspace.root / "out/c/fifo")
        workspace.now += 1e9
        report = workspace.scan()
    assert waiting(report) == {"out/c": "UNSTABLE"}
    assert (report.taken, report.failed) == ((), ())


@pytest.mark.parametrize("kind", ["fifo", "symlink", "gone", "other"])
@pytest.mark.parametrize("name", ["b.pt", "b.log"])
def test_what_is_replaced_while_another_is_taken(
    workspace: Workspace, name: str, kind: str
) -> None:
    """The directory was listed before."""
    path = os.fsdecode(workspace.write(f"out/{name}", b"b"))
    workspace.write("out/a.pt", b"a")
    workspace.scan() if name == "b.pt" else None
    original = workspace.scanner.take

    def replace(output: object) -> str:
        os.unlink(path)
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "symlink":
                os.symlink("/etc/hostname", path)
            case "other":
                workspace.write(f"out/{name}", b"other", age=0)
        workspace.scanner.take = original
        return original(output)  # type: ignore[arg-type]

    workspace.scanner.take = replace
    if name == "b.log":
        workspace.restart(stable_required=1)
        workspace.scanner.take = replace
    report = workspace.scan()
    if (name, kind) == ("b.log", "other"):  # a log may be taken while it is written
        assert workspace.taken == [("out/a.pt", b"a"), ("out/b.log", b"other")]
    else:
        assert workspace.taken == [("out/a.pt", b"a")]
        assert {**waiting(report), **failed(report)}.keys() == {f"out/{name}"}


def test_names_of_any_bytes(workspace: Workspace) -> None:
    names = [b"\xff\xfe.pt", b"new\nline.pt", "\u241b.pt".encode(), b"\x1b[31m.pt", "é.pt".encode()]
    for number, name in enumerate(names):
        workspace.write(b"out/" + name, b"%d" % number)
    assert len(workspace.scan(2).taken) == 5
    assert workspace.taken[-1] == ("out/␛ff␛fe.pt", b"0")
    workspace.restart()
    assert workspace.scan().unchanged == 5
    for name in names:
        (Path(os.fsdecode(workspace.root)) / "out" / os.fsdecode(name)).unlink()
    workspace.scan()
    workspace.now += 8 * 24 * 3600
    workspace.scan()
    assert b'"outputs":{}' in workspace.state_file.read_bytes()


def test_paths_longer_than_the_kernel_takes(workspace: Workspace) -> None:
    workspace.write("out/a.pt")
    fd = os.open(workspace.root / "out", os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=fd)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("x.pt", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.utime("x.pt", (START, START), dir_fd=fd)
    os.close(fd)
    workspace.now += 1e9
    report = workspace.scan(2)
    assert taken(report) == ["out/a.pt"]
    assert list(failed(report).values()) == ["File name too long"]


def test_what_cannot_be_taken_is_reported_and_tried_again(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abcde":
        workspace.write(f"out/{name}.pt", name.encode())
    workspace.errors = {
        "out/a.pt": PermissionError(13, "Permission denied"),
        "out/b.pt": CastfsError("the store is full", hint="make room"),
        "out/c.pt": ZeroDivisionError("a bug"),
        "out/d.pt": FileNotFoundError(2, "No such file or directory"),
    }
    for _ in range(2):
        report = workspace.scan(2)
        assert failed(report) == {
            "out/a.pt": "Permission denied",
            "out/b.pt": "the store is full; make room",
            "out/c.pt": "ZeroDivisionError: a bug",
            "out/d.pt": "No such file or directory",
        }
    assert "ZeroDivisionError" in caplog.text
    assert workspace.taken_keys() == ["out/e.pt"]
    workspace.errors = {}
    assert taken(workspace.scan()) == [f"out/{name}.pt" for name in "abcd"]


def test_a_directory_that_cannot_be_looked_at(workspace: Workspace, tmp_path: Path) -> None:
    workspace.write("file")
    workspace.write("out/a.pt")
    workspace.restart(output_dirs=["file", "not there yet", "out", "loop"])
    (workspace.root / "loop").symlink_to("loop")
    report = workspace.scan(2)
    assert failed(report) == {
        "file": "Not a directory",
        "loop": "Too many levels of symbolic links",
    }
    assert taken(report) == ["out/a.pt"]


def test_what_an_interrupted_take_leaves(workspace: Workspace) -> None:
    workspace.write("out/a.pt")
    workspace.write("out/b.pt")
    workspace.scan()
    workspace.errors = {"out/b.pt": KeyboardInterrupt()}  # type: ignore[dict-item]
    with pytest.raises(KeyboardInterrupt):
        workspace.scan()
    workspace.errors = {}
    workspace.restart()
    assert taken(workspace.scan()) == ["out/b.pt"]


def test_told_to_stop(workspace: Workspace) -> None:
    workspace.write("out/a.pt")
    workspace.write("out/b.pt")
    workspace.scan()
    assert taken(workspace.scan(should_stop=lambda: bool(workspace.taken))) == ["out/a.pt"]
    assert taken(workspace.scan()) == ["out/b.pt"]


def test_output_directories_in_one_another(workspace: Workspace) -> None:
    workspace.restart(output_dirs=["out", "out/deep", ".", workspace.root / "out"])
    workspace.write("out/deep/a.pt")
    assert taken(workspace.scan()) == []
    assert taken(workspace.scan()) == ["out/deep/a.pt"]


def test_keys_are_relative_to_the_root_where_they_can_be(
    workspace: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "a.pt").write_bytes(b"a")
    (tmp_path / "alias").symlink_to(workspace.root)
    workspace.write("out/b.pt")
    workspace.restart(output_dirs=[str(outside), tmp_path / "alias/out"])
    workspace.now += 1e9
    assert taken(workspace.scan(2)) == [f"{outside}/a.pt", "out/b.pt"]


def test_one_output_directory_may_be_given_alone(workspace: Workspace) -> None:
    workspace.restart(output_dirs="out", patterns=[])
    workspace.write("out/a.pt")
    assert taken(workspace.scan(2)) == ["out/a.pt"]


def test_the_state_file_and_the_store_are_no_outputs(workspace: Workspace) -> None:
    store = workspace.root / "out/store"
    store.mkdir()
    workspace.state_file = workspace.root / "out/state.json"
    (workspace.root / "out/tmp-0123456789abcdef").write_bytes(b"")
    workspace.restart(patterns=["*", "all/"], keep_out=[store, workspace.root / "none"])
    workspace.write("out/store/a.json")
    workspace.write("out/a.json")
    workspace.scan(3)
    assert workspace.taken_keys() == ["out/a.json"]


def test_what_is_gone_is_forgotten_after_a_while(workspace: Workspace) -> None:
    path = workspace.write("out/a.pt")
    workspace.scan(2)
    os.rename(path, path + b".away")
    workspace.scan()
    workspace.now += 7 * 24 * 3600 - 1
    workspace.scan()
    for _ in range(2):  # the time counts from when it was gone last
        os.rename(path + b".away", path)
        assert workspace.scan().unchanged == 1
        workspace.now += 7 * 24 * 3600
        os.rename(path, path + b".away")
        workspace.scan()
    workspace.now += 7 * 24 * 3600
    workspace.scan()
    os.rename(path + b".away", path)
    assert taken(workspace.scan(2)) == ["out/a.pt"]


def test_what_another_scanner_looks_at_is_not_forgotten(workspace: Workspace) -> None:
    workspace.write("out/a.pt")
    workspace.write("more/b.pt")
    workspace.restart(output_dirs=["more"])
    workspace.scan(2)
    workspace.restart(output_dirs=["out"], state_gc_after_sec=0)
    workspace.scan(2)
    workspace.restart(output_dirs=["out", "more"])
    assert workspace.scan().unchanged == 2


def test_what_cannot_be_looked_at_is_not_forgotten(workspace: Workspace) -> None:
    workspace.restart(state_gc_after_sec=0)
    workspace.write("out/a.pt")
    workspace.scan(2)
    (workspace.root / "out").rename(workspace.root / "away")
    (workspace.root / "out").symlink_to("out")
    assert list(failed(workspace.scan())) == ["out"]
    (workspace.root / "out").unlink()
    (workspace.root / "away").rename(workspace.root / "out")
    assert workspace.scan().unchanged == 1


def test_an_idle_scan_writes_nothing(workspace: Workspace) -> None:
    workspace.write("out/a.pt")
    workspace.write("out/a.log")
    workspace.scan(2)
    before = workspace.state_file.stat()
    workspace.now += 1e6
    workspace.scan(3)
    assert workspace.state_file.stat().st_ino == before.st_ino
    assert workspace.state_file.stat().st_mtime_ns == before.st_mtime_ns


def test_another_scanners_state_counts(workspace: Workspace) -> None:
    workspace.write("out/a.pt")
    other = workspace.make()
    workspace.scan()
    other.scan_once()
    assert workspace.taken_keys() == ["out/a.pt"]
    assert workspace.scan().unchanged == 1


DAMAGED = {
    "empty": b"",
    "cut": b'{"format":"castfs-outputs","format_version":1,"outputs":{"out/a.pt":{"sta',
    "not UTF-8": b'{"format":"\xff"}',
    "a list": b"[]",
    "another format": b'{"format":"other","format_version":1,"outputs":{}}',
    "a later version": b'{"format":"castfs-outputs","format_version":2,"outputs":{}}',
    "wrong types": b'{"format":"castfs-outputs","format_version":1,"outputs":{"a":{"stamp":1}}}',
    "a bad key": '{"format":"castfs-outputs","format_version":1,"outputs":{"␛zz":'
    '{"stamp":"","stable":1,"since":0}}}'.encode(),
    "a NUL": b'{"format":"castfs-outputs","format_version":1,"outputs":{"\\u0000":'
    b'{"stamp":"","stable":1,"since":0}}}',
    "deep": b"[" * 100_000,
    "deep in what is not known": b'{"x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_state_starts_anew(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    workspace.write("out/a.pt")
    workspace.scan(2)
    workspace.state_file.write_bytes(data)
    workspace.restart()
    with caplog.at_level(logging.WARNING):
        workspace.scan()
    assert len(caplog.records) == 1
    assert "is damaged" in caplog.text
    assert taken(workspace.scan()) == ["out/a.pt"]
    workspace.restart()
    assert workspace.scan().unchanged == 1


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_a_state_file_that_is_none(workspace: Workspace, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(workspace.state_file)
    else:
        workspace.state_file.mkdir()
    workspace.write("out/a.pt")
    with pytest.raises(StoreError, match="is not a file; name another"):
        workspace.scan()


def test_a_state_that_cannot_be_written(workspace: Workspace) -> None:
    workspace.state_file = workspace.root / "none/state.json"
    workspace.restart()
    workspace.write("out/a.pt")
    with pytest.raises(FileNotFoundError):
        workspace.scan()
    with pytest.raises(FileNotFoundError):
        workspace.scan()
    assert workspace.taken_keys() == ["out/a.pt"]  # what matters is done all the same
    (workspace.root / "none").mkdir()
    workspace.write("out/b.pt")
    assert taken(workspace.scan(2)) == ["out/b.pt"]
    workspace.restart()
    assert workspace.scan().unchanged == 2


@pytest.mark.parametrize(
    "options",
    [
        {"stable_required": 0},
        {"min_age_sec": -1},
        {"min_age_sec": float("nan")},
        {"log_snapshot_interval_sec": -0.1},
        {"state_gc_after_sec": -1},
        {"patterns": ["a[b"]},
        {"patterns": ["*.pt", "/"]},
    ],
)
def test_options_that_make_no_sense(workspace: Workspace, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        workspace.make(**options)
