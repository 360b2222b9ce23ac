"""What of an archive is needed: by every manifest in it, and by every run.

A manifest or an `assets.json` that cannot be read may need anything, so it stops what asks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from castfs.compat.runicorn.assets.layout import (
    ASSETS,
    Asset,
    RunDir,
    digests_in,
    find_in_archive,
    iter_assets,
    iter_run_dirs,
    read_assets,
)
from castfs.errors import CastfsError, DamageError
from castfs.manifest import read_manifest_file
from castfs.paths import display

_STOPPED = "nothing is deleted as long as that is so: repair it, or move it out of the archive"
#: What a writer that was killed has left: castfs's, Runicorn's, and a network filesystem's.
_UNFINISHED = re.compile(r"tmp-[0-9a-f]{16}|\..*\.tmp|\.nfs.*")


@dataclass
class Needs:
    """What the rest of an archive holds on to. `assets` are the identities of runs' assets,
    `manifests` the files that they name, `digests` the blobs that anything names."""

    assets: set[tuple[str, str]] = field(default_factory=set)
    manifests: set[Path] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)


def iter_manifests(archive_root: Path) -> Iterator[Path]:
    """Every manifest of an archive. DamageError if there is something else, or it is unreadable."""
    top = archive_root / "manifests"
    if not os.path.lexists(top):
        return

    def fail(exc: OSError) -> None:
        raise _stopped(Path(str(exc.filename)), exc.strerror or str(exc)) from exc

    for parent, dirs, names in os.walk(top, onerror=fail):
        for name in dirs:
            if os.path.islink(os.path.join(parent, name)):
                raise _stopped(Path(parent, name), "a symlink to a directory")
        for name in names:
            path = Path(parent, name)
            if _UNFINISHED.fullmatch(name):
                continue
            if path.suffix != ".json":
                raise _stopped(path, "no manifest")
            yield path


def _stopped(path: Path, reason: str) -> DamageError:
    return DamageError(f"{display(os.fsencode(path))}: {reason}", hint=_STOPPED)


def read_digests(manifest: Path) -> dict[str, int]:
    """digest → size of what a manifest names. DamageError."""
    try:
        tree = read_manifest_file(manifest).tree
    except CastfsError as exc:
        raise DamageError(exc.message, hint=_STOPPED) from exc
    return {file.sha256: file.size_bytes for file in tree.files.values()}


def read_run(run: RunDir) -> list[Asset]:
    """The assets of a run; none where it has no `assets.json`. DamageError."""
    path = run.path / ASSETS
    if not os.path.lexists(path):
        return []
    return list(iter_assets(read_assets(path)))


def locate_manifest(archive_root: Path, asset: Asset) -> Path | None:
    """The manifest file that an asset names, where it lies now."""
    if not asset.is_manifest:
        return None
    found = find_in_archive(archive_root, asset.archive_path or "")
    return found if found is not None and found.is_file() else None


def find_needs(
    storage_root: Path,
    *,
    without_run: str | None = None,
    is_doomed: Callable[[Path, Needs], bool] = lambda manifest, needs: False,
) -> Needs:
    """All that is needed by runs but `without_run`, and by manifests but those that `is_doomed`
    when the runs are known. DamageError."""
    archive_root = storage_root / "archive"
    needs = Needs()
    try:
        for run in iter_run_dirs(storage_root):
            if run.run_id == without_run:
                continue
            needs.digests |= digests_in(run.path)
            for asset in read_run(run):
                needs.assets.add(asset.identity)
                if asset.fingerprint is not None:
                    needs.fingerprints.add(asset.fingerprint)
                if (path := locate_manifest(archive_root, asset)) is not None:
                    needs.manifests.add(path)
    except OSError as exc:
        raise _stopped(Path(str(exc.filename)), exc.strerror or str(exc)) from exc
    for path in iter_manifests(archive_root):
        if not is_doomed(path, needs):
            needs.digests.update(read_digests(path))
    return needs
