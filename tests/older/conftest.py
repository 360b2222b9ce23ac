"""The real packages, each in an environment of its own, and what they made."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ASSETS_VERSIONS = ("0.7.2", "0.6.0")
ARTIFACTS_VERSION = "0.5.3"
#: What importing their parts that are used needs; the rest of their dependencies is a server.
NEEDED = ["filelock>=3.12"]
#: Seconds. An installation takes about ten, most of them for `venv`.
PATIENCE = 300

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Package:
    """One release of theirs, in an environment of its own."""

    version: str
    python: Path

    def run(self, script: str, *args: str | Path, cwd: Path) -> Any:
        """Run one of the scripts here; what it prints is JSON."""
        home = cwd / "home"
        home.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "HOME": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RUNICORN_DISABLE_MODERN_STORAGE": "1",
        }
        result = subprocess.run(
            [self.python, SCRIPTS / script, *args],
            cwd=cwd,
            env=environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return json.loads(result.stdout)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory of all workers: their base directories lie beside each other."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def package(shared: Path) -> Callable[[str], Package]:
    """Installs a release, once for all tests."""

    def install_once(version: str) -> Package:
        environment = shared / f"older-runicorn-{version}"
        with locked(environment):
            if not (environment / "ready").exists():
                install(environment, version)
                (environment / "ready").touch()
        return Package(version, environment / "bin" / "python")

    return install_once


def install(environment: Path, version: str) -> None:
    run(sys.executable, "-m", "venv", "--clear", environment)
    run(
        environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir",
        "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check",
        f"runicorn=={version}", *NEEDED,
    )  # fmt: skip


def run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr).decode(errors="replace")


@dataclass(frozen=True)
class Made:
    """An archive that a package made: a copy of its storage root, what the script said of it, who,
    and where it was made: that path is in its documents."""

    root: Path
    said: Any
    package: Package
    origin: Path


Maker = Callable[[str, str, Path], Made]


@pytest.fixture(scope="session")
def make(package: Callable[[str], Package], shared: Path) -> Maker:
    """(release, script, directory): a copy in the directory of what the release made by the script.
    It is made once for all tests, somewhere else."""

    def make_copy(version: str, script: str, directory: Path) -> Made:
        maker = package(version)
        template = shared / f"older-{script}-{version}"
        with locked(template):
            said = template / "said.json"
            if not said.exists():
                template.mkdir()
                found = maker.run(script, template / "storage", cwd=template)
                said.write_text(json.dumps(found))
        # With hard links as they are, which a copy by Python would not keep.
        run("cp", "-a", template / "storage", directory)
        return Made(directory / "storage", json.loads(said.read_text()), maker, template)

    return make_copy


@pytest.fixture(params=ASSETS_VERSIONS)
def assets(request: pytest.FixtureRequest, tmp_path: Path, make: Maker) -> Made:
    return make(request.param, "make_assets.py", tmp_path)


@pytest.fixture
def newest_assets(tmp_path: Path, make: Maker) -> Made:
    return make(ASSETS_VERSIONS[0], "make_assets.py", tmp_path)


@pytest.fixture
def artifacts(tmp_path: Path, make: Maker) -> Made:
    return make(ARTIFACTS_VERSION, "make_artifacts.py", tmp_path)


@pytest.fixture
def unchanged() -> Iterator[Callable[[Path], None]]:
    """Call it with a directory: at the end of the test everything in it must be as it was."""
    before: list[tuple[Path, bytes]] = []

    def watch(root: Path) -> None:
        before.append((root, describe(root)))

    yield watch
    for root, text in before:
        assert describe(root) == text


def describe(root: Path) -> bytes:
    """Everything that find(1) and sha256sum(1) can say of a tree."""
    listing = subprocess.run(
        ["find", root, "-printf", r"%P %y %m %n %U %G %s %T@ %C@ %l\0"],
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    sums = subprocess.run(
        ["find", root, "-type", "f", "-exec", "sha256sum", "{}", "+"],
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    parts = sorted(listing.split(b"\0")), sorted(sums.splitlines())
    return b"\n".join(parts[0] + parts[1])
