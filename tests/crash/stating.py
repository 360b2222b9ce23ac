"""What a store says of names: the same for two stores in which the same was done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import castfs
from castfs.catalog import Catalog, reading, rebuild
from castfs.store import Record

#: Everything is plain JSON, and new version numbers are those that would be without gaps.
Statement = dict[str, dict[str, Any]]


def state(path: Path, last: dict[str, int]) -> Statement:
    """`last` are the highest numbers that the names had at the beginning."""
    with reading(castfs.open(path).depot) as catalog:
        assert catalog.damages() == []
        records = list(catalog.iter_records("all"))
        numbers = _find_numbers(records, last)
        versions: dict[str, Any] = {}
        for record in records:
            key = f"{record.name}:{_number(numbers, record.name, record.version)}"
            said = versions.setdefault(key if record.name else "without a name", [])
            said.append(_describe(catalog, record))
        names = list(catalog.iter_names())
        return {
            # Of what has no name, nobody counts how often it was taken.
            "versions": {key: sorted(set(map(repr, said))) for key, said in versions.items()},
            "aliases": {
                f"{name.name}:{alias}": _number(numbers, name.name, version)
                for name in names
                for alias, version in name.aliases.items()
            },
            "history": {
                name.name: [
                    [
                        event.kind,
                        event.alias,
                        _number(numbers, name.name, event.version),
                        _number(numbers, name.name, event.before),
                    ]
                    for event in name.history
                    if event.alias is not None
                ]
                for name in names
                if any(event.alias is not None for event in name.history)
            },
            "types": {
                name.name: name.type for name in names if name.type and catalog.has_name(name.name)
            },
            "runs": {
                f"{run.project}/{run.name}": [
                    run.status, bool(run.finished_at), run.metadata,
                    [f"{use.name}:v{use.version}" for use in run.uses],
                ]
                for run in catalog.iter_runs()
            },
        }  # fmt: skip


def _find_numbers(records: list[Record], last: dict[str, int]) -> dict[tuple[str, int], int]:
    """A number that was used up and not given leaves a gap."""
    numbers: dict[tuple[str, int], int] = {}
    count: Counter[str] = Counter()
    for name, version in sorted((r.name, r.version) for r in records if r.name and r.version):
        before = last.get(name, 0)
        if version > before:
            count[name] += 1
            numbers[name, version] = before + count[name]
    return numbers


def _number(numbers: dict[tuple[str, int], int], name: str | None, version: int | None) -> Any:
    return numbers.get((name or "", version or 0), version)


def _describe(catalog: Catalog, record: Record) -> list[Any]:
    return [
        "live" if catalog.deleted_ns(record.id) is None else "trash",
        # What is put together has the time of that in its manifest.
        record.content or record.file_count, record.total_size_bytes, record.type, record.tags,
        record.metadata, record.message, bool(record.run), record.references,
    ]  # fmt: skip


def check_agreement(path: Path) -> None:
    """Numbers were given once, aliases mean what their history says, and a version that there is;
    the database, the files and a database that is made anew say the same."""
    depot = castfs.open(path).depot
    with reading(depot) as catalog:
        records = list(catalog.iter_records("all"))
        given = Counter((r.name, r.version) for r in records if r.version is not None)
        assert all(count == 1 for count in given.values()), given
        for name in catalog.iter_names():
            told: dict[str, int] = {}
            for event in name.history:
                if event.kind == "alias":
                    assert event.alias is not None
                    assert event.before == told.get(event.alias)
                    told[event.alias] = event.version
                elif event.kind == "unalias":
                    assert event.alias is not None
                    assert event.before == told.pop(event.alias)
            assert told == name.aliases
            for alias, version in name.aliases.items():
                assert given[name.name, version], f"{name.name}:{alias} is v{version}, gone"
        before = _dump(catalog)
    rebuild(depot)
    with reading(depot) as catalog:
        after = _dump(catalog)
    for table, rows in before.items():
        assert rows == after[table], f"table {table}: {rows}\nand anew: {after[table]}"


def _dump(catalog: Catalog) -> dict[str, list[tuple[Any, ...]]]:
    """All of the database but what it notes for itself."""
    connection = catalog._connection
    dump = {}
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        columns = ", ".join(name for name in names if name != "stamp")
        if table != "state":
            dump[table] = sorted(connection.execute(f"SELECT {columns} FROM {table}"), key=repr)
    return dump


def last_numbers(path: Path) -> dict[str, int]:
    with reading(castfs.open(path).depot) as catalog:
        return {name.name: name.last_version for name in catalog.iter_names()}
