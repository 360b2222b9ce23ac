"""Running castfs: in this process, as a process of its own, on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from castfs.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
#: Far above what any of these takes.
TIMEOUT = 60


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)

    def checked(self, code: int = 0) -> Result:
        assert self.code == code, (self.code, self.out[-2000:], self.err[-2000:])
        return self


Run = Callable[..., Result]


@pytest.fixture
def castfs(capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """`castfs(*args)` runs a command in this process."""

    def run(*args: str | Path, code: int = 0) -> Result:
        capsysbinary.readouterr()
        actual = main([str(arg) for arg in args])
        captured = capsysbinary.readouterr()
        return Result(actual, captured.out, captured.err.decode()).checked(code)

    return run


def command(*args: str | bytes | Path) -> list[str | bytes | Path]:
    return [sys.executable, "-W", "error", "-m", "castfs", *args]


def command_to_signal(*args: str | bytes | Path) -> list[str | bytes | Path]:
    """A signal may come after a file was opened and before anybody has taken note of it: Python
    warns developers of that, and closes it."""
    return [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "castfs", *args]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}


@pytest.fixture
def program(tmp_path: Path) -> Run:
    """`program(*args)` runs castfs as a process of its own, in `tmp_path`."""

    def run(*args: str | bytes | Path, code: int = 0, **variables: str) -> Result:
        done = subprocess.run(
            command(*args),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            cwd=tmp_path,
            env=environment(**variables),
        )
        return Result(done.returncode, done.stdout, done.stderr.decode()).checked(code)

    return run


def run_on_terminal(argv: Sequence[str | bytes | Path], *, cwd: Path) -> tuple[int, str]:
    """Run a process whose three streams are a terminal. Returns its exit code and all it printed,
    without colours."""
    parent, child = pty.openpty()
    try:
        process = subprocess.Popen(
            argv,
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=cwd,
            env=environment(TERM="xterm", COLUMNS="200"),
        )
    finally:
        os.close(child)
    printed = b""
    with open(parent, "rb", buffering=0) as stream:
        try:
            while data := stream.read(65536):
                printed += data
        except OSError:  # EIO: the last process that had the terminal is gone
            pass
    code = process.wait(TIMEOUT)
    text = printed.decode(errors="surrogateescape").replace("\r\n", "\n")
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


#: What a name can be at worst: not UTF-8, with a line break, an escape sequence, a leading dash.
HOSTILE_NAMES = (b"-rf", b"a\nb", b"\x1b[31mred", b"caf\xe9", "␛".encode(), b" ")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small directory: files, an executable, a directory, a symlink."""
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_text("alpha\n")
    (root / "sub" / "b.txt").write_text("beta\n")
    (root / "sub" / "deep" / "c.py").write_text("print('c')\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("sub/b.txt")
    return root


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory whose files have the worst names; each holds its own name."""
    root = tmp_path / "hostile"
    root.mkdir()
    for name in HOSTILE_NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(name)
    return root


@pytest.fixture
def store(isolated_environment: Path) -> Path:
    """Where the default store is, or will be."""
    return isolated_environment / "store"


@pytest.fixture
def taken(castfs: Run, tree: Path) -> str:
    """The id of a snapshot of `tree`."""
    return castfs("ingest", "-q", tree).text.strip()


def one_line(text: str) -> str:
    """`text` as the one line that it must be."""
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    line = text.removesuffix("\n")
    assert line.isprintable(), line
    return line
