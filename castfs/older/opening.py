"""An older archive as one thing: what it is, its versions, its runs, and what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from castfs.older.artifacts import Artifacts
from castfs.older.assets import Assets
from castfs.older.description import Damage, Key, OlderRun, OlderVersion, Renamed
from castfs.older.detecting import Format, Layout, check_format, find_layout, only_blobs
from castfs.older.guarded import SourceTree
from castfs.older.loose import check_named_by_sha256, find_blobs, make_loose_version
from castfs.older.namer import Namer
from castfs.older.runs import (
    RunPlace,
    describe_run,
    find_runs,
    iter_named_artifacts,
    read_if_there,
)


@dataclass
class Findings:
    """Grows while an archive is read."""

    damage: list[Damage] = field(default_factory=list)
    renamed: list[Renamed] = field(default_factory=list)


class OlderArchive:
    """A directory that an older system wrote. A context manager; nothing in it is changed.

    Iterate over the versions first and then over the runs: what a run used is known by then.
    """

    def __init__(self, root: Path, wanted: str | None = None) -> None:
        """NotFoundError if it is no archive, or none of that format."""
        format = check_format(wanted, root)
        self.findings = Findings()
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.tree = stack.enter_context(SourceTree(root))
            self._layout = find_layout(self.tree, format, self.findings.damage)
            if (blobs := only_blobs(self.tree, self._layout)) is not None:
                check_named_by_sha256(self.tree, blobs)
            self._cleanup = stack.pop_all()
        namer = Namer(self.findings.renamed)
        self._namer = namer
        self._runs: list[RunPlace] = []
        layout, damage = self._layout, self.findings.damage
        self._has_assets = format != "runicorn-artifacts"
        self._assets = Assets(self.tree, layout.archive, namer, damage)
        self._artifacts = None
        if layout.artifacts is not None:
            self._artifacts = Artifacts(
                self.tree, layout.artifacts, namer, damage, self.findings.renamed
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    @property
    def format(self) -> Format:
        format = self._layout.format
        assert format is not None
        return format

    def iter_versions(self) -> Iterator[OlderVersion]:
        """Artifacts, then what runs name in the order of the runs, then what nothing names."""
        layout = self._layout
        if layout.blobs is not None:
            yield from self._iter_blobs(layout)
            return
        if self._artifacts is not None:
            yield from self._artifacts.iter_versions()
        if layout.runs:
            self._runs = find_runs(self.tree, self.findings.damage)
        if self._has_assets:
            # Without an archive a run may still have its code, and names its datasets.
            yield from self._assets.iter_versions(self._runs)

    def _iter_blobs(self, layout: Layout) -> Iterator[OlderVersion]:
        assert layout.blobs is not None
        blobs = find_blobs(self.tree, layout.blobs, self.findings.damage)
        yield make_loose_version(self.tree, layout.blobs, blobs, self._namer)

    def iter_runs(self) -> Iterator[OlderRun]:
        """The runs, the oldest first."""
        for place in self._runs:
            links = self._assets.links_of(place)
            created = self._named(place, b"artifacts_created.json")
            used = self._named(place, b"artifacts_used.json")
            yield describe_run(
                self.tree,
                place,
                created=(*created, *dict.fromkeys(links.created)),
                used=(*used, *dict.fromkeys(links.used)),
                damage=self.findings.damage,
            )

    def _named(self, place: RunPlace, document: bytes) -> tuple[Key, ...]:
        if self._artifacts is None:
            return ()
        said = read_if_there(self.tree, place.where, document, place.files, self.findings.damage)
        find_key = self._artifacts.find_key
        return tuple(dict.fromkeys(find_key(*named) for named in iter_named_artifacts(said)))


def open_archive(root: Path, *, format: str | None = None) -> OlderArchive:
    """NotFoundError, UsageError, SourceError."""
    return OlderArchive(root, format)
