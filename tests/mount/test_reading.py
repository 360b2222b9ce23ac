"""Every way in which programs read files."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from castfs.manifest import Directory, File, Tree
from castfs.mount import unmount
from castfs.mount.unmounting import Unmounted
from castfs.paths import RelPath
from castfs.store import WriteSession, ensure_depot
from tests.mount.conftest import Mounter, run, wait_for_exit
from tests.mount.snapshots import publish
from tests.mount.trees import write

pytestmark = pytest.mark.mounted

RANDOM = random.Random(7)
CONTENT = RANDOM.randbytes(5_000_017)


@pytest.fixture
def big(mounter: Mounter) -> Path:
    """A mounted file whose content is CONTENT."""
    write(mounter.source / "big", CONTENT, mode=0o755)
    return mounter.mount() / "big"


def test_random_ranges(big: Path) -> None:
    fd = os.open(big, os.O_RDONLY)
    for _ in range(300):
        offset = RANDOM.randrange(len(CONTENT) + 10_000)
        count = RANDOM.choice([0, 1, 17, 4096, 70_000, 1_500_000])
        assert os.pread(fd, count, offset) == CONTENT[offset : offset + count]
    os.close(fd)


def test_mmap(big: Path) -> None:
    with big.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == CONTENT
        assert mapped[4_999_999:] == CONTENT[4_999_999:]


def test_shared_mapping_for_writing_is_refused(big: Path) -> None:
    with big.open("rb") as file, pytest.raises(PermissionError):
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.semantics("M30")
def test_direct_io(big: Path) -> None:
    fd = os.open(big, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 21)  # page-aligned
    received = b""
    while count := os.readv(fd, [buffer]):
        received += buffer[:count]
    buffer.close()
    os.close(fd)
    assert received == CONTENT


@pytest.mark.semantics("M30")
def test_sendfile_and_copy_file_range(big: Path, tmp_path: Path) -> None:
    with big.open("rb") as source, (tmp_path / "sent").open("wb") as target:
        while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
            pass
    assert (tmp_path / "sent").read_bytes() == CONTENT
    shutil.copyfile(big, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == CONTENT
    run("cp", "--reflink=auto", big, tmp_path / "cp")  # cp(1) calls copy_file_range
    assert (tmp_path / "cp").read_bytes() == CONTENT


@pytest.mark.semantics("M30", "M31")
def test_splice_and_seek(big: Path) -> None:
    read_end, write_end = os.pipe()
    fd = os.open(big, os.O_RDONLY)
    moved = os.splice(fd, write_end, 4096, offset_src=12_345)
    assert os.read(read_end, 4096) == CONTENT[12_345 : 12_345 + moved]
    assert os.lseek(fd, 0, os.SEEK_END) == len(CONTENT)
    assert os.lseek(fd, 100, os.SEEK_DATA) == 100
    assert os.lseek(fd, 100, os.SEEK_HOLE) == len(CONTENT)
    for number in (read_end, write_end, fd):
        os.close(number)


@pytest.mark.semantics("M32")
def test_beyond_four_gib(mounter: Mounter) -> None:
    size = 5 * 2**30
    digest = (
        "ab" * 32
    )  # of nothing: without `verify` nobody hashes it, which would take half a minute
    depot, _ = ensure_depot(mounter.store)
    with WriteSession(depot, purpose="test") as session:
        file = File(mode=0o644, mtime_ns=0, sha256=digest, size_bytes=size)
        tree = Tree(
            root=Directory(mode=0o755, mtime_ns=0),
            dirs={},
            files={RelPath(b"huge"): file},
            symlinks={},
        )
        snapshot = publish(session, tree)
    snapshot.blob(b"huge").parent.mkdir()
    marks = (0, 2**32 - 3, size - 6)
    with snapshot.blob(b"huge").open("wb") as blob:
        blob.truncate(size)
        for offset in marks:
            blob.seek(offset)
            blob.write(b"marked")
    mounter.start(snapshot)
    path = mounter.mountpoint / "huge"
    assert path.stat().st_size == size
    with path.open("rb") as content:
        for offset in marks:
            content.seek(offset)
            assert content.read(6) == b"marked"
        assert content.read(1) == b""
        content.seek(2**32 + 100)
        assert content.read(1 << 20) == bytes(1 << 20)


@pytest.mark.semantics("M12")
def test_executing_a_binary_and_a_script(mounter: Mounter) -> None:
    shutil.copy("/bin/echo", mounter.source / "echo")
    write(mounter.source / "script", b"#!/bin/sh\necho from $0\n", mode=0o755)
    write(mounter.source / "not-executable", b"#!/bin/sh\n", mode=0o644)
    mountpoint = mounter.mount()
    assert run(mountpoint / "echo", "hello") == "hello\n"
    assert run(mountpoint / "script") == f"from {mountpoint}/script\n"
    with pytest.raises(PermissionError):
        subprocess.run([mountpoint / "not-executable"], check=False)


def test_noexec(mounter: Mounter) -> None:
    shutil.copy("/bin/echo", mounter.source / "echo")
    mountpoint = mounter.mount("noexec")
    with pytest.raises(PermissionError):
        subprocess.run([mountpoint / "echo"], check=False)


@pytest.mark.semantics("M33")
def test_sqlite_opens_a_database(mounter: Mounter) -> None:
    path = mounter.source / "some.db"
    database = sqlite3.connect(path)
    with database:
        database.execute("create table t (n integer, s text)")
        database.executemany("insert into t values (?, ?)", ((n, "x" * n) for n in range(500)))
    database.close()
    mounted = mounter.mount() / "some.db"
    for uri in (f"file:{mounted}?mode=ro", f"file:{mounted}?immutable=1"):
        database = sqlite3.connect(uri, uri=True)
        assert database.execute("select sum(length(s)) from t").fetchone() == (124_750,)
        database.close()
    database = sqlite3.connect(mounted)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.execute("insert into t values (1, 'y')")
    database.close()


@pytest.mark.semantics("M33")
def test_git_status_in_a_mounted_clone(mounter: Mounter) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", mounter.source]
    run(*git, "init", "-q")
    write(mounter.source / "tracked", b"1\n")
    (mounter.source / "directory").mkdir()
    write(mounter.source / "directory" / "inner", b"2\n", mode=0o755)
    (mounter.source / "link").symlink_to("tracked")
    run(*git, "add", ".")
    run(*git, "commit", "-q", "-m", "first")
    write(mounter.source / "untracked")
    mountpoint = mounter.mount()
    inside = ["git", "-c", "safe.directory=*", "-C", mountpoint]
    assert run(*inside, "status", "--porcelain") == "?? untracked\n"
    assert run(*inside, "log", "--format=%s") == "first\n"
    assert run(*inside, "fsck", "--no-dangling") == ""


@pytest.mark.semantics("M33")
def test_python_runs_from_a_mounted_environment(mounter: Mounter) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", mounter.source / "venv")
    write(mounter.source / "module.py", b"import json; print(json.dumps([1]))\n")
    mountpoint = mounter.mount()
    interpreter = mountpoint / "venv" / "bin" / "python"
    assert run(interpreter, mountpoint / "module.py") == "[1]\n"
    prefix = run(interpreter, "-c", "import sys; print(sys.prefix)")
    assert prefix == f"{mountpoint}/venv\n"


def test_many_readers_at_once(mounter: Mounter) -> None:
    contents = [RANDOM.randbytes(RANDOM.randrange(1, 300_000)) for _ in range(64)]
    for number, content in enumerate(contents):
        write(mounter.source / str(number), content)
    snapshot = mounter.take()
    mounter.start(snapshot)
    for path in snapshot.manifest.tree.files:
        fd = os.open(snapshot.blob(path), os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # so that some reads wait for the disk
        os.close(fd)
    wrong: list[int] = []

    def read_all(seed: int) -> None:
        order = list(range(len(contents)))
        random.Random(seed).shuffle(order)
        for number in order:
            if (mounter.mountpoint / str(number)).read_bytes() != contents[number]:
                wrong.append(number)

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_a_thousand_files_open_at_once(mounter: Mounter) -> None:
    """More than the usual soft limit of descriptors, which the serving process has raised."""
    for number in range(1500):
        write(mounter.source / str(number), str(number).encode())
    mountpoint = mounter.mount()
    script = """if True:
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
        files = [open(f"{sys.argv[1]}/{n}", "rb") for n in range(1500)]
        print(all(file.read() == str(n).encode() for n, file in enumerate(files)))
    """
    command = ["prlimit", "--nofile=1024:4096", sys.executable, "-c", script, mountpoint]
    assert run(*command) == "True\n"


def test_open_files_stay_readable_after_a_lazy_unmount(big: Path, mounter: Mounter) -> None:
    with big.open("rb") as file:
        assert file.read(10) == CONTENT[:10]
        ended = unmount(mounter.mountpoint, lazy=True)
        assert ended.served
        assert ended.pid == mounter.pids[0]
        assert list(mounter.mountpoint.iterdir()) == []
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == CONTENT[10:]
    assert wait_for_exit(mounter.pids[0])


@pytest.mark.semantics("L19")
def test_a_lazy_unmount_of_an_idle_mount_ends_its_process(big: Path, mounter: Mounter) -> None:
    ended = unmount(mounter.mountpoint, lazy=True)
    assert isinstance(ended, Unmounted)
    assert wait_for_exit(mounter.pids[0])
