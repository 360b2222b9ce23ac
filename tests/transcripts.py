"""Documents whose commands and programs are run, in order, and compared with what they show.

A block whose first line is ```` ```python NAME ```` (any language, with a file's name) is written
to that file. One of ```` ```sh ```` is a session: lines that begin with `$ ` are run (`> ` goes on
with one), all others are what they print. Each must end with 0, within a minute. All run in one
directory, `project` of a new home.

What differs each time stands for its kind: a time or a duration for any; an id, a digest or a run's
id for one and the same wherever it is shown or given; the home directory for `/home/me`, the user
for `me` and the machine for `laptop`. Any number of spaces is one, for widths differ. `…` stands
for any text of a line, and on a line of its own for any lines.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import fuse_mounts_below

SECONDS = 60
HOME = "/home/me"
ROOT = Path(__file__).parent.parent

#: What stands for one and the same thing: runs, snapshots and manifests, whole or shortened.
_IDENTITY = (
    r"\b\d{8}_\d{6}_[0-9a-f]{6}\b|\b(?=[a-f]*\d)(?:[0-9a-f]{64}|[0-9a-f]{24}|[0-9a-f]{12})\b"
)
_SHORT = 12
_TIME = r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?Z?"
_DURATION = r"\b\d+\.\d s\b"
_KINDS = {"identity": _IDENTITY, "time": _TIME, "duration": _DURATION, "any": "…", "spaces": " +"}
_TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))


@dataclass(frozen=True)
class Program:
    """A file that the document shows whole."""

    name: str
    text: str


@dataclass
class Command:
    text: str
    line: int
    shown: list[str] = field(default_factory=list)


def read_steps(document: str) -> Iterator[Program | Command]:
    """The programs and commands of a document, in their order."""
    info, begin, block = "", 0, []
    inside = False
    for number, line in enumerate(document.splitlines(), start=1):
        if not line.startswith("```"):
            block.append(line)
            continue
        if inside:
            yield from _read_block(info, begin, block)
        inside, info, begin, block = not inside, line[3:].strip(), number, []
    assert not inside, "a block without an end"


def _read_block(info: str, begin: int, block: list[str]) -> Iterator[Program | Command]:
    language, _, name = info.partition(" ")
    if name:
        yield Program(name, "\n".join(block) + "\n")
    elif language == "sh":
        yield from _read_commands(begin, block)


def _read_commands(begin: int, block: list[str]) -> Iterator[Command]:
    command: Command | None = None
    for number, line in enumerate(block, start=begin + 1):
        if line.startswith("$ "):
            if command is not None:
                yield command
            command = Command(line[2:], number)
        elif command is None:
            raise AssertionError(f"line {number}: a session begins with `$ `")
        elif line.startswith("> ") and not command.shown:
            command.text += "\n" + line[2:]
        else:
            command.shown.append(line)
    if command is not None:
        yield command


def _person(match: re.Match[str]) -> str:
    return "me@laptop" if match[1] else "laptop"


class Session:
    """A home with a project in it, where a document's steps are done."""

    def __init__(self, base: Path) -> None:
        self.home = base / "home"
        self.directory = self.home / "project"
        self.directory.mkdir(parents=True)
        #: What the document calls it → what it is called this time.
        self.names: dict[str, str] = {}
        self._programs = base / "bin"
        self._programs.mkdir()
        self._install("python", "")
        self._install("castfs", "-m castfs")

    def _install(self, name: str, arguments: str) -> None:
        path = self._programs / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("CASTFS_")}
        own.pop("XDG_DATA_HOME", None)
        return {
            **own,
            "HOME": str(self.home),
            "PATH": f"{self._programs}:{own['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",  # what goes to stderr comes in its turn
            "TZ": "UTC",
        }

    def run(self, command: Command) -> list[str]:
        """What it prints, with the names of the document for what is the document's own."""
        text = re.sub(_IDENTITY, lambda match: self._actual(match[0]), command.text)
        with subprocess.Popen(
            ["bash", "-c", text],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                printed = process.communicate(timeout=SECONDS)[0].decode()
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, f"line {command.line}: {text}\n{printed}"
        printed = printed.replace(str(self.home), HOME)
        host = re.escape(socket.gethostname())
        printed = re.sub(rf"\b(?:([\w.-]+)@)?{host}\b", _person, printed)
        return printed.splitlines()

    def _actual(self, shown: str) -> str:
        for known, actual in self.names.items():
            if known.startswith(shown):
                return actual[: len(shown)]
        return shown

    def do(self, step: Program | Command) -> None:
        if isinstance(step, Program):
            (self.directory / step.name).write_text(step.text)
            return
        printed = self.run(step)
        if not self._is_shown(step.shown, printed):
            shown = "\n".join(step.shown)
            raise AssertionError(
                f"line {step.line}: {step.text}\nshown:\n{shown}\ncame:\n" + "\n".join(printed)
            )

    def _is_shown(self, shown: list[str], printed: list[str]) -> bool:
        if not shown:
            return not printed
        if shown[0] == "…":
            rest = range(len(printed) + 1)
            return any(self._is_shown(shown[1:], printed[skip:]) for skip in rest)
        return (
            bool(printed)
            and self._is_line(shown[0], printed[0])
            and self._is_shown(shown[1:], printed[1:])
        )

    def _is_line(self, shown: str, printed: str) -> bool:
        """Does a line say what the document shows? If so, what stands for what is remembered."""
        identities: list[str] = []
        pattern, end = "", 0
        for token in _TOKEN.finditer(shown.rstrip()):
            pattern += re.escape(shown[end : token.start()])
            kind = token.lastgroup or ""
            if kind == "identity":
                identities.append(token[0])
                pattern += f"({_IDENTITY})"
            else:
                pattern += {"any": ".*", "spaces": " +"}.get(kind) or _KINDS[kind]
            end = token.end()
        pattern += re.escape(shown.rstrip()[end:])
        match = re.fullmatch(pattern, printed.rstrip())
        if match is None:
            return False
        pairs = dict(zip(identities, match.groups(), strict=True))
        for name, actual in pairs.items():
            if len(name) != len(actual) or not self._agrees(name, actual):
                return False
        self.names |= pairs
        return True

    def _agrees(self, name: str, actual: str) -> bool:
        """What begins alike is the same thing, shortened; others differ. Of shortened ones that is
        not asked: two snapshots of one millisecond have the same first twelve digits."""
        for known, was in self.names.items():
            if name.startswith(known) and not actual.startswith(was):
                return False
            if known.startswith(name) and not was.startswith(actual):
                return False
            if len(name) > _SHORT and known != name and was == actual:
                return False
        return True

    def clean_up(self) -> None:
        """Unmount what a step that failed has left."""
        for mountpoint in reversed(fuse_mounts_below(self.home)):
            subprocess.run(["umount", "-l", mountpoint], timeout=SECONDS, check=False)
