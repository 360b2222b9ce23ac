"""Reader processes: the same results as without them, and no trace when something goes wrong."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import castfs
from castfs.errors import StoreError
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions, readers
from castfs.ingest.readers import Readers
from castfs.progress import Progress
from castfs.repository import Store
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, Take
from tests.store.checking import assert_idle, check_store, read_records


def children() -> set[int]:
    """Processes that this one has not waited for, zombies too."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def descriptors() -> dict[str, str]:
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[path.name] = os.readlink(path)
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


@pytest.fixture
def no_trace(store: Store) -> Iterator[None]:
    """Afterwards there are no more processes and descriptors than before."""
    assert store.depot.blobs.dir_fd >= 0
    gc.collect()  # tracebacks of earlier tests hold stores with their descriptors
    before = children(), descriptors()
    yield
    gc.collect()
    assert children() <= before[0]
    assert descriptors().items() <= before[1].items()


@pytest.fixture
def tree(source: Path) -> Path:
    """Some hundred files, more than one directory's job holds, and two large ones."""
    numbers = random.Random(7)
    (source / "sub" / "deep").mkdir(parents=True)
    for number in range(150):
        (source / f"{number}").write_bytes(numbers.randbytes(numbers.randrange(3000)))
    for number in range(5):
        (source / "sub" / "deep" / f"{number}").write_bytes(b"same")
        (source / "sub" / "deep" / f"zeros {number}").write_bytes(bytes((1 << 20) + number))
    (source / "sub" / "link").symlink_to("deep")
    os.link(source / "0", source / "sub" / "zero")
    os.setxattr(source / "sub" / "deep" / "1", b"user.\xff", b"value")
    return source


