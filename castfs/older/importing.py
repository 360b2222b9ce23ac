"""Older archives into a store: each version by a transaction of its own, the damage listed.

What was imported says so in its metadata, under `imported`: the older system's key of it and what
identified its content. An import that finds them there adds nothing; so one that was killed goes on
where it was. A version that lacks files, because they were damaged, says which; it is taken again,
as a version of its own, once one of them can be read. `castfs.older.origins` says what becomes of
those that were imported before symlinks and directories were.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from castfs.catalog import reading
from castfs.digest import ReadError, digest_fd
from castfs.errors import UsageError
from castfs.manifest import read_manifest_file
from castfs.older.description import (
    Damage,
    Key,
    OlderFile,
    OlderRun,
    OlderVersion,
    Renamed,
)
from castfs.older.destination import IMPORTED, Destination, Known, Wanted
from castfs.older.detecting import check_format
from castfs.older.filling import Filling, check_size
from castfs.older.guarded import Refused
from castfs.older.occupancy import Occupancy
from castfs.older.opening import OlderArchive, open_archive
from castfs.older.origins import Identified, list_losses, make_origin, read_origin, was_only_files
from castfs.older.report import ImportedVersion, ImportReport
from castfs.older.run_files import RunFiles
from castfs.older.storing import DepotDestination
from castfs.paths import display, escape, unescape
from castfs.progress import SILENT, Progress
from castfs.repository.taking import import_manifest
from castfs.store import Depot


def import_archive(
    depot: Depot, path: Path, *, format: str | None = None, progress: Progress = SILENT
) -> ImportReport:
    """Everything that an older archive, or one manifest file, holds. Nothing there is changed.

    NotFoundError, UsageError, SourceError, StoreError. What is damaged is no error: the report
    lists it, and everything else is imported. A manifest file is taken whole or not at all:
    ManifestError, BlobError.
    """
    if path.is_dir():
        return import_directory(DepotDestination(depot), path, format=format, progress=progress)
    check_format(format, path)
    return _import_file(depot, path, progress)


def _import_file(depot: Depot, path: Path, progress: Progress) -> ImportReport:
    manifest = read_manifest_file(path)
    with reading(depot) as catalog:
        known = catalog.with_manifest(manifest.id)
    versions: tuple[ImportedVersion, ...] = ()
    if known is None:
        result = import_manifest(depot, path, progress=progress)
        versions = (
            ImportedVersion(
                id=result.id,
                name=None,
                version=None,
                type=None,
                older_name=display(os.fsencode(path.name)),
                older_version=None,
                file_count=len(manifest.tree.files),
                size_bytes=manifest.tree.total_size_bytes,
                lacks=0,
                deleted=False,
            ),
        )
    return ImportReport(
        format="manifest",
        versions=versions,
        unchanged=0 if versions else 1,
        runs=0,
        runs_unchanged=0,
        renamed=(),
        damage=(),
        skipped=(),
    )


def import_directory(
    destination: Destination,
    root: Path,
    *,
    format: str | None = None,
    progress: Progress = SILENT,
) -> ImportReport:
    """Everything that an archive holds. NotFoundError, UsageError, SourceError; StoreError;
    BusyError if somebody else imports it just now: both would add the same."""
    with open_archive(root, format=format) as archive:
        archive.tree.lock()
        return _Import(destination, archive, progress).run()


class _Import:
    def __init__(self, destination: Destination, archive: OlderArchive, progress: Progress) -> None:
        self._destination, self._archive, self._progress = destination, archive, progress
        self._damage = archive.findings.damage
        self._renamed = archive.findings.renamed
        self._known: dict[Identified, Known] = {}
        for known in destination.iter_known():
            if (identified := read_origin(known.origin)) is not None:
                # The first that is found is the newest: whoever was healed is whole there.
                self._known.setdefault(identified, known)
        #: What each key of the archive is here.
        self._here: dict[Key, Known] = {}
        self._names: dict[str, str] = {}
        self._added: list[ImportedVersion] = []
        self._skipped: list[Damage] = []
        self._unchanged = 0

    def run(self) -> ImportReport:
        self._progress.phase("importing")
        for version in self._archive.iter_versions():
            self._take(version)
        runs = [self._take_run(run) for run in self._archive.iter_runs()]
        return ImportReport(
            format=self._archive.format,
            versions=tuple(self._added),
            unchanged=self._unchanged,
            runs=sum(runs),
            runs_unchanged=len(runs) - sum(runs),
            renamed=tuple(dict.fromkeys(self._renamed)),
            damage=tuple(dict.fromkeys(self._damage)),
            skipped=tuple(self._skipped),
        )

    def _take_run(self, run: OlderRun) -> bool:
        uses = [self._here[key] for key in run.used if key in self._here]
        is_new = self._destination.write_run(run, uses)
        files = RunFiles(self._archive.tree, run.where, self._damage)
        return self._destination.write_run_files(run, files) or is_new

    def _take(self, version: OlderVersion) -> None:
        try:
            identity = version.contents.identity
            known = self._known.get((version.key, identity))
            if known is not None and not (
                _is_outdated(version, known) or self._is_healed(version, known)
            ):
                self._keep(version, known)
                return
            taken = self._write(version, identity, replaces=known)
        except Refused as exc:
            self._lose(version.where, exc.reason, f"{version.older_name} was left out")
            return
        if taken is not None:
            self._here[version.key] = taken

    def _keep(self, version: OlderVersion, known: Known) -> None:
        self._unchanged += 1
        self._here[version.key] = known
        if version.aliases or version.deleted:
            wanted = self._describe(version, known.origin, known.name, known.version)
            self._destination.complete(known, wanted)
        losses = (list_losses(known.origin, kind) for kind in ("missing", "damage"))
        for entry in itertools.chain(*losses):
            with contextlib.suppress(ValueError):
                self._damage.append(Damage(unescape(entry["at"]), entry["reason"]))

    def _is_healed(self, version: OlderVersion, known: Known) -> bool:
        """Can a file be read that could not when this was imported?"""
        missing = {entry.get("path") for entry in list_losses(known.origin, "missing")}
        if not missing:
            return False
        taken = Occupancy()
        for item in version.contents.iter_items([]):
            # A zip is known by its digest, so what is in it cannot have changed.
            if isinstance(item, OlderFile):
                with contextlib.suppress(Refused):
                    taken.take(item.path)
                    if escape(item.path) in missing and self._is_sound(item):
                        return True
        return False

    def _is_sound(self, file: OlderFile) -> bool:
        """Refused if it cannot be read at all."""
        check_size(self._archive.tree, file)
        fd = self._archive.tree.open(self._archive.tree.relative(file.source))
        try:
            return file.expected in (None, digest_fd(fd))
        except ReadError:
            return False
        finally:
            os.close(fd)

    def _write(
        self, version: OlderVersion, identity: str, *, replaces: Known | None
    ) -> Known | None:
        """None if nothing of it could be taken."""
        purpose = f"import {display(os.fsencode(self._archive.tree.root))}"
        with self._destination.write(purpose) as writing:
            tree = Filling(self._archive.tree, writing, self._progress, version.older_name)
            listed: list[Damage] = []
            for item in version.contents.iter_items(listed):
                tree.add(item)
            self._damage += listed
            for missing in tree.missing:
                self._damage.append(Damage(missing.where, missing.reason))
            if not tree.digests and not tree.references and not tree.links:
                if not tree.missing and not listed:
                    self._skipped.append(Damage(version.where, "it is empty"))
                return None
            if not tree.missing and (fault := version.contents.check(tree.digests)):
                raise Refused(fault)
            name, number = self._place(version, replaces)
            origin = make_origin(
                version,
                identity,
                tree.missing,
                listed,
                has_more_than_files=tree.has_more_than_files,
            )
            try:
                known = writing.commit(self._describe(version, origin, name, number))
            except UsageError as exc:
                raise Refused(exc.message) from exc
        self._added.append(
            ImportedVersion(
                id=known.id,
                name=known.name,
                version=known.version,
                type=version.type,
                older_name=version.older_name,
                older_version=version.number,
                file_count=len(tree.digests),
                size_bytes=tree.size,
                lacks=len(tree.missing) + len(listed),
                deleted=version.deleted,
            )
        )
        return known

    def _place(self, version: OlderVersion, replaces: Known | None) -> tuple[str, int | None]:
        """The name and number that it gets in this store."""
        name = self._names.get(version.name)
        if name is None:
            name = version.name
            while self._destination.type_of(name) not in (None, version.type):
                name = f"{name}-{version.type}"
            if name != version.name:
                reason = "the store has something of another type by that name"
                self._renamed.append(Renamed(version.older_name, name, reason))
            self._names[version.name] = name
        number = version.number
        if number is not None and self._destination.has_version(name, number):
            older = f"{version.older_name}:v{number}"
            reason = "the number is taken" if replaces is None else "it was imported with damage"
            self._renamed.append(Renamed(older, f"{name}, the next version", reason))
            number = None
        return name, number

    def _describe(
        self, version: OlderVersion, origin: Mapping[str, Any], name: str, number: int | None
    ) -> Wanted:
        return Wanted(
            name=name,
            type=version.type,
            version=number,
            tags=version.tags,
            metadata={**version.metadata, IMPORTED: origin},
            message=version.description,
            aliases=version.aliases,
            run=version.run,
            source=escape(version.source.encode())
            if version.source
            else self._locate(version.where),
            created_at=version.created_at,
            deleted=version.deleted,
        )

    def _locate(self, where: bytes) -> str:
        return escape(os.fsencode(self._archive.tree.path_of(where).absolute()))

    def _lose(self, where: bytes, reason: str, consequence: str) -> None:
        self._damage.append(Damage(where, f"{reason} ({consequence})"))


def _is_outdated(version: OlderVersion, known: Known) -> bool:
    """Does it have symlinks or empty directories that were not taken when it was imported?"""
    if not was_only_files(known.origin):
        return False
    try:
        return version.contents.has_links()
    except Refused:
        return False  # it cannot be taken now either
