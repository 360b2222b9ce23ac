"""Holding the store alone, for moments: others wait for one batch at most."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from castfs.store import Depot

#: For so long the store is held at a time, and for so long it is left to others in between.
BATCH_SECONDS = 0.020
PAUSE_SECONDS = 0.005
#: After so many vain tries `keep_up` reads whatever is new: others must not keep us from ending.
_TRIES = 10

T = TypeVar("T")


class Follower(Protocol):
    """Knows what must stay; see `RootTracker`."""

    def keep_up(self, *, whatever: bool = False) -> bool: ...

    def catch_up(self) -> None: ...


class Holds:
    """Takes the store's lock and remembers how long others had to wait for it."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self.longest_seconds = 0.0

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._depot.locks.exclusive():
            start = time.monotonic()
            try:
                yield
            finally:
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - start)

    def in_batches(
        self, items: Sequence[T], do: Callable[[T], None], follower: Follower | None = None
    ) -> Iterator[int]:
        """`do` each of `items` while the store is held, in batches that end by time; yields how
        many each had. Before each batch `follower`, if given, has seen all that is new."""
        done = tries = 0
        while done < len(items):
            start = done
            with self.exclusive():
                if follower is None or follower.keep_up(whatever=tries >= _TRIES):
                    tries = 0
                    end = time.monotonic() + BATCH_SECONDS
                    while done < len(items):
                        do(items[done])
                        done += 1
                        if time.monotonic() >= end:
                            break
                else:
                    tries += 1
            if tries and follower is not None:
                follower.catch_up()
            else:
                yield done - start
                time.sleep(PAUSE_SECONDS)