def test_the_same_as_alone(
    tree: Path, tmp_path: Path, take: Take, with_readers: None, no_trace: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    snapshot = take(xattrs=True, owner=True)
    assert describe_tree(snapshot.manifest.tree) == describe_directory(tree)
    for path in snapshot.manifest.tree.files:
        with snapshot.open(path) as file:
            assert file.read() == (tree / os.fsdecode(path)).read_bytes()
    monkeypatch.setenv("CASTFS_THREADS", "1")
    other = castfs.open(tmp_path / "other", create=True)
    alone = other.ingest(tree, options=ScanOptions(xattrs=True, owner=True))
    assert alone.manifest_id == snapshot.manifest.id


def test_readers_are_started(tree: Path, ingest: Ingest, with_readers: None) -> None:
    """That the tests here test what they say."""
    started: list[int] = []
    original = Readers._start

    def start(self: Readers) -> None:
        original(self)
        started.extend(reader.process.pid for reader in self._readers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Readers, "_start", start)
        result = ingest()
    assert len(started) == 2
    assert not children() & set(started)
    assert result.file_count == 161


def test_counts_are_the_same(tree: Path, store: Store, ingest: Ingest, with_readers: None) -> None:
    first = ingest()
    assert (first.added_count, first.deduplicated_count) == (156, 5)
    assert len(list(store.path.glob("blobs/??/*"))) == 156
    second = ingest()
    assert (second.added_count, second.added_bytes) == (0, 0)
    assert second.deduplicated_count == 161
    check_store(store.path)


def test_no_reader_for_a_small_tree(
    source: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "file").write_bytes(b"x")
    monkeypatch.setenv("CASTFS_THREADS", "2")
    monkeypatch.setattr(Readers, "_start", lambda self: pytest.fail("a reader was started"))
    ingest()


def after_start(monkeypatch: pytest.MonkeyPatch, act: Callable[[Readers], object]) -> None:
    original = Readers._start

    def start(self: Readers) -> None:
        original(self)
        act(self)

    monkeypatch.setattr(Readers, "_start", start)


def assert_untouched(store: Store) -> None:
    assert read_records(store.path) == []
    assert list(store.path.glob("blobs/??/*")) == []
    assert_idle(store.path)


@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
def test_a_killed_reader_ends_the_ingest(
    tree: Path, store: Store, ingest: Ingest, with_readers: None, no_trace: None,
    monkeypatch: pytest.MonkeyPatch, which: list[int],
) -> None:  # fmt: skip
    def kill(pool: Readers) -> None:
        for index in which:
            os.kill(pool._readers[index].process.pid, signal.SIGKILL)

    after_start(monkeypatch, kill)
    with pytest.raises(StoreError, match=r"a reader process ended with status -9"):
        ingest()
    assert_untouched(store)
    monkeypatch.undo()
    assert ingest().file_count == 161


def test_a_reader_that_is_killed_late(
    tree: Path, store: Store, ingest: Ingest, with_readers: None, no_trace: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its jobs are under way."""
    original = Readers.submit
    count = 0

    def submit(self: Readers, *args: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(self._readers[0].process.pid, signal.SIGKILL)
        original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Readers, "submit", submit)
    with pytest.raises(StoreError, match="a reader process ended"):
        ingest()
    assert_untouched(store)


def test_a_reader_that_cannot_be_started(
    tree: Path, store: Store, ingest: Ingest, with_readers: None, no_trace: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("castfs.ingest.readers.sys.executable", "/nonexistent/python")
    with pytest.raises((StoreError, OSError)):
        ingest()
    assert_untouched(store)


@pytest.mark.needs_root
def test_a_full_disk_in_a_reader(
    tree: Path, small_disk: Path, with_readers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every job after the failing one is another reason to stop, none to go on."""
    monkeypatch.setattr("castfs.ingest.intake._JOB_FILES", 1)
    monkeypatch.setattr(readers, "_QUEUE", 1)
    for number in range(40):
        (tree / f"big {number}").write_bytes(os.urandom(200_000))
    store = castfs.open(small_disk / "store", create=True)
    before = children()
    with pytest.raises(StoreError, match="No space left"):
        store.ingest(tree)
    assert children() == before
    assert_untouched(store)


class Interrupted(Progress):
    def advance(self, count: int, size: int = 0) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(
    tree: Path, store: Store, with_readers: None, no_trace: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.ingest(tree, progress=Interrupted())
    assert_untouched(store)


def test_readers_do_not_mind_ctrl_c(
    tree: Path, ingest: Ingest, with_readers: None, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It reaches the whole group; what it means is decided by the ingest."""

    def interrupt(self: Readers, *args: object, original: object = Readers.submit) -> None:
        for reader in self._readers:
            if reader.tickets:
                self._receive(None)  # it is up
                break
        for reader in self._readers:
            if self._done:
                os.kill(reader.process.pid, signal.SIGINT)
        original(self, *args)  # type: ignore[operator]

    monkeypatch.setattr(Readers, "submit", interrupt)
    monkeypatch.setattr(readers, "_QUEUE", 1)
    assert ingest().file_count == 161
    assert capfd.readouterr().err == ""


def test_nothing_is_imported_from_the_callers_directory(
    tree: Path, tmp_path: Path, ingest: Ingest, with_readers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one that is ingested, and somebody else's."""
    marker = tmp_path / "was imported"
    for name in ("msgspec", "castfs", "hashlib", "signal", "fcntl"):
        (tree / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.chdir(tree)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    assert ingest().file_count == 166
    assert not marker.exists()


@pytest.mark.parametrize("name", [".castignore", ".rnignore", ".gitignore", ".git"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink", "loop"])
def test_odd_rule_files_cost_no_descriptor(
    source: Path, ingest: Ingest, no_trace: None, name: str, kind: str
) -> None:
    (source / "kept").write_bytes(b"x")
    for number in range(3):
        place = source / f"{number}" / name
        place.parent.mkdir()
        if kind == "directory":
            place.mkdir()
        elif kind == "fifo":
            os.mkfifo(place)
        elif kind == "symlink":
            place.symlink_to("/dev/zero")
        else:
            place.symlink_to(name)
    ingest(ignore=IgnoreOptions(gitignore=True))


def test_large_files_are_shared_between_readers(
    source: Path, ingest: Ingest, with_readers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        with (source / f"{number}").open("wb") as file:
            file.truncate(6_000_000 + number)
    jobs: list[int] = []
    original = Readers.submit

    def submit(self: Readers, ticket: int, dir_fd: int, names: list[bytes], size: int) -> None:
        jobs.append(len(names))
        original(self, ticket, dir_fd, names, size)

    monkeypatch.setattr(Readers, "submit", submit)
    ingest()
    assert jobs == [1, 1, 1, 1]
