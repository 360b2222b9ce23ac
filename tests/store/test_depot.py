"""Making, opening, refusing and moving stores."""

from __future__ import annotations

import grp
import json
import os
import subprocess
from pathlib import Path

import pytest

import castfs
from castfs.errors import DamageError, NoStoreError, StoreError
from castfs.repository import Store
from castfs.store import BlobDir, Depot, ensure_depot, find_depot_above, open_depot
from tests.store.checking import assert_idle, check_store
from tests.store.processes import run_python

DIRECTORIES = {
    "blobs", "manifests", "snapshots", "trash", "leases", "staging", "quarantine", "cache",
    "names", "notes", "runs",
}  # fmt: skip
FILES = {"castfs.json", "gate", "store", "gc.lock", "catalog.lock"}


def modes_below(path: Path) -> dict[str, str]:
    out = subprocess.run(
        ["find", ".", "-printf", "%P %m\\n"], cwd=path, capture_output=True, check=True, text=True
    ).stdout
    return dict(line.rsplit(" ", 1) for line in out.splitlines())


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_new_store_is_private(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        depot, created = ensure_depot(tmp_path / "deep" / "er" / "store")
    finally:
        os.umask(before)
    assert created
    assert modes_below(depot.path) == {
        "": "700",
        **dict.fromkeys(DIRECTORIES, "700"),
        **dict.fromkeys(FILES - {"castfs.json"}, "600"),
        "castfs.json": "444",
    }
    assert ensure_depot(depot.path) == (open_depot(depot.path), False)


def test_what_castfs_json_says(store: Store) -> None:
    document = json.loads((store.path / "castfs.json").read_bytes())
    assert document == {
        "format": "castfs-store", "version": 1, "id": document["id"],
        "required": [], "optional": [], "group": None,
    }  # fmt: skip
    assert len(bytes.fromhex(document["id"])) == 16


def test_opening_never_makes_one(tmp_path: Path) -> None:
    for path in (tmp_path / "typo", tmp_path / "empty", tmp_path / "file" / "below"):
        if path.name == "empty":
            path.mkdir()
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(NoStoreError) as caught:
            castfs.open(path)
        assert caught.value.exit_code == 10
    assert not (tmp_path / "typo").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "blobs.txt", ".git", "castfs.json.bak"])
def test_a_directory_of_others_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "full"
    path.mkdir()
    (path / name).write_bytes(b"x")
    path.chmod(0o755)
    with pytest.raises(StoreError, match="not empty"):
        ensure_depot(path)
    assert modes_below(path) == {"": "755", name: "644"}


def test_a_file_in_the_place_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError):
        ensure_depot(tmp_path / "file")


@pytest.mark.parametrize("left", range(1, 12))
def test_what_a_crash_left_of_a_new_store_is_completed(tmp_path: Path, left: int) -> None:
    depot, _ = ensure_depot(tmp_path / "whole")
    path = tmp_path / "half"
    path.mkdir()
    (path / "tmp-0123456789abcdef").write_bytes(b"half a marker")
    for name in sorted(DIRECTORIES | FILES - {"castfs.json"})[:left]:
        (path / name).mkdir() if name in DIRECTORIES else (path / name).touch()
    with pytest.raises(NoStoreError):
        open_depot(path)
    ensure_depot(path)
    assert set(modes_below(path)) - {"tmp-0123456789abcdef"} == set(modes_below(depot.path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "format other"),
        ({"required": ["teleport", "encryption"]}, "encryption, teleport"),
    ],
)
def test_a_store_of_the_future_is_refused(
    store: Store, changes: dict[str, object], said: str
) -> None:
    marker = store.path / "castfs.json"
    document = json.loads(marker.read_bytes())
    marker.unlink()
    marker.write_text(json.dumps({**document, **changes}))
    for call in (castfs.open, ensure_depot):
        with pytest.raises(StoreError, match=said) as caught:
            call(store.path)
        assert "\n" not in str(caught.value)


def test_optional_features_and_unknown_keys_are_no_obstacle(store: Store) -> None:
    marker = store.path / "castfs.json"
    document = json.loads(marker.read_bytes())
    marker.unlink()
    marker.write_text(json.dumps({**document, "optional": ["x"], "comment": {"a": [1]}}))
    assert castfs.open(store.path).path == store.path


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"\xff", b'{"format": "\xff"}', b"{" * 5000, b'{"version": "1"}']
)
def test_a_marker_that_is_none(store: Store, raw: bytes) -> None:
    (store.path / "castfs.json").unlink()
    (store.path / "castfs.json").write_bytes(raw)
    with pytest.raises(StoreError):
        open_depot(store.path)


