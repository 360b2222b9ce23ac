"""Questions to the catalog: records, names, runs, and what leads from one to the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from castfs.catalog.files import (
    RUN_FILE,
    NameFile,
    RunFile,
    name_path,
    read_name_file,
    read_run,
    run_path,
)
from castfs.catalog.rows import read_damaged
from castfs.errors import DamageError
from castfs.store import Depot, Record
from castfs.store.trash import list_trash

#: Which records a question is about: those in the store, those in the trash.
Place = Literal["live", "trash", "all"]

_WHERE = {"live": "deleted_ns IS NULL", "trash": "deleted_ns IS NOT NULL", "all": "1"}

#: Records that are read at once: they have 0.5 KiB each, most of the time.
_FIRST_PAGE, _LAST_PAGE = 256, 16384

_decode_record = msgspec.json.Decoder(Record).decode
_decode_run = msgspec.json.Decoder(RunFile).decode
_decode_name = msgspec.json.Decoder(NameFile).decode


class Catalog:
    """What the database says, at one moment (or each time, after `let_go`). Belongs to one
    thread."""

    def __init__(self, depot: Depot, connection: sqlite3.Connection) -> None:
        self.depot = depot
        self._connection = connection

    def let_go(self) -> None:
        """From here on each question is about the time at which it is asked. For answers that may
        be read slowly, or never to their end: the database's log grows while a moment is held."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    # Records -----------------------------------------------------------------------------------

    def iter_records(
        self,
        place: Place = "live",
        *,
        name: str | None = None,
        type: str | None = None,
        run: str | None = None,
        sources: Sequence[str] = (),
        tags: Sequence[str] = (),
        since: str | None = None,
    ) -> Iterator[Record]:
        """Records, newest first (in the trash: the last deleted first), their tags and metadata as
        they are now. `since` is the beginning of an id."""
        where, values = [_WHERE[place]], list[Any]()
        for column, value in (("name", name), ("type", type), ("run", run)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if sources:
            where.append(f"source IN ({', '.join('?' * len(sources))})")
            values += sources
        for tag in tags:
            where.append("id IN (SELECT id FROM tags WHERE tag = ?)")
            values.append(tag)
        if since is not None:
            where.append("id >= ?")
            values.append(since)
        key = "id" if place != "trash" else "printf('%020d', deleted_ns) || id"
        yield from self._in_pages(" AND ".join(where), values, key)

    def _in_pages(self, where: str, values: Sequence[object], key: str) -> Iterator[Record]:
        """The greatest `key` first; each page is read to its end before anybody sees any of it."""
        after, limit = "", _FIRST_PAGE
        while True:
            more = f"{where} AND {key} < ?" if after else where
            rows = self._connection.execute(
                f"SELECT {key}, body FROM records WHERE {more} ORDER BY 1 DESC LIMIT ?",
                (*values, *([after] if after else []), limit),
            ).fetchall()
            for _, body in rows:
                yield _decode_record(body)
            if len(rows) < limit:
                return
            # Some questions sort all that is left for each page.
            after, limit = rows[-1][0], min(limit * 2, _LAST_PAGE)

    def find_prefix(self, prefix: str, place: Place = "live") -> list[Record]:
        """Records whose id, or whose manifest's, begins with `prefix` (hex digits)."""
        end = prefix + "g"
        return list(
            self._records(
                f"((id >= ? AND id < ?) OR (manifest >= ? AND manifest < ?)) AND {_WHERE[place]}"
                " ORDER BY id DESC",
                prefix, end, prefix, end,
            )
        )  # fmt: skip

    def find_version(self, name: str, version: int, place: Place = "live") -> list[Record]:
        return list(
            self._records(
                f"name = ? AND version = ? AND {_WHERE[place]} ORDER BY id DESC", name, version
            )
        )

    def latest(self, name: str, place: Place = "live") -> Record | None:
        """The highest version; of a name without versions, the newest snapshot."""
        found = self._records(
            f"name = ? AND {_WHERE[place]} ORDER BY version DESC NULLS LAST, id DESC LIMIT 1", name
        )
        return next(found, None)

    def get(self, record_id: str) -> Record | None:
        return next(self._records("id = ?", record_id), None)

    def deleted_ns(self, record_id: str) -> int | None:
        row = self._connection.execute(
            "SELECT deleted_ns FROM records WHERE id = ?", (record_id,)
        ).fetchone()
        return row[0] if row else None

    def iter_deleted(self) -> Iterator[tuple[int, Record]]:
        """(when, in ns; record) of what is in the trash, the last deleted first. A record may be
        there twice, and in the store, too: somebody has put a backup back."""
        for name in list_trash(self.depot):
            if record := self.get(name.record_id):
                yield name.deleted_ns, record

    def with_manifest(self, manifest_id: str) -> Record | None:
        """The newest record of a tree."""
        return next(
            self._records("manifest = ? AND deleted_ns IS NULL ORDER BY id DESC", manifest_id), None
        )

    def _records(self, where: str, *values: object) -> Iterator[Record]:
        rows = self._connection.execute(f"SELECT body FROM records WHERE {where}", values)
        for (body,) in rows:
            yield _decode_record(body)

    # Names -------------------------------------------------------------------------------------

    def name(self, name: str) -> NameFile | None:
        """DamageError if the name's file cannot be read."""
        row = self._connection.execute("SELECT body FROM names WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return _decode_name(row[0])
        return read_name_file(name_path(self.depot, name))

    def iter_names(self) -> Iterator[NameFile]:
        """By name; also those without a version that is left."""
        for (body,) in self._connection.execute("SELECT body FROM names ORDER BY name"):
            yield _decode_name(body)

    def has_name(self, name: str, place: Place = "all") -> bool:
        where = f"SELECT 1 FROM records WHERE name = ? AND {_WHERE[place]} LIMIT 1"
        return self._connection.execute(where, (name,)).fetchone() is not None

    def count_by_name(self, place: Place = "live") -> list[tuple[str, int]]:
        """(name, how many snapshots it has), by name."""
        return self._connection.execute(
            "SELECT name, count(*) FROM records"
            f" WHERE name IS NOT NULL AND {_WHERE[place]} GROUP BY name ORDER BY name"
        ).fetchall()

    def find_name(self, name: str) -> NameFile | None:
        """`name`, where one that cannot be read is as good as none: it is among `damages`."""
        try:
            return self.name(name)
        except DamageError:
            return None

    def aliases(self) -> dict[tuple[str, int], list[str]]:
        """All of them, by name and version."""
        found: dict[tuple[str, int], list[str]] = {}
        for name, version, alias in self._connection.execute(
            "SELECT name, version, alias FROM aliases"
        ).fetchall():
            found.setdefault((name, version), []).append(alias)
        return found

    def aliases_of(self, name: str, version: int) -> list[str]:
        rows = self._connection.execute(
            "SELECT alias FROM aliases WHERE name = ? AND version = ? ORDER BY alias",
            (name, version),
        )
        return [alias for (alias,) in rows]

    def lost_aliases(self) -> dict[str, dict[str, int]]:
        """By name: aliases of versions that are neither in the store nor in the trash."""
        rows = self._connection.execute(
            "SELECT name, alias, version FROM aliases AS a WHERE NOT EXISTS"
            " (SELECT 1 FROM records AS r WHERE r.name = a.name AND r.version = a.version)"
        ).fetchall()
        found: dict[str, dict[str, int]] = {}
        for name, alias, version in rows:
            found.setdefault(name, {})[alias] = version
        return found

    def lost_notes(self) -> list[str]:
        """Ids of snapshots that have a note, and are neither in the store nor in the trash."""
        rows = self._connection.execute(
            "SELECT id FROM notes WHERE id NOT IN (SELECT id FROM records)"
        ).fetchall()
        return [record_id for (record_id,) in rows]

    def last_version(self, name: str) -> int:
        """The highest number that any version had, as far as is known."""
        row = self._connection.execute(
            "SELECT max(version) FROM records WHERE name = ?", (name,)
        ).fetchone()
        known = self.name(name)
        return max(row[0] or 0, known.last_version if known else 0)

    def damages(self, place: Place = "all") -> list[DamageError]:
        """What cannot be read, the newest first: records, and all that is beside them."""
        return self.damaged_records(place) + self.damages_beside_records()

    def damaged_records(self, place: Place = "all") -> list[DamageError]:
        prefixes = {"live": ("snapshots/",), "trash": ("trash/",)}
        return self._damages(prefixes.get(place, ("snapshots/", "trash/")))

    def damages_beside_records(self) -> list[DamageError]:
        """Files of names, notes and runs. They hide no snapshot, but what is said of some."""
        return self._damages(("names/", "notes/", "runs/"))

    def damages_about(self, record: Record, *, notes: bool = True) -> list[DamageError]:
        """What cannot be read and may say something of a snapshot: who uses it, its aliases and,
        unless that does not matter, its tags and metadata."""
        files = ["runs/"]
        if record.name is not None:
            files.append(f"names/{name_path(self.depot, record.name).name}")
        if notes:
            files.append(f"notes/{record.id}.json")
        return self._damages(tuple(files))

    def _damages(self, prefixes: tuple[str, ...]) -> list[DamageError]:
        rows = self._connection.execute("SELECT file FROM damaged ORDER BY file DESC").fetchall()
        found = (read_damaged(self.depot, file) for (file,) in rows if file.startswith(prefixes))
        return [each for each in found if each is not None]

    # Runs and lineage --------------------------------------------------------------------------

    def run(self, run_id: str) -> RunFile | None:
        """DamageError if its file cannot be read."""
        if not RUN_FILE.fullmatch(f"{run_id}.json"):
            return None
        row = self._connection.execute("SELECT body FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is not None:
            return _decode_run(row[0])
        return read_run(run_path(self.depot, run_id))

    def iter_runs(self) -> Iterator[RunFile]:
        """Newest first."""
        rows = self._connection.execute("SELECT body FROM runs ORDER BY created_at DESC, id DESC")
        for (body,) in rows:
            yield _decode_run(body)

    def users_of(self, record_id: str) -> list[str]:
        """Runs that were given a snapshot, the newest first."""
        rows = self._connection.execute(
            "SELECT run FROM uses WHERE id = ? ORDER BY run DESC", (record_id,)
        )
        return [run for (run,) in rows]

    def makers_of(self, record: Record) -> list[str]:
        """Runs that made a snapshot, the first of them first; also one that was removed."""
        rows = self._connection.execute(
            "SELECT run FROM made_again WHERE id = ? ORDER BY run", (record.id,)
        )
        others = [run for (run,) in rows if run != record.run]
        return others if record.run is None else [record.run, *others]

    def has_made(self, run_id: str) -> bool:
        """Has a run made anything?"""
        where = "SELECT 1 FROM records WHERE run = ?1 UNION SELECT 1 FROM made_again WHERE run = ?1"
        return self._connection.execute(where, (run_id,)).fetchone() is not None

    def links_of(self, record_id: str) -> list[tuple[str, str, int]]:
        """(key, name, version) of its metadata that name a version."""
        return self._connection.execute(
            "SELECT key, name, version FROM links WHERE id = ? ORDER BY key", (record_id,)
        ).fetchall()

    def links_to(self, name: str, version: int) -> list[tuple[str, str]]:
        """(id, key) of the snapshots whose metadata name a version."""
        return self._connection.execute(
            "SELECT id, key FROM links WHERE name = ? AND version = ? ORDER BY id", (name, version)
        ).fetchall()
