"""Does every record lead to a manifest, and every manifest to blobs of the right size?"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from castfs.digest import Digest
from castfs.errors import CastfsError, DamageError
from castfs.manifest import Manifest, content_id, decode_stored
from castfs.paths import display
from castfs.progress import Progress
from castfs.store import Depot, Record, pin_manifest
from castfs.store.locks import open_lock
from castfs.store.roots import RootNames, list_roots
from castfs.store.trash import iter_trash
from castfs.verify.hashing import hash_batch


@dataclass(slots=True)
class Structure:
    """What was found. `bad_sizes` are digests that are missing (None) or of another size than the
    manifests say; `wanted` has the size of each content that was asked for."""

    records: dict[str, list[str]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    bad_manifests: dict[str, str] = field(default_factory=dict)
    #: By the ids of records: what they say that their trees are, without times.
    contents: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    bad_sizes: dict[str, int | None] = field(default_factory=dict)


def check_structure(depot: Depot, chosen: Container[str] | None, progress: Progress) -> Structure:
    """Look at the records with `chosen` ids (None: all), also in the trash, and all they need."""
    found = Structure()
    damaged: list[DamageError] = []
    for record in iter_all_records(depot, damaged):
        if chosen is None or record.id in chosen:
            found.records.setdefault(record.manifest, []).append(record.id)
            if record.content is not None:
                found.contents[record.id] = record.content
    if chosen is None:
        found.messages += [str(error) for error in damaged]
        with contextlib.suppress(CastfsError), depot.locks.shared():
            try:
                found.messages += _find_odd_roots(depot, list_roots(depot))
            except DamageError as exc:
                found.messages.append(str(exc))
    progress.phase("reading snapshots", total=len(found.records))
    for manifest_id in list(found.records):
        check_manifest(depot, Digest(manifest_id), found)
        progress.advance(1)
    return found


def iter_all_records(depot: Depot, damaged: list[DamageError]) -> Iterator[Record]:
    """Live records, the trash, and live ones again: what is moved meanwhile is in one of them."""
    seen = set()
    trashed = (each.record for each in iter_trash(depot, damaged))
    for record in itertools.chain(depot.iter_records(damaged), trashed, depot.iter_records([])):
        if record.id not in seen:
            seen.add(record.id)
            yield record


def _find_odd_roots(depot: Depot, roots: RootNames) -> Iterator[str]:
    """What looks as if it were gone or nothing to read, but stops the collector."""
    paths = [depot.snapshots_dir / name for name in sorted(roots.records)]
    paths += [depot.trash_dir / name for name in sorted(roots.trash)]
    for path in paths:
        if path.is_symlink() and not path.exists():
            yield f"{display(os.fsencode(path))} is a symlink that leads nowhere"
    for path in [depot.leases_dir / name for name in sorted(roots.leases)]:
        shown = display(os.fsencode(path))
        try:
            fd = open_lock(path)
        except FileNotFoundError:
            if path.is_symlink():
                yield f"{shown} is a symlink that leads nowhere"
        except OSError as exc:
            yield f"{shown} cannot be opened: {exc.strerror}"
        else:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            os.close(fd)
            if not is_file:
                yield f"{shown} is no file"


def check_manifest(depot: Depot, manifest_id: Digest, found: Structure) -> None:
    """Held while its blobs are looked at, so that what is missing was not just collected."""
    try:
        with pin_manifest(depot, manifest_id, purpose="verify"):
            manifest = decode_stored(depot.read_manifest(manifest_id), manifest_id)
            _check_presence(depot, manifest, found)
            _check_content(manifest, found)
    except DamageError as exc:
        if any(_is_recorded(depot, record_id) for record_id in found.records[manifest_id]):
            found.bad_manifests[manifest_id] = str(exc)
        else:
            del found.records[manifest_id]  # removed and collected meanwhile


def _is_recorded(depot: Depot, record_id: str) -> bool:
    return depot.record_path(record_id).exists() or any(
        each.record.id == record_id for each in iter_trash(depot, [])
    )


def _check_presence(depot: Depot, manifest: Manifest, found: Structure) -> None:
    for file in manifest.tree.files.values():
        digest = file.sha256
        if digest not in found.wanted:
            found.wanted[digest] = file.size_bytes
            actual = depot.blobs.size(digest)
            if actual != file.size_bytes:
                found.bad_sizes[digest] = actual
        actual = found.bad_sizes.get(digest, found.wanted[digest])
        if actual is not None and actual != file.size_bytes and _is_sound(depot, file.digest):
            found.bad_sizes.pop(digest, None)
            found.wanted[digest] = actual
            raise DamageError(
                f"manifest {manifest.id} says that content {digest} has {file.size_bytes:,} bytes; "
                f"it has {actual:,}"
            )


def _check_content(manifest: Manifest, found: Structure) -> None:
    """An ingest would be told that nothing has changed, and keep nothing."""
    ids = [record_id for record_id in found.records[manifest.id] if record_id in found.contents]
    actual = content_id(manifest.tree) if ids else ""
    found.messages += [
        f"snapshot {record_id} says of its tree what is not so: its content is {actual}"
        for record_id in ids
        if found.contents[record_id] != actual
    ]


def _is_sound(depot: Depot, digest: Digest) -> bool:
    answer = hash_batch(depot.blobs, [digest])
    return answer.count == 1 and not answer.suspects