_RACE = r"""
import os, sys
from pathlib import Path
from castfs.store import ensure_depot
path, count = Path(sys.argv[1]), int(sys.argv[2])
for round in range(int(sys.argv[3])):
    ready, go = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            depot, created = ensure_depot(path / str(round))
            os.write(1, f"{round} {depot.marker.id} {created}\n".encode())
            os._exit(0)
        children.append(pid)
    os.close(ready)
    os.close(go)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
"""


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    lines = run_python(_RACE, tmp_path / "many", 8, 15).splitlines()
    assert len(lines) == 8 * 15
    for number in range(15):
        mine = [line.split() for line in lines if line.split()[0] == str(number)]
        assert len({identity for _, identity, _ in mine}) == 1
        assert [created for _, _, created in mine].count("True") == 1
        assert set(modes_below(tmp_path / "many" / str(number))) == {"", *DIRECTORIES, *FILES}


def test_a_store_moves_as_a_whole(store: Store, source: Path, tmp_path: Path) -> None:
    result = store.ingest(source)
    reader = castfs.open(store.path).resolve(result.id)
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    store.path.rename(moved)
    again = castfs.open(moved)
    snapshot = again.resolve(result.id)
    with snapshot.open("sub/c") as file, (source / "sub" / "c").open("rb") as own:
        assert file.read() == own.read()
    # One that was open all the while reads on.
    with reader.open("a") as file:
        assert file.read() == b"a" * 100
    assert again.ingest(source).manifest_id == result.manifest_id
    check_store(moved)
    assert_idle(moved)


def test_no_file_in_a_store_names_its_place(store: Store, source: Path) -> None:
    store.ingest(source)
    needle = os.fsencode(store.path)
    for path in store.path.rglob("*"):
        if path.is_file():
            assert needle not in path.read_bytes()


@pytest.fixture
def group() -> str:
    """Some group that is not ours."""
    return next(entry.gr_name for entry in grp.getgrall() if entry.gr_gid not in (0, os.getgid()))


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.needs_root
def test_a_groups_store(tmp_path: Path, source: Path, group: str, umask: int) -> None:
    gid = grp.getgrnam(group).gr_gid
    before = os.umask(umask)
    try:
        depot, _ = ensure_depot(tmp_path / "store", group=group)
        store = Store(depot)
        store.ingest(source)
        seen: dict[str, os.stat_result] = {}
        snapshot = store.resolve(next(depot.iter_record_ids()))
        with snapshot.pinned("test"):
            for path in (depot.path, *depot.path.rglob("*")):
                seen[str(path.relative_to(depot.path))] = path.stat()
    finally:
        os.umask(before)
    assert {status.st_gid for status in seen.values()} == {gid}
    for name, status in seen.items():
        mode = status.st_mode & 0o7777
        if os.path.isdir(depot.path / name):
            assert mode == 0o2770, name
        elif name.endswith(".lease"):
            assert mode == 0o640, name
        elif name in ("gate", "store", "gc.lock", "catalog.lock", "catalog.db"):
            assert mode == 0o660, name
        else:
            assert mode == 0o444, name
    assert castfs.open(depot.path).depot.marker.group == group


def test_a_group_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no group"):
        ensure_depot(tmp_path / "store", group="no such group")
    assert not (tmp_path / "store").exists()


def test_the_store_above_a_file(store: Store, tmp_path: Path) -> None:
    found = find_depot_above(store.path / "manifests" / "ab" / "x.json")
    assert found is not None
    assert found.path == store.path
    assert find_depot_above(tmp_path / "x.json") is None


def test_records_are_listed_newest_first_and_may_vanish(
    depot: Depot, store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [store.ingest(source).id for _ in range(3)]
    assert sorted(ids) == ids
    assert [record.id for record in depot.iter_records()] == ids[::-1]
    iterator = depot.iter_records()
    assert next(iterator).id == ids[2]
    depot.record_path(ids[1]).unlink()
    assert [record.id for record in iterator] == [ids[0]]


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b'{"id": "\xff"}', b"[" * 5000])
def test_a_record_that_is_none_is_named(depot: Depot, raw: bytes) -> None:
    depot.record_path("0123").write_bytes(raw)
    with pytest.raises(DamageError, match="0123"):
        list(depot.iter_records())


def test_a_manifest_that_is_not_there(depot: Depot) -> None:
    from castfs.digest import parse_digest

    with pytest.raises(DamageError, match="cannot be read"):
        depot.read_manifest(parse_digest("ab" * 32))


def test_a_blob_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="blob directory"):
        BlobDir(tmp_path / "missing")


def test_blobs_are_listed_with_what_they_are(store: Store, source: Path) -> None:
    store.ingest(source)
    blobs = store.depot.blobs
    (blobs.path / "probe-w-0123").write_bytes(b"")
    (blobs.path / "ab").mkdir(exist_ok=True)
    (blobs.path / "ab" / "not a blob").write_bytes(b"")
    found = {digest: status.st_size for digest, status in blobs.iter_blobs()}
    files = subprocess.run(
        ["sha256sum", *(path for path in source.rglob("*") if path.is_file())],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    assert set(found) == {line.split()[0] for line in files.splitlines()}
    assert sum(found.values()) == 100 + 100 + 500 + 1_500_000
