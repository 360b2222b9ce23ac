"""Two members of a group that share a store, each a process of a user of its own. For root."""

from __future__ import annotations

import grp
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.gc.as_nobody import let_nobody_pass
from tests.store.processes import python_environment

#: nobody, and a user without a name. Either sees what the other may not.
FIRST, SECOND = (65534, 0o022), (65533, 0o077)

#: All modules are loaded before root becomes a user, who may not read the interpreter's.
LOAD = """
import importlib, io, json, os, pkgutil, sys
store, gid = sys.argv[1], int(sys.argv[2])
import castfs
for module in pkgutil.walk_packages(castfs.__path__, "castfs."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
def become(uid, umask):
    os.setgroups([gid]); os.setgid(uid); os.setuid(uid); os.umask(umask)
"""
#: Takes lines of JSON, the arguments of a command, and says what came of it: exit code, stdout,
#: stderr.
_TALK = """
def command(*words):
    out, err = (io.TextIOWrapper(io.BytesIO()) for _ in range(2))
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        code = castfs.cli.main([words[0], "--store", store, *words[1:]])
        out.flush(); err.flush()
    finally:
        sys.stdout, sys.stderr = streams
    return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()
command("list")
become(int(sys.argv[3]), int(sys.argv[4]))
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(command(*json.loads(line))), flush=True)
"""


def group() -> grp.struct_group:
    """Any but root's own."""
    return next(each for each in grp.getgrall() if each.gr_gid not in (0, FIRST[0], SECOND[0]))


class Member:
    def __init__(self, process: subprocess.Popen[str], store: Path) -> None:
        self.process = process
        self._store = store

    def ask(self, *words: str | Path) -> None:
        """Without waiting for the answer."""
        assert self.process.stdin is not None
        let_nobody_pass(self._store)
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> tuple[int, str, str]:
        assert self.process.stdout is not None
        code, out, err = json.loads(self.process.stdout.readline())
        return code, out, err

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        """What the command prints."""
        self.ask(*words)
        actual, out, err = self.answer()
        assert actual == code, err
        return out or err

    def json(self, *words: str | Path) -> Any:
        return json.loads(self(*words, "--json"))


@contextmanager
def member(store: Path, who: tuple[int, int]) -> Iterator[Member]:
    let_nobody_pass(store)
    uid, umask = who
    process = subprocess.Popen(
        [
            sys.executable, "-P", "-c", LOAD + _TALK,
            store, str(group().gr_gid), str(uid), str(umask),
        ],
        env=python_environment(CASTFS_THREADS="1", XDG_CACHE_HOME="/proc/none"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Member(process, store)
        finally:
            process.kill()
