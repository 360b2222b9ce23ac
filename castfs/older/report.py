"""What an import tells when it is done: frozen, and printed as it is under `--json`."""

from __future__ import annotations

from dataclasses import dataclass

from castfs.older.description import Damage, Renamed
from castfs.older.detecting import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedVersion:
    """A version that is in the store now; a manifest file has no name. `lacks` counts what was
    damaged of it."""

    id: str
    name: str | None
    version: int | None
    type: str | None
    older_name: str
    older_version: int | None
    file_count: int
    size_bytes: int
    lacks: int
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """`unchanged` counts the versions that an earlier import brought; `damage` lists what could not
    be taken, `skipped` what is empty. Everything else was."""

    format: Format
    versions: tuple[ImportedVersion, ...]
    unchanged: int
    runs: int
    runs_unchanged: int
    renamed: tuple[Renamed, ...]
    damage: tuple[Damage, ...]
    skipped: tuple[Damage, ...]

    @property
    def exit_code(self) -> int:
        """0; 5 for damage; 3 if entries were skipped."""
        if self.damage:
            return 5
        return 3 if self.skipped else 0
