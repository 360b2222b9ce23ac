"""Words for snapshots: a file, a name or a prefix of an id, and never two of them at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from castfs.errors import AmbiguousError, DamageError, NotFoundError
from castfs.repository.removing import find_for_good
from tests.naming.records import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


def assert_refused(shelf: Shelf, word: str) -> NotFoundError:
    with pytest.raises(NotFoundError) as caught:
        shelf.store.resolve(word)
    assert not isinstance(caught.value, AmbiguousError)
    assert caught.value.exit_code == 4
    assert str(caught.value).isprintable()
    return caught.value


def assert_ambiguous(shelf: Shelf, word: str, *listed: str) -> AmbiguousError:
    with pytest.raises(AmbiguousError) as caught:
        shelf.store.resolve(word)
    error = caught.value
    assert error.exit_code == 4
    assert str(error).isprintable()
    assert len(error.candidates) == len(listed)
    for candidate, expected in zip(error.candidates, listed, strict=True):
        assert expected in candidate
        assert expected in str(error)
    return error


# Prefixes of ids ----------------------------------------------------------------------------


def test_prefix_of_a_record(shelf: Shelf) -> None:
    shelf.put(1, "0123456789ab")
    shelf.put(2, "0123456fffff")
    for word in ("01234567", "0123456789", "0123456789ab".ljust(24, "0")):
        assert shelf.meaning(word) == (1, "0123456789ab")
    assert shelf.meaning("0123456f") == (2, "0123456fffff")


def test_seven_digits_are_enough(shelf: Shelf) -> None:
    shelf.put(1, "0123456789ab")
    assert shelf.meaning("0123456") == (1, "0123456789ab")


@pytest.mark.parametrize("word", ["012345", "0", "0123"])
def test_six_digits_are_not(shelf: Shelf, word: str) -> None:
    shelf.put(1, "0123456789ab")
    assert "7 digits" in str(assert_refused(shelf, word))


def test_prefix_of_a_manifest(shelf: Shelf) -> None:
    manifest = shelf.put(1, "0123456789ab")
    for digits in (7, 12, 63, 64):
        assert shelf.meaning(manifest.id[:digits]) == (1, "0123456789ab")
    assert_refused(shelf, manifest.id[:6])


def test_more_digits_than_an_id_has(shelf: Shelf) -> None:
    manifest = shelf.put(1, "0123456789ab")
    assert_refused(shelf, manifest.id + "0")
    assert_refused(shelf, "0123456789ab".ljust(25, "0"))


def test_digits_in_upper_case_are_no_id(shelf: Shelf) -> None:
    shelf.put(1, "abcdef0123")
    assert_refused(shelf, "ABCDEF0")


def test_the_middle_of_an_id_is_no_prefix(shelf: Shelf) -> None:
    manifest = shelf.put(1, "abcdef0123456789")
    assert_refused(shelf, "bcdef012")
    assert_refused(shelf, manifest.id[1:20])


def test_ambiguous_prefix_lists_both(shelf: Shelf) -> None:
    shelf.put(1, "aaaaaaa1")
    shelf.put(2, "aaaaaaa2")
    error = assert_ambiguous(shelf, "aaaaaaa", "aaaaaaa2", "aaaaaaa1")
    assert "2 snapshots" in str(error)
    assert shelf.meaning("aaaaaaa1") == (1, "aaaaaaa1")


def test_prefix_of_a_record_and_of_another_manifest(shelf: Shelf) -> None:
    manifest = shelf.put(1, "0123456789ab")
    shelf.put(2, manifest.id[:9])
    assert_ambiguous(shelf, manifest.id[:8], manifest.id[:9], "0123456789ab")
    assert shelf.meaning(manifest.id[:24]) == (1, "0123456789ab")


def test_prefix_of_a_record_and_of_its_own_manifest(shelf: Shelf) -> None:
    manifest_id = shelf.manifest(1).id
    shelf.put(1, manifest_id[:9])
    assert shelf.meaning(manifest_id[:8]) == (1, manifest_id[:9].rstrip("0"))


def test_manifest_without_a_record(shelf: Shelf) -> None:
    manifest = shelf.put(1, None)
    assert shelf.meaning(manifest.id[:7]) == (1, None)
    assert_refused(shelf, manifest.id[:6])


def test_prefix_of_a_record_and_of_a_manifest_without_one(shelf: Shelf) -> None:
    manifest = shelf.put(1, None)
    shelf.put(2, manifest.id[:8])
    assert_ambiguous(shelf, manifest.id[:7], manifest.id[:8].ljust(24, "0"), manifest.id)


def test_many_candidates_are_counted(shelf: Shelf) -> None:
    for number in range(15):
        shelf.put(number, f"aaaaaaa{number:x}")
    with pytest.raises(AmbiguousError) as caught:
        shelf.store.resolve("aaaaaaa")
    assert len(caught.value.candidates) == 15
    assert "15 snapshots" in str(caught.value)
    assert "5 more" in str(caught.value)


# Several records of one tree ----------------------------------------------------------------


def test_records_of_one_tree_are_the_same_to_a_reader(shelf: Shelf) -> None:
    manifest = shelf.put(1, "aaaaaaa1")
    shelf.put(1, "aaaaaaa2")
    assert shelf.meaning(manifest.id[:7]) == (1, "aaaaaaa2")
    assert shelf.meaning("aaaaaaa") == (1, "aaaaaaa2")
    assert shelf.meaning("aaaaaaa1") == (1, "aaaaaaa1")


def test_records_of_one_tree_are_not_the_same_to_a_writer(shelf: Shelf) -> None:
    manifest = shelf.put(1, "aaaaaaa1")
    shelf.put(1, "aaaaaaa2")
    for word in (manifest.id[:7], "aaaaaaa"):
        with pytest.raises(AmbiguousError) as caught:
            find_for_good(shelf.store.depot, [word])
        assert [c[:8] for c in caught.value.candidates] == ["aaaaaaa2", "aaaaaaa1"]
    [found] = find_for_good(shelf.store.depot, ["aaaaaaa1"])
    assert found.id.startswith("aaaaaaa1")


def test_writer_needs_a_record(shelf: Shelf) -> None:
    manifest = shelf.put(1, None)
    for word in (manifest.id, "nothing"):
        with pytest.raises(NotFoundError):
            find_for_good(shelf.store.depot, [word])


# Names --------------------------------------------------------------------------------------


def test_name_is_its_latest_snapshot(shelf: Shelf) -> None:
    shelf.put(1, "000000000001", name="run")
    shelf.put(2, "000000000002", name="run")
    shelf.put(3, "000000000003", name="runner")
    assert shelf.meaning("run") == (2, "000000000002")
    assert shelf.meaning("run:latest") == (2, "000000000002")
    # Who removes must say which.
    with pytest.raises(AmbiguousError) as caught:
        find_for_good(shelf.store.depot, ["run"])
    assert [c[:12] for c in caught.value.candidates] == ["000000000002", "000000000001"]
    [found] = find_for_good(shelf.store.depot, ["run:latest"])
    assert found.id.startswith("000000000002")


def test_no_part_of_a_name(shelf: Shelf) -> None:
    shelf.put(1, "000000000001", name="running")
    for word in ("run", "runnin", "RUNNING", "running ", "", "run*"):
        assert_refused(shelf, word)


@pytest.mark.parametrize("word", ["run:", "run:v9", "run:lates", "run:LATEST", "run:latest:latest"])
def test_unknown_selector(shelf: Shelf, word: str) -> None:
    shelf.put(1, "000000000001", name="run", version=1)
    assert_refused(shelf, word)


def test_version_of_a_name(shelf: Shelf) -> None:
    shelf.put(1, "000000000001", name="run", version=1)
    shelf.put(2, "000000000002", name="run", version=2)
    shelf.put(3, "000000000003", name="other", version=1)
    assert shelf.meaning("run:v1") == (1, "000000000001")
    assert shelf.meaning("run:v2") == (2, "000000000002")
    assert_refused(shelf, "run:v3")
    assert_refused(shelf, "run:1")


def test_snapshot_without_a_name_has_none(shelf: Shelf) -> None:
    shelf.put(1, "000000000001")
    for word in ("None", ":latest", "@0000000", "None:latest"):
        assert_refused(shelf, word)


def test_name_at_a_prefix(shelf: Shelf) -> None:
    first = shelf.put(1, "000000000001", name="run")
    second = shelf.put(2, "000000000002", name="run")
    other = shelf.put(3, "000000000003", name="other")
    assert shelf.meaning(f"run@{first.id[:7]}") == (1, "000000000001")
    assert shelf.meaning(f"run@{second.id}") == (2, "000000000002")
    assert shelf.meaning("run@000000000001") == (1, "000000000001")
    assert_refused(shelf, f"run@{other.id[:7]}")
    assert_refused(shelf, "other@000000000001")


def test_name_narrows_a_short_prefix(shelf: Shelf) -> None:
    shelf.put(1, "a1", name="run")
    shelf.put(2, "a2", name="other")
    assert shelf.meaning("run@a1") == (1, "a1")


def test_ambiguous_prefix_of_a_name(shelf: Shelf) -> None:
    shelf.put(1, "aaaaaaa1", name="run")
    shelf.put(2, "aaaaaaa2", name="run")
    shelf.put(3, "aaaaaaa3", name="other")
    assert_ambiguous(shelf, "run@aaaaaaa", "aaaaaaa2", "aaaaaaa1")


@pytest.mark.parametrize("word", ["run@", "run@xyz", "run@latest", "run@@", "run@0:latest"])
def test_bad_prefix_of_a_name(shelf: Shelf, word: str) -> None:
    shelf.put(1, "000000000001", name="run")
    assert_refused(shelf, word)


def test_name_that_looks_like_an_id(shelf: Shelf) -> None:
    shelf.put(1, "000000000001", name="deadbeef")
    shelf.put(2, "000000000002", name="deadbeef")
    assert shelf.meaning("deadbeef") == (2, "000000000002")
    with pytest.raises(AmbiguousError):
        find_for_good(shelf.store.depot, ["deadbeef"])
    assert_refused(shelf, "deadbee")


def test_name_and_prefix_at_once_list_both(shelf: Shelf) -> None:
    shelf.put(1, "000000000001", name="deadbeef")
    shelf.put(2, "deadbeef0001")
    assert_ambiguous(shelf, "deadbeef", "deadbeef0001", "000000000001")
    with pytest.raises(AmbiguousError):
        find_for_good(shelf.store.depot, ["deadbeef"])
    # Both can still be said.
    assert shelf.meaning("deadbeef:latest") == (1, "000000000001")
    assert shelf.meaning("deadbeef0") == (2, "deadbeef0001")


def test_hostile_text_in_a_record(shelf: Shelf) -> None:
    shelf.put(1, "aaaaaaa1", source="/a\nb\x1b[31m")
    shelf.put(2, "aaaaaaa2", source="x" * 100_000)
    error = assert_ambiguous(shelf, "aaaaaaa", "aaaaaaa2", "aaaaaaa1")
    assert len(str(error)) < 2000
    assert "\\n" in str(error)


@pytest.mark.parametrize("word", ["a\nb", "\x1b[31m", "\udcff", "w" * 100_000, " "])
def test_hostile_word(shelf: Shelf, word: str) -> None:
    assert len(str(assert_refused(shelf, word))) < 2000


def test_missing_says_where_to_look(shelf: Shelf) -> None:
    error = assert_refused(shelf, "nothing")
    assert "nothing" in str(error)
    assert str(shelf.store.path) in str(error)
    assert "castfs list" in str(error)


def test_missing_is_exit_code_4(shelf: Shelf) -> None:
    shelf.put(1, "aaaaaaa1")
    shelf.put(2, "aaaaaaa2")
    for word, said in (("nothing", b"no snapshot nothing"), ("aaaaaaa", b"can mean 2 snapshots")):
        result = subprocess.run(
            [sys.executable, "-m", "castfs", "ls", "--store", shelf.store.path, word],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 4
        assert result.stdout == b""
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_manifest_that_a_record_names_but_is_gone(shelf: Shelf) -> None:
    manifest = shelf.put(1, "aaaaaaa1")
    shelf.store.depot.manifest_path(manifest.id).unlink()
    with pytest.raises(DamageError, match=manifest.id):
        shelf.store.resolve("aaaaaaa1")


def test_manifest_that_is_not_what_its_name_says(shelf: Shelf) -> None:
    first, second = shelf.put(1, "aaaaaaa1"), shelf.put(2, "aaaaaaa2")
    depot = shelf.store.depot
    depot.manifest_path(first.id).unlink()
    depot.manifest_path(second.id).rename(depot.manifest_path(first.id))
    with pytest.raises(DamageError, match=first.id):
        shelf.store.resolve("aaaaaaa1")


def test_a_damaged_record_hides_no_id(shelf: Shelf) -> None:
    """But a name could mean it, so no name is certain any more."""
    shelf.put(1, "aaaaaaa1", name="run")
    hidden = shelf.put(2, "aaaaaaa2", name="run")
    path = shelf.store.depot.record_path("aaaaaaa2".ljust(24, "0"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9])
    assert shelf.meaning("aaaaaaa1") == (1, "aaaaaaa1")
    assert shelf.meaning(shelf.manifest(1).id[:12]) == (1, "aaaaaaa1")
    assert shelf.meaning(hidden.id[:12]) == (2, None)
    for word in ("aaaaaaa2", "run", "run:latest", "run@aaaaaaa1", "nothing"):
        with pytest.raises(DamageError, match="aaaaaaa2"):
            shelf.store.resolve(word)
