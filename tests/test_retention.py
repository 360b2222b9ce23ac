"""Which snapshots a policy keeps: by example, and against a reference written from restic's manual
("Removing backup snapshots", restic 0.16)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import castfs
from castfs.errors import DamageError, UsageError
from castfs.retention import Group, Policy, apply_policy
from castfs.store import Record

#: After all that happens below.
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def berlin() -> Iterator[None]:
    """A zone with two offsets, so that a day of UTC is no day here."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def record(
    when: str | datetime,
    number: int = 0,
    *,
    name: str | None = None,
    host: str = "host",
    source: str = "/source",
    tags: Sequence[str] = (),
) -> Record:
    """A record of `when`: a time in UTC."""
    moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    return Record(
        id=f"{number:024x}",
        manifest="0" * 64,
        created_at=moment.replace(tzinfo=UTC).isoformat(timespec="microseconds"),
        host=host,
        source=source,
        file_count=0,
        total_size_bytes=0,
        name=name,
        tags=tuple(tags),
    )


def records(*times: str) -> list[Record]:
    """Given from new to old; so their ids count down."""
    return [record(when, len(times) - at) for at, when in enumerate(times)]


def kept(group: Group) -> list[str]:
    """Times of day or dates of what is kept, newest first."""
    return [each.record.created_at[:16] for each in group.kept]


def one_group(members: Sequence[Record], policy: Policy, now: datetime = NOW) -> Group:
    [group] = apply_policy(members, policy, now=now)
    left = {each.record.id for each in group.kept} | {each.id for each in group.removed}
    assert left == {member.id for member in members}
    assert len(group.kept) + len(group.removed) == len(members)
    return group


#: policy, what there is from new to old (UTC; Berlin is an hour or two ahead), what of it is kept
CASES = {
    "last": (
        Policy(last=2),
        ["2024-05-03T10:00", "2024-05-02T10:00", "2024-05-01T10:00"],
        ["2024-05-03T10:00", "2024-05-02T10:00"],
    ),
    "more than there are": (Policy(last=9), ["2024-05-03T10:00"], ["2024-05-03T10:00"]),
    "the newest of an hour": (
        Policy(hourly=2),
        ["2024-05-03T10:59", "2024-05-03T10:00", "2024-05-03T09:59", "2024-05-03T09:00"],
        ["2024-05-03T10:59", "2024-05-03T09:59"],
    ),
    "hours without any do not count": (
        Policy(hourly=2),
        ["2024-05-03T10:00", "2023-01-01T10:00", "2022-01-01T10:00"],
        ["2024-05-03T10:00", "2023-01-01T10:00"],
    ),
    "the hour that comes twice in October is one": (
        Policy(hourly=2),
        ["2024-10-27T01:30", "2024-10-27T00:30", "2024-10-26T23:30", "2024-10-26T22:30"],
        ["2024-10-27T01:30", "2024-10-26T23:30"],
    ),
    "a day begins at local midnight": (
        Policy(daily=2),
        ["2024-05-03T22:30", "2024-05-03T21:30", "2024-05-02T22:30", "2024-05-02T21:30"],
        ["2024-05-03T22:30", "2024-05-03T21:30"],
    ),
    "a week begins on Monday": (
        Policy(weekly=2),
        ["2024-05-06T12:00", "2024-05-05T12:00", "2024-04-29T12:00", "2024-04-28T12:00"],
        ["2024-05-06T12:00", "2024-05-05T12:00"],
    ),
    "a week that two years share is one": (
        Policy(weekly=2),
        ["2025-01-01T12:00", "2024-12-30T12:00", "2024-12-29T12:00", "2024-12-22T12:00"],
        ["2025-01-01T12:00", "2024-12-29T12:00"],
    ),
    "months": (
        Policy(monthly=2),
        ["2024-03-31T21:59", "2024-03-01T00:00", "2024-02-29T22:59", "2024-02-01T00:00"],
        ["2024-03-31T21:59", "2024-02-29T22:59"],
    ),
    "years": (
        Policy(yearly=2),
        ["2024-06-01T00:00", "2023-12-31T23:30", "2023-12-31T22:30", "2022-06-01T00:00"],
        ["2024-06-01T00:00", "2023-12-31T22:30"],
    ),
    "the oldest fills a row that is short": (
        Policy(monthly=5),
        ["2024-05-20T00:00", "2024-05-10T00:00", "2024-05-02T00:00"],
        ["2024-05-20T00:00", "2024-05-02T00:00"],
    ),
    "but not one that is full": (
        Policy(monthly=1),
        ["2024-05-20T00:00", "2024-05-10T00:00"],
        ["2024-05-20T00:00"],
    ),
    "within counts from the newest, not from now": (
        Policy(within_seconds=2 * 86400),
        ["2024-05-10T12:00", "2024-05-08T12:00", "2024-05-08T11:59"],
        ["2024-05-10T12:00", "2024-05-08T12:00"],
    ),
    "within nothing": (
        Policy(within_seconds=0.0),
        ["2024-05-10T12:00", "2024-05-10T11:59"],
        ["2024-05-10T12:00"],
    ),
    "what any rule keeps stays": (
        Policy(last=1, yearly=2),
        ["2024-05-10T12:00", "2024-05-09T12:00", "2023-05-10T12:00", "2022-05-10T12:00"],
        ["2024-05-10T12:00", "2023-05-10T12:00"],
    ),
}


