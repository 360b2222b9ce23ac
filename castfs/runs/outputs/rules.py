"""When an output is due: the documented rules, without a clock or a disk."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass

import msgspec

from castfs.errors import UsageError
from castfs.runs.outputs.finding import Found
from castfs.runs.outputs.report import Reason
from castfs.runs.outputs.state import Remembered, TakenBefore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Durations in seconds. UsageError for one that is none."""

    stable_required: int
    min_age_sec: float
    log_snapshot_interval_sec: float
    state_gc_after_sec: float

    def __post_init__(self) -> None:
        required: object = self.stable_required
        if not isinstance(required, int) or required < 1:
            raise UsageError(f"stable_required must be at least 1, not {required!r}")
        for name in ("min_age_sec", "log_snapshot_interval_sec", "state_gc_after_sec"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or math.isnan(value) or value < 0:
                raise UsageError(f"{name} must be 0 or more seconds, not {value!r}")

    def note(self, found: Found, outputs: MutableMapping[str, Remembered], now: float) -> bool:
        """Remember that it was seen. Has anything that is remembered changed?"""
        known = outputs.get(found.key)
        was_gone = known is not None and known.stable == 0
        if known is None or known.stamp != found.stamp or was_gone:
            taken = known.taken if known is not None else None
            if taken is not None:
                taken = _not_after(taken, now)
            outputs[found.key] = Remembered(stamp=found.stamp, stable=1, since=now, taken=taken)
            return True
        changed = False
        if known.stable < self.stable_required:
            known.stable += 1
            changed = True
        # The clock may have been set back: nothing may wait until it has caught up.
        if now < known.since:
            known.since, changed = now, True
        if known.taken is not None and now < known.taken.at:
            known.taken, changed = _not_after(known.taken, now), True
        return changed

    def judge(self, found: Found, known: Remembered, now: float, *, last: bool) -> Reason | None:
        """Why it has to wait, though it has changed; None if it is due. After `note`."""
        if found.is_log:
            if last or known.taken is None:
                return None
            elapsed = now - known.taken.at
            return Reason.INTERVAL if elapsed < self.log_snapshot_interval_sec else None
        if found.is_empty:
            return Reason.EMPTY
        if known.stable < self.stable_required:
            return Reason.UNSTABLE
        # An mtime that was in the future when it was first seen says nothing of its age.
        age = max(now - found.mtime_ns / 1e9, now - known.since)
        return Reason.YOUNG if age < self.min_age_sec else None

    def miss(self, key: str, outputs: MutableMapping[str, Remembered], now: float) -> bool:
        """It is not there any more: remember that, or forget it. Has anything changed?"""
        known = outputs[key]
        if known.gone_at is None or now < known.gone_at:
            known.gone_at, known.stable = now, 0
            if self.state_gc_after_sec > 0:
                return True
        if now - known.gone_at < self.state_gc_after_sec:
            return False
        del outputs[key]
        return True


def _not_after(taken: TakenBefore, now: float) -> TakenBefore:
    return taken if taken.at <= now else msgspec.structs.replace(taken, at=now)
