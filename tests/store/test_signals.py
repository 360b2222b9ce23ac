"""A signal may come at any moment: what was taken up is given up."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from castfs.repository import Store
from castfs.store import WriteSession, pin_foreign
from tests.store.checking import assert_idle


class InterruptAt:
    """Raise KeyboardInterrupt once, before the nth line that castfs.store runs, as Ctrl-C may."""

    def __init__(self, line: int) -> None:
        self._left = line
        self.raised = False

    def __enter__(self) -> InterruptAt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_globals["__name__"].startswith(("castfs.store.", "castfs.atomic")):
            return None
        if event == "line" and not self.raised:
            self._left -= 1
            if self._left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self._trace


def open_session(store: Store) -> AbstractContextManager[object]:
    return WriteSession(store.depot, purpose="test")


def pin_snapshot(store: Store) -> AbstractContextManager[object]:
    [record] = store.iter_snapshots()
    return store.resolve(record.id).pinned("test")


def pin_file(store: Store) -> AbstractContextManager[object]:
    return pin_foreign(store.depot, [b"{}"], purpose="test")


# The process ends: descriptors that nobody closed go with it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("opened", [open_session, pin_snapshot, pin_file])
def test_a_signal_at_any_line_leaves_nothing(
    store: Store, source: Path, opened: Callable[[Store], AbstractContextManager[object]]
) -> None:
    store.ingest(source)
    for line in itertools.count():
        context = opened(store)
        with contextlib.suppress(KeyboardInterrupt), InterruptAt(line) as interrupt, context:
            sys.settrace(None)
        assert_idle(store.path)
        if not interrupt.raised:
            break
    assert line > 40