@pytest.mark.parametrize(("policy", "there", "expected"), CASES.values(), ids=CASES)
def test_policy(policy: Policy, there: list[str], expected: list[str]) -> None:
    members = records(*there)
    assert kept(one_group(members, policy)) == expected
    assert kept(one_group(members[::-1], policy)) == expected, "the order given is no matter"


def test_reasons() -> None:
    newest, middle, oldest = records("2024-05-03T10:00", "2024-05-03T09:00", "2023-01-01T00:00")
    middle = record("2024-05-03T09:00", 2, tags=["good"])
    policy = Policy(last=1, daily=2, yearly=1, within_seconds=3600.0, tags=(frozenset({"good"}),))
    group = one_group([newest, middle, oldest], policy)
    assert [each.reasons for each in group.kept] == [
        ("within", "last", "daily", "yearly"),
        ("tag", "within"),
        ("daily",),
    ]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ((frozenset({"a"}),), {1, 3}),
        ((frozenset({"a", "b"}),), {3}),
        ((frozenset({"a"}), frozenset({"b"})), {1, 2, 3}),
        ((frozenset({"none"}),), set()),
    ],
)
def test_tags(tags: tuple[frozenset[str], ...], expected: set[int]) -> None:
    members = [
        record("2024-05-01T00:00", 1, tags=["a"]),
        record("2024-05-02T00:00", 2, tags=["b"]),
        record("2024-05-03T00:00", 3, tags=["b", "c", "a"]),
        record("2024-05-04T00:00", 4),
    ]
    group = one_group(members, Policy(tags=tags))
    assert {int(each.record.id, 16) for each in group.kept} == expected


def test_a_snapshot_from_the_future_makes_no_other_old() -> None:
    """A clock was wrong once. restic: "the latest snapshot must not be in the future"."""
    members = records(
        "2031-01-01T00:00", "2024-05-10T12:00", "2024-05-09T12:00", "2024-01-01T00:00"
    )
    group = one_group(members, Policy(within_seconds=2 * 86400.0))
    assert kept(group) == ["2031-01-01T00:00", "2024-05-10T12:00", "2024-05-09T12:00"]
    assert one_group(members[:1], Policy(within_seconds=0.0)).removed == ()


def test_groups() -> None:
    """By name wherever it came from, else by host and source; each is divided alone."""
    members = [
        record("2024-05-01T00:00", 1, name="run", source="/a"),
        record("2024-05-02T00:00", 2, name="run", host="other", source="/b"),
        record("2024-05-03T00:00", 3, source="/a"),
        record("2024-05-04T00:00", 4, source="/a", host="other"),
        record("2024-05-05T00:00", 5, source="/b"),
        record("2024-05-06T00:00", 6, source="/b"),
    ]
    groups = {
        (group.name, group.host, group.source): [int(each.record.id, 16) for each in group.kept]
        for group in apply_policy(members, Policy(last=1), now=NOW)
    }
    assert groups == {
        ("run", None, None): [2],
        (None, "host", "/a"): [3],
        (None, "other", "/a"): [4],
        (None, "host", "/b"): [6],
    }
    assert apply_policy([], Policy(last=1)) == []


