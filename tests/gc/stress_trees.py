"""Directories that change all the time and share most of their contents, and how they must look."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Path in the tree → number of its content.
Files = Mapping[str, int]


@functools.cache
def content(number: int) -> bytes:
    """Most are small; one of a hundred is larger than a piece in which contents are read."""
    rng = random.Random(number)
    kind = rng.random()
    limit = 2_000 if kind < 0.7 else 30_000 if kind < 0.95 else 100_000
    return rng.randbytes(1_300_000 if kind > 0.99 else rng.randrange(limit))


@functools.cache
def digest(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


class Source:
    """A directory below which contents of a common pool come and go."""

    def __init__(self, path: Path, *, file_count: int, pool: int) -> None:
        self.path = path
        self.files: dict[str, int] = {}
        #: Ingests that are reading it: it may not change meanwhile.
        self.users = 0
        self._file_count = file_count
        self._pool = pool
        path.mkdir(parents=True)

    def change(self, seed: int) -> None:
        """A few files get other contents, appear or vanish."""
        rng = random.Random(seed)
        files = dict(self.files)
        for _ in range(rng.choice((1, 3, self._file_count // 3))):
            path = self._any_path(rng)
            if rng.random() < 0.2:
                files.pop(path, None)
            else:
                files[path] = self._any_content(rng)
        while len(files) < self._file_count:
            files[self._any_path(rng)] = self._any_content(rng)
        self.assign(files)

    def _any_content(self, rng: random.Random) -> int:
        """Half of them nearly all trees have; of the others most have one snapshot alone."""
        return rng.randrange(rng.choice((self._pool, self._pool // 10)))

    def _any_path(self, rng: random.Random) -> str:
        return f"d{rng.randrange(5)}/f{rng.randrange(self._file_count)}"

    def assign(self, files: Files) -> None:
        """Make it hold exactly these. Files that stay as they are are not touched."""
        for path in self.files.keys() - files.keys():
            (self.path / path).unlink()
        temp = self.path.with_name(f"{self.path.name}.new")
        for path, number in files.items():
            if self.files.get(path) != number:
                (self.path / path).parent.mkdir(exist_ok=True)
                temp.write_bytes(content(number))
                temp.rename(self.path / path)
        self.files = dict(files)


def find_differences(root: Path, files: Files) -> Iterator[str]:
    """How the tree at `root` differs from what it must be, every byte. OSError if it is unreadable.

    What was read is dropped from the page cache, so that it comes from the mount the next time.
    """

    def fail(exc: OSError) -> None:
        raise exc

    found = set()
    for where, _, names in os.walk(root, onerror=fail):
        found |= {os.path.relpath(os.path.join(where, name), root) for name in names}
    if files and not found:
        raise FileNotFoundError(errno.ENOENT, "nothing is there", str(root))
    for path in sorted(found ^ files.keys()):
        yield f"{path} is {'not ' if path in found else ''}to be there"
    for path in sorted(found & files.keys()):
        with (root / path).open("rb") as file:
            if file.read() != content(files[path]):
                yield f"{path} has other bytes"
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


#: What `compare` returns.
RIGHT, UNREADABLE, WRONG = 0, 3, 4


def compare(root: Path, files: Files, *, remove: bool = False) -> int:
    """As an exit code, with a line on stderr for what is not right."""
    try:
        differences = list(find_differences(root, files))
    except OSError as exc:
        os.write(2, f"{exc}\n".encode())
        return UNREADABLE
    os.write(2, "".join(f"{line}\n" for line in differences).encode())
    if remove:
        shutil.rmtree(root)
    return WRONG if differences else RIGHT
