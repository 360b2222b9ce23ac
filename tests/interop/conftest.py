"""Runicorn's own package, in an environment of its own, called through a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: The newest release. Its archive is that of 0.6.0, the only other one that was published.
VERSION = "0.7.2"
#: What importing its archive and restore modules needs; the rest of its dependencies is a server.
NEEDED = ["filelock>=3.12"]
#: Seconds. An installation takes about ten, most of them for `venv`.
PATIENCE = 300

CALL = """
import importlib, json, sys
from pathlib import Path
module, function, args, kwargs = json.load(sys.stdin)
def unwrap(value):
    return Path(value["path"]) if isinstance(value, dict) else value
result = getattr(importlib.import_module(module), function)(
    *map(unwrap, args), **{key: unwrap(value) for key, value in kwargs.items()}
)
json.dump(result, sys.stdout, default=str)
"""


@dataclass(frozen=True)
class Runicorn:
    """Calls its functions and gives what they return, paths as text."""

    python: Path

    def __call__(self, function: str, *args: object, **kwargs: object) -> Any:
        def wrap(value: object) -> object:
            return {"path": os.fspath(value)} if isinstance(value, Path) else value

        module, _, name = function.rpartition(".")
        request = [module, name, [*map(wrap, args)], {k: wrap(v) for k, v in kwargs.items()}]
        result = subprocess.run(
            [self.python, "-c", CALL],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return json.loads(result.stdout)

    def archive_dir(self, source: Path, archive: Path) -> Path:
        """Put a directory into an archive; the manifest's path."""
        result = self("runicorn.assets.archive.archive_dir", source, archive, category="datasets")
        return Path(result["manifest_path"])


@pytest.fixture(scope="session")
def runicorn(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Runicorn:
    """Installed once for all workers: their base directories lie beside each other."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    environment = shared / "runicorn"
    with open(shared / "runicorn.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (environment / "ready").exists():
            install(environment)
            (environment / "ready").touch()
    return Runicorn(environment / "bin" / "python")


def install(environment: Path) -> None:
    run(sys.executable, "-m", "venv", "--clear", environment)
    run(
        environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir",
        "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check",
        f"runicorn=={VERSION}", *NEEDED,
    )  # fmt: skip


def run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr).decode(errors="replace")
