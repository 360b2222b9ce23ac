"""From a request to something that can be served: pin, read, check, compile."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from castfs import atomic
from castfs.digest import Digest
from castfs.errors import ManifestError, MountError
from castfs.manifest import encode_manifest, iter_references, parse_manifest, read_manifest_bytes
from castfs.mount.request import MountRequest
from castfs.paths import display
from castfs.store import BlobDir, Depot, Pin, open_depot, pin_foreign, pin_manifest
from castfs.store.reading import check_present
from castfs.tree import (
    ManifestFile,
    Presentation,
    TreeIndex,
    index_directories,
    keep_index,
    open_index,
)
from castfs.view import Contents, SnapshotView


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot that is pinned and ready to be served. `pin` is None where there is no store."""

    view: SnapshotView
    contents: Contents
    pin: Pin | None
    keep_index: Callable[[], None]

    def beat(self) -> None:
        """Show that it is in use. OSError if the store cannot be told."""
        self.keep_index()
        if self.pin is not None:
            self.pin.beat()


@contextlib.contextmanager
def loaded(request: MountRequest) -> Iterator[Loaded]:
    """Hold a snapshot for as long as the context lasts.

    Errors as they come from store and manifest; BlobError if a manifest from outside names blobs
    that are not there.
    """
    with contextlib.ExitStack() as stack:
        yield _load(request, stack)


def _load(request: MountRequest, stack: contextlib.ExitStack) -> Loaded:
    depot = open_depot(request.store) if request.store else None
    blobs = stack.enter_context(contextlib.closing(BlobDir(request.blob_dir)))
    pin: Pin | None = None
    raw = b""
    if request.manifest_file is not None:
        raw = read_manifest_bytes(request.manifest_file)
        source = ManifestFile(path=request.manifest_file, sha256=hashlib.sha256(raw).hexdigest())
        key = f"file-{source.sha256}"
        index = _open_index(request, depot, key, source)
    elif depot is not None:
        pin = stack.enter_context(_pin_own(depot, request))
        source = ManifestFile(
            path=depot.manifest_path(Digest(request.manifest_id)), manifest_id=request.manifest_id
        )
        key = request.manifest_id
        index = _open_index(request, depot, key, source)
    else:
        raise MountError("neither a store nor a manifest file was given")
    if index.manifest_id != request.manifest_id:
        raise ManifestError(
            f"the manifest has id {index.manifest_id} instead of {request.manifest_id}",
            hint="was it replaced just now? run the command again",
        )
    if request.manifest_file is not None:
        if depot is not None:
            pieces = _stored_form(raw, index.manifest_id)
            pin = stack.enter_context(pin_foreign(depot, pieces, purpose=_purpose(request)))
        # Nobody promised that the store has them: they may have been collected before the pin.
        check_present(blobs, index.iter_files())
    view = SnapshotView(index)
    keep = functools.partial(keep_index, index_directories(depot), key, _presentation(request))
    return Loaded(view, Contents(view, blobs, verify=request.options.verify), pin, keep)


def _open_index(
    request: MountRequest, depot: Depot | None, key: str, source: ManifestFile
) -> TreeIndex:
    presentation = _presentation(request)
    directories = index_directories(depot)
    if depot is not None and depot.index_dir in directories:
        with contextlib.suppress(OSError):
            atomic.ensure_dir(depot.index_dir, depot.dir_mode, durable=False)
    return open_index(
        directories, key, presentation, lambda file: source.write_index(file, presentation)
    )


def _stored_form(raw: bytes, manifest_id: Digest) -> list[bytes]:
    """A manifest file as the store would have it, for the collector reads nothing else."""
    try:
        for _ in iter_references(manifest_id, [raw]):
            pass
    except ManifestError:
        return list(encode_manifest(parse_manifest(raw)))
    return [raw]


def _pin_own(depot: Depot, request: MountRequest) -> contextlib.AbstractContextManager[Pin]:
    return pin_manifest(
        depot,
        Digest(request.manifest_id),
        purpose=_purpose(request),
        record_id=request.record_id,
    )


def _purpose(request: MountRequest) -> str:
    # A lease is JSON, which has no lone surrogates.
    return f"mount at {display(os.fsencode(request.mountpoint))}"


def _presentation(request: MountRequest) -> Presentation:
    options = request.options
    return Presentation(
        owner=os.getuid(),
        group=os.getgid(),
        uid=options.uid,
        gid=options.gid,
        umask=options.umask,
    )
