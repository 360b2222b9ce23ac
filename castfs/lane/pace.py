"""When to wait for the next request by asking again and again instead of sleeping.

Most of a first touch is waking threads on sleeping CPUs. A lane that polls for a few hundred
microseconds after an answer is awake when the next request comes, which halves the time of a first
`tar`. It costs a CPU, so it is done only while requests keep coming at such a pace.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

#: How long it is worth to wait awake, in nanoseconds: a reader's own work between two requests.
AWAKE_NS = 300_000
#: Requests in a row that came within that time before it begins. So neither a trickle of single
#: requests nor the handful that one `stat` makes keep a CPU busy.
BURST = 16


class Pace:
    """One thread's. `came` after each request, `may_wait_awake` when there is none."""

    def __init__(self, clock: Callable[[], int], *, enabled: bool = True) -> None:
        """`clock` counts nanoseconds."""
        self._clock = clock
        self._enabled = enabled
        #: When the last request came, by `clock`.
        self.last = 0
        self._burst = 0

    def came(self) -> None:
        now = self._clock()
        self._burst = self._burst + 1 if now - self.last <= AWAKE_NS else 0
        self.last = now

    def may_wait_awake(self) -> bool:
        """False once the time is over; the pace has to build up again then."""
        if self._burst < BURST or not self._enabled:
            return False
        if self._clock() - self.last <= AWAKE_NS:
            return True
        self._burst = 0
        return False


def has_spare_cpu() -> bool:
    """Is there a second CPU for whoever reads, and no quota that waiting would use up?"""
    if len(os.sched_getaffinity(0)) < 2:
        return False
    try:
        quota, period = Path(_cgroup_dir(), "cpu.max").read_text().split()
    except (OSError, ValueError):
        return True  # the root of a hierarchy, or cgroups of version 1
    return quota == "max" or int(quota) >= 2 * int(period)


def _cgroup_dir() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return "/sys/fs/cgroup" + line[3:]
    raise FileNotFoundError
