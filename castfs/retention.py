"""Which snapshots a policy keeps, in restic's sense (its manual, "Removing backup snapshots").

Snapshots are grouped by name, those without one by host and source, and each group is looked at
alone, newest first. Days, weeks and so on are those of the local time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from castfs.errors import DamageError
from castfs.store import Record

#: What stands for one hour, day, week (ISO 8601), month or year.
_PERIODS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: tuple(t.isocalendar()[:2]),
    "monthly": lambda t: (t.year, t.month),
    "yearly": lambda t: (t.year,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Keep the newest `last`; the newest of each of the last so many hours, days, weeks, months,
    years that have any; all that are at most `within_seconds` older than the newest of the group;
    all that have every tag of one of `tags`."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within_seconds: float | None = None
    tags: tuple[frozenset[str], ...] = ()

    @property
    def is_empty(self) -> bool:
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return not any(counts) and self.within_seconds is None and not self.tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A snapshot that stays, and the rules that say so."""

    record: Record
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Snapshots of one name, or of one source on one host; both lists newest first."""

    name: str | None
    host: str | None
    source: str | None
    kept: tuple[Kept, ...]
    removed: tuple[Record, ...]


def apply_policy(
    records: Iterable[Record], policy: Policy, *, now: datetime | None = None
) -> list[Group]:
    """The groups of `records`, each divided by `policy`. `now` has a zone; None: by the clock.

    DamageError for a record whose time is none."""
    now = now or datetime.now().astimezone()
    groups: dict[tuple[str | None, str | None, str | None], list[Record]] = {}
    for record in records:
        named = record.name is not None
        key = (record.name, None, None) if named else (None, record.host, record.source)
        groups.setdefault(key, []).append(record)
    return [
        _divide(name, host, source, members, policy, now)
        for (name, host, source), members in groups.items()
    ]


def _divide(
    name: str | None,
    host: str | None,
    source: str | None,
    members: Sequence[Record],
    policy: Policy,
    now: datetime,
) -> Group:
    timed = sorted(((_local_time(r), r.id, r) for r in members), reverse=True)
    reasons: dict[str, list[str]] = {record.id: [] for record in members}
    for _, record_id, record in timed:
        if any(tags <= set(record.tags) for tags in policy.tags):
            reasons[record_id].append("tag")
    if policy.within_seconds is not None:
        # One from the future, of a clock that was wrong, would make all others old.
        newest = next((time for time, _, _ in timed if time <= now), None)
        for time, record_id, _ in timed:
            if newest is None or newest - time <= timedelta(seconds=policy.within_seconds):
                reasons[record_id].append("within")
    for _, record_id, _ in timed[: policy.last]:
        reasons[record_id].append("last")
    for rule, period in _PERIODS.items():
        for record_id in _newest_of_each(timed, period, getattr(policy, rule)):
            reasons[record_id].append(rule)
    return Group(
        name=name,
        host=host,
        source=source,
        kept=tuple(
            Kept(record=record, reasons=tuple(reasons[record_id]))
            for _, record_id, record in timed
            if reasons[record_id]
        ),
        removed=tuple(record for _, record_id, record in timed if not reasons[record_id]),
    )


def _newest_of_each(
    timed: Sequence[tuple[datetime, str, Record]],
    period: Callable[[datetime], tuple[int, ...]],
    count: int,
) -> list[str]:
    """Where there are fewer periods than `count`, the oldest of all stays too: it would be the
    first of a longer row."""
    chosen: list[str] = []
    last = None
    for number, (time, record_id, _) in enumerate(timed, 1):
        if len(chosen) == count:
            break
        if period(time) != last or number == len(timed):
            chosen.append(record_id)
            last = period(time)
    return chosen


def _local_time(record: Record) -> datetime:
    try:
        return datetime.fromisoformat(record.created_at).astimezone()
    except (ValueError, OverflowError) as exc:
        raise DamageError(
            f"snapshot {record.id} was made at {record.created_at!r}, which is no time",
            hint="no policy can judge it: remove it, or choose others with --name or --source",
        ) from exc
