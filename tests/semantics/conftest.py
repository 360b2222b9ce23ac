"""A user's whole world, worked through `python -m castfs`: one for each module of these tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PRIVATE_DIRECTORIES, fuse_mounts_below
from tests.mount.conftest import wait_for_exit

REPOSITORY = Path(__file__).resolve().parents[2]
#: Far above what any of these takes, on a machine that others use, too.
PATIENCE = 60

Word = str | bytes | Path


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line of stderr."""
        [line] = self.err.splitlines()
        return line


class World:
    """A directory with a store, a user's directories, and mounts that end with it."""

    def __init__(self, base: Path, *, fast_lane: bool = True) -> None:
        self.base = base
        self.fast_lane = fast_lane
        self.store = base / "store"
        self.pids: dict[Path, int] = {}
        self._numbers = itertools.count(1)
        private = {variable: base / "user" / name for variable, name in PRIVATE_DIRECTORIES.items()}
        for path in private.values():
            path.mkdir(mode=0o700, parents=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
            **{variable: str(path) for variable, path in private.items()},
            "CASTFS_STORE": str(self.store),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONPATH": str(REPOSITORY),
        }

    def directory(self, name: str = "place") -> Path:
        """A new empty one."""
        path = self.base / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    def command(self, *words: Word) -> list[Word]:
        if words[0] == "mount" and not self.fast_lane:
            words = ("mount", "--no-fast-lane", *words[1:])
        return [sys.executable, "-W", "error", "-m", "castfs", *words]

    def castfs(
        self, *words: Word, code: int = 0, environment: Mapping[str, str] | None = None
    ) -> Said:
        """Run a command, which must end with `code`."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            cwd=self.base,
            env={**self.environment, **(environment or {})},
            check=False,
        )
        said = Said(
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(errors="replace"),
        )
        assert said.code == code, said
        return said

    def ingest(self, source: Path, *options: Word, code: int = 0) -> str:
        """The id of a new snapshot."""
        return self.castfs("ingest", "-q", source, *options, code=code).out.strip()

    def mount(self, snapshot: Word, options: str = "", *, at: Path | None = None) -> Path:
        at = at or self.directory("mnt")
        flags = ["-o", options] if options else []
        status = self.castfs("mount", "--json", snapshot, at, *flags).json
        self.pids[at] = status["pid"]
        return at

    def show(self, source: Path, options: str = "", taken_with: tuple[Word, ...] = ()) -> Path:
        """Ingest and mount a directory."""
        return self.mount(self.ingest(source, *taken_with), options)

    def unmount(self, mountpoint: Path) -> None:
        self.castfs("umount", mountpoint)

    def status(self, mountpoint: Path) -> dict[str, Any] | None:
        """What `castfs mounts` says of one."""
        found = self.castfs("mounts", "--json").json
        return next((item for item in found if item["mountpoint"] == str(mountpoint)), None)

    def blob(self, mountpoint: Path, name: str) -> Path:
        """Where the content of a mounted file lies."""
        text = subprocess.run(
            ["sha256sum", mountpoint / name], capture_output=True, check=True, timeout=PATIENCE
        ).stdout.decode()
        digest = text.removeprefix("\\")[:64]
        return self.store / "blobs" / digest[:2] / digest

    def blobs(self) -> list[Path]:
        return sorted(path for path in (self.store / "blobs").glob("*/*"))

    def leases(self) -> list[str]:
        return os.listdir(self.store / "leases")

    def records(self) -> list[str]:
        return sorted(os.listdir(self.store / "snapshots"))

    def clean_up(self) -> None:
        for mountpoint in reversed(fuse_mounts_below(self.base)):
            subprocess.run(["umount", "-l", mountpoint], timeout=PATIENCE, check=False)
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            if not wait_for_exit(pid, 10.0):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What holds of mounts holds with the fast lane and without."""
    mounted = metafunc.definition.get_closest_marker("mounted")
    if mounted is not None and "world" in metafunc.fixturenames:
        metafunc.parametrize(
            "world", [True, False], indirect=True, scope="module", ids=["lane", "alone"]
        )


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"), fast_lane=getattr(request, "param", True))
    try:
        yield world
    finally:
        world.clean_up()


@pytest.fixture(scope="module")
def public_world() -> Iterator[World]:
    """One that every user may enter: pytest's own directories are closed to others."""
    base = Path(tempfile.mkdtemp(prefix="castfs-test-"))
    base.chmod(0o755)
    world = World(base)
    try:
        yield world
    finally:
        world.clean_up()
        shutil.rmtree(base)
