"""From a request to something that can be served: pin, read, check, compile."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass

from castfs.digest import Digest
from castfs.errors import ManifestError, MountError
from castfs.manifest import decode_manifest, encode_manifest, read_manifest_file
from castfs.mount.request import MountRequest
from castfs.paths import display
from castfs.store import BlobDir, Depot, Pin, open_depot, pin_foreign, pin_manifest
from castfs.store.reading import check_present
from castfs.tree import Presentation, compile_tree
from castfs.view import Contents, SnapshotView


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot that is pinned and ready to be served. `pin` is None where there is no store."""

    view: SnapshotView
    contents: Contents
    pin: Pin | None


@contextlib.contextmanager
def loaded(request: MountRequest) -> Iterator[Loaded]:
    """Hold a snapshot for as long as the context lasts.

    Errors as they come from store and manifest; BlobError if a manifest from outside names blobs
    that are not there.
    """
    with contextlib.ExitStack() as stack:
        with _without_collector():
            result = _load(request, stack)
        yield result


def _load(request: MountRequest, stack: contextlib.ExitStack) -> Loaded:
    depot = open_depot(request.store) if request.store else None
    blobs = stack.enter_context(contextlib.closing(BlobDir(request.blob_dir)))
    pin: Pin | None = None
    if request.manifest_file is not None:
        manifest = read_manifest_file(request.manifest_file)
        if depot is not None:
            chunks = list(encode_manifest(manifest))
            pin = stack.enter_context(pin_foreign(depot, chunks, purpose=_purpose(request)))
        # Nobody promised that the store has them: they may have been collected before the pin.
        files = manifest.tree.files
        check_present(blobs, ((p, f.digest, f.size_bytes) for p, f in files.items()))
    elif depot is not None:
        pin = stack.enter_context(_pin_own(depot, request))
        manifest = decode_manifest(depot.read_manifest(Digest(request.manifest_id)))
    else:
        raise MountError("neither a store nor a manifest file was given")
    if manifest.id != request.manifest_id:
        raise ManifestError(
            f"the manifest has id {manifest.id} instead of {request.manifest_id}",
            hint="was it replaced just now? run the command again",
        )
    view = SnapshotView(compile_tree(manifest.tree, _presentation(request)))
    return Loaded(view, Contents(view, blobs, verify=request.options.verify), pin)


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


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Building millions of objects that all stay would make Python's collector look at them again
    and again: a third of the time. What exists when serving begins is never looked at."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
