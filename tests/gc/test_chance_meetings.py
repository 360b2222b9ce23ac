"""What tests/gc/stress.py met by chance, each arranged here so that it happens every time."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castfs.cli import process
from castfs.errors import NotFoundError
from castfs.gc import GcOptions, unfinished
from castfs.gc.plan import Amount
from castfs.mount import daemon
from castfs.repository import Store, lookup
from tests.gc.acting import Scene

EVERYTHING = GcOptions(grace_seconds=0, trash_age_seconds=0, force=True)


def test_a_staging_directory_that_its_owner_clears_while_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease goes with the commit, a moment before it."""
    staging = tmp_path / "w-0123456789abcdef"
    staging.mkdir()
    real = os.scandir

    def scandir(path: Any) -> Any:
        monkeypatch.setattr(os, "scandir", real)
        staging.rmdir()
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert unfinished.measure([staging]) == Amount()
    assert not staging.exists()


def test_a_reader_that_writes_where_a_collector_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ingest was killed; it ends with the file that it is at."""
    staging = tmp_path / "dead-w-0123456789abcdef"
    staging.mkdir()
    real: Callable[..., None] = os.rmdir

    def rmdir(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(os, "rmdir", real)
        (staging / "part-1-2").touch()
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(os, "rmdir", rmdir)
    unfinished.delete([staging])
    assert not staging.exists()


def test_a_snapshot_that_is_collected_while_it_is_resolved_was_removed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is damaged."""
    store: Store = scene.store
    record = scene.lost
    real = lookup.load_manifest

    def load(*args: Any) -> Any:
        store.remove_for_good(record.id)
        store.gc(EVERYTHING)
        return real(*args)

    monkeypatch.setattr(lookup, "load_manifest", load)
    with pytest.raises(NotFoundError, match="was removed"):
        store.resolve(record.id)


def test_a_signal_while_an_error_is_reported(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = process.complain

    def complain(text: str) -> None:
        if "SIGTERM" not in text:
            os.kill(os.getpid(), signal.SIGTERM)
        real(text)

    monkeypatch.setattr(process, "complain", complain)
    assert process.run(["--store", str(store.path), "show", "0123456789ab"]) == 143
    assert capsys.readouterr().err == "castfs: ended by SIGTERM\n"


def test_a_mount_process_whose_launcher_was_killed_at_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    request_fd, request_end = os.pipe()
    ready_end, ready_fd = os.pipe()
    os.close(request_end)
    assert daemon.main(request_fd, ready_fd) == 1
    os.close(ready_end)
    os.close(ready_fd)
    assert capfd.readouterr().err == ""
