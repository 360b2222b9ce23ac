"""What a snapshot cannot hold, and what nobody may read."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import castfs
from castfs.errors import UnreadableError
from castfs.repository import Store
from tests.ingest.taking import Ingest
from tests.store.checking import assert_idle, check_store, hash_blobs, read_records

ROOT = Path(__file__).parents[2]


@pytest.mark.needs_root
def test_fifos_sockets_and_devices_are_skipped_with_a_line_each(
    source: Path, store: Store, ingest: Ingest
) -> None:
    (source / "dir").mkdir()
    os.mkfifo(source / "dir" / "fifo")
    os.mknod(source / "char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(source / "socket"))
    (source / "file").write_bytes(b"x")
    result = ingest()
    reasons = {entry.path: entry.reason.split(",")[0] for entry in result.skipped}
    assert reasons == {
        b"block": "a block device", b"char": "a character device", b"dir/fifo": "a FIFO",
        b"socket": "a socket",
    }  # fmt: skip
    assert result.file_count == 1
    [record] = read_records(store.path)
    assert {entry["path"] for entry in record["skipped"]} == {"block", "char", "dir/fifo", "socket"}


def test_nothing_but_a_fifo_is_an_empty_snapshot(source: Path, ingest: Ingest) -> None:
    os.mkfifo(source / "fifo")
    result = ingest()
    assert (result.file_count, [entry.path for entry in result.skipped]) == (0, [b"fifo"])


_AS_USER = """
import os, sys
from pathlib import Path
import castfs, castfs.repository.taking
from castfs.errors import UnreadableError
from castfs.ingest import ScanOptions
options = ScanOptions(skip_unreadable=sys.argv[1] == "skip", xattrs=True)
os.setgroups([])
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
store = castfs.open("/mnt/store", create=True)
try:
    result = store.ingest("/mnt/source", options=options)
except UnreadableError as error:
    print(error.exit_code, *(f"{os.fsdecode(path)}: {why}" for path, why in error.entries), sep="|")
else:
    print("ok", *(f"{os.fsdecode(e.path)}: {e.reason}" for e in result.skipped), sep="|")
"""


def run_as_user(tmp_path: Path, mode: str) -> str:
    """As uid 1000, with `tmp_path` at /mnt: pytest's own directories are closed to others."""
    script = 'mount --bind "$1" /mnt && shift && exec "$@"'
    command: list[str | Path] = ["unshare", "--mount", "sh", "-c", script, "sh", tmp_path]
    done = subprocess.run(
        [*command, sys.executable, "-c", _AS_USER, mode],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "/mnt/cache"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.fixture
def users_source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("fine", "closed", "write only", "large"):
        (source / name).write_bytes(name.encode() * (1 if name != "large" else 300_000))
    (source / "closed dir").mkdir()
    (source / "closed dir" / "inside").write_bytes(b"x")
    (source / "no search").mkdir()
    (source / "no search" / "inside").write_bytes(b"x")
    for path in (tmp_path, source, *source.rglob("*")):
        os.chown(path, 1000, 1000)
    (source / "closed").chmod(0)
    (source / "large").chmod(0)
    (source / "write only").chmod(0o200)
    (source / "closed dir").chmod(0o300)
    (source / "no search").chmod(0o600)
    return source


UNREADABLE = {
    f"{name}: Permission denied"
    for name in ("closed", "large", "write only", "closed dir", "no search/inside")
}


@pytest.mark.semantics("I13")
@pytest.mark.needs_root
def test_unreadable_entries_are_all_listed_and_nothing_is_stored(
    tmp_path: Path, users_source: Path
) -> None:
    answer = run_as_user(tmp_path, "fail").split("|")
    assert answer[0] == "1"
    assert set(answer[1:]) == UNREADABLE
    assert hash_blobs(tmp_path / "store") == {}
    assert read_records(tmp_path / "store") == []
    assert_idle(tmp_path / "store")


@pytest.mark.semantics("I13")
@pytest.mark.needs_root
def test_unreadable_entries_are_skipped_on_request(tmp_path: Path, users_source: Path) -> None:
    answer = run_as_user(tmp_path, "skip").split("|")
    assert answer[0] == "ok"
    assert set(answer[1:]) == UNREADABLE
    check_store(tmp_path / "store")
    [record] = read_records(tmp_path / "store")
    assert {f"{entry['path']}: {entry['reason']}" for entry in record["skipped"]} == UNREADABLE
    snapshot = castfs.open(tmp_path / "store").resolve(record["id"])
    assert {path for path, _ in snapshot.iter_entries()} == {b"fine", b"no search"}


@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_medium_is_the_files_fault_not_the_stores(
    source: Path, ingest: Ingest, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of reading names the file, and --skip-unreadable goes on."""
    (source / "bad").write_bytes(b"x" * (3 << 20 if large else 100))
    (source / "good").write_bytes(b"y")
    inode = (source / "bad").stat().st_ino
    for name in ("read", "readv"):

        def fail(fd: int, wanted: object, original: object = getattr(os, name)) -> object:
            if os.fstat(fd).st_ino == inode:
                raise OSError(5, "Input/output error")
            return original(fd, wanted)  # type: ignore[operator]

        monkeypatch.setattr(os, name, fail)
    with pytest.raises(UnreadableError) as caught:
        ingest()
    assert caught.value.entries == ((b"bad", "Input/output error"),)
    assert re.search("--skip-unreadable", str(caught.value))
    result = ingest(skip_unreadable=True)
    assert [entry.path for entry in result.skipped] == [b"bad"]


def test_a_record_lists_what_was_skipped_with_any_name(
    source: Path, store: Store, ingest: Ingest
) -> None:
    os.mkfifo(os.fsencode(source) + b"/\xff\n")
    result = ingest()
    [path] = (store.path / "snapshots").iterdir()
    record = json.loads(path.read_bytes())
    assert len(record["skipped"]) == 1
    assert result.skipped[0].path == b"\xff\n"
    assert next(store.iter_snapshots()).skipped[0].path == record["skipped"][0]["path"]