@pytest.mark.parametrize("text", ["yesterday", "", "2024-13-01T00:00:00+00:00", "0001-01-01"])
def test_a_record_without_a_time(text: str) -> None:
    """Record files are only as good as who wrote them."""
    bad = Record(
        id="0" * 24,
        manifest="0" * 64,
        created_at=text,
        host="",
        source="",
        file_count=0,
        total_size_bytes=0,
    )
    with pytest.raises(DamageError, match="0" * 24):
        apply_policy([bad], Policy(last=1))


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_policy_that_would_keep_nothing_of_a_group_is_refused(
    tmp_path: Path, dry_run: bool
) -> None:
    """Of the other group it would keep something: nothing of that is moved either."""
    store = castfs.open(tmp_path / "store", create=True)
    (tmp_path / "tree").mkdir()
    for name, tags in (("good", ["x"]), ("good", []), ("bad", ["y"])):
        store.ingest(tmp_path / "tree", name=name, tags=tags, new_version=True)
    before = sorted(os.listdir(store.depot.snapshots_dir))
    policy = Policy(tags=(frozenset({"x"}),))
    with pytest.raises(UsageError, match="bad") as caught:
        store.plan_forget(policy) if dry_run else store.forget(policy)
    assert caught.value.exit_code == 2
    assert sorted(os.listdir(store.depot.snapshots_dir)) == before
    assert os.listdir(store.depot.trash_dir) == []
    store.forget(policy, name="good")
    assert len(os.listdir(store.depot.trash_dir)) == 1


def test_empty_policies() -> None:
    assert Policy().is_empty
    assert not Policy(within_seconds=0.0).is_empty
    assert not Policy(yearly=1).is_empty
    assert not Policy(tags=(frozenset({"a"}),)).is_empty


# A reference ------------------------------------------------------------------------------------

_FORMATS = {
    "hourly": "%Y-%m-%d %H",
    "daily": "%Y-%m-%d",
    "weekly": "%G-%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


def reference(members: Sequence[Record], policy: Policy) -> dict[str, set[str]]:
    """Ids → rules. Each rule as the manual has it, in words of its own."""
    times = {r.id: datetime.fromisoformat(r.created_at).astimezone() for r in members}
    newest_first = sorted(times, key=lambda each: (times[each], each), reverse=True)
    why: dict[str, set[str]] = {each: set() for each in newest_first}
    for each in newest_first[: policy.last]:
        why[each].add("last")
    for rule, text in _FORMATS.items():
        count = getattr(policy, rule)
        newest_of: dict[str, str] = {}
        for each in newest_first:
            newest_of.setdefault(times[each].strftime(text), each)
        for each in list(newest_of.values())[:count]:
            why[each].add(rule)
        if len(newest_of) < count:
            why[newest_first[-1]].add(rule)
    for each in newest_first:
        age = (times[newest_first[0]] - times[each]).total_seconds()
        if policy.within_seconds is not None and age <= policy.within_seconds:
            why[each].add("within")
    for member in members:
        if any(set(tags).issubset(member.tags) for tags in policy.tags):
            why[member.id].add("tag")
    return {each: rules for each, rules in why.items() if rules}


#: Close together, so that periods have several, around where hours, weeks and years meet oddly.
_ANCHORS = [
    datetime(2024, 10, 26, 20),
    datetime(2024, 3, 30, 22),
    datetime(2020, 12, 27),
    datetime(2024, 2, 28),
]
_times = st.one_of(
    st.builds(
        lambda anchor, minutes: anchor + timedelta(minutes=minutes),
        st.sampled_from(_ANCHORS),
        st.integers(0, 3 * 1440),
    ),
    st.datetimes(datetime(2019, 1, 1), datetime(2026, 1, 1)),
)
_tags = st.lists(st.sampled_from("abc"), max_size=2, unique=True)
_counts = st.integers(0, 5)
_policies = st.builds(
    Policy,
    last=_counts,
    hourly=_counts,
    daily=_counts,
    weekly=_counts,
    monthly=_counts,
    yearly=_counts,
    within_seconds=st.none() | st.sampled_from([0.0, 3600.0, 86400.0, 40 * 86400.0]),
    tags=st.lists(st.frozensets(st.sampled_from("abc"), min_size=1), max_size=2).map(tuple),
)


@given(st.lists(st.tuples(_times, _tags), min_size=1, max_size=40), _policies)
def test_as_the_manual_says(history: list[tuple[datetime, list[str]]], policy: Policy) -> None:
    members = [record(when, at, tags=tags) for at, (when, tags) in enumerate(history)]
    group = one_group(members, policy)
    assert {each.record.id: set(each.reasons) for each in group.kept} == reference(members, policy)
    for listed in ([each.record for each in group.kept], group.removed):
        times = [(each.created_at, each.id) for each in listed]
        assert times == sorted(times, reverse=True), "newest first"
