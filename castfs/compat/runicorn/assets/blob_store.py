"""A directory of blobs, `<aa>/<sha256>`, one file for each content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, overload

from castfs.compat.runicorn import runs
from castfs.compat.runicorn.assets.failures import BadDigestError, NoBlobError, WrongKindError
from castfs.compat.runicorn.assets.writing import BlobWriter
from castfs.digest import Digest, parse_digest
from castfs.errors import UnreadableError
from castfs.ingest.reading import Unreadable, take_file
from castfs.ingest.sink import StoreSink
from castfs.paths import display
from castfs.store import BlobDir
from castfs.store.reading import iter_blob


@overload
def store_blob(src_path: Path, blob_root: Path) -> str: ...
@overload
def store_blob(file_path: str) -> str: ...
def store_blob(*args: Any, **kwargs: Any) -> str:
    """Store a file's content; its SHA-256. Content that is there is not stored twice.

    With `blob_root` into that directory, without it as the open run's `store_blob`. A symlink
    stores what it leads to. ValueError if that is no regular file. A blob that is there with other
    bytes than its name says is replaced.
    """
    if len(args) + len(kwargs) == 1:
        return runs.active_run().store_blob(*args, **kwargs)
    return _store_in(*args, **kwargs)


def _store_in(src_path: Path, blob_root: Path) -> str:
    src = Path(src_path)
    if not src.is_file():
        raise WrongKindError(f"store_blob expects a file, got: {src}")
    parent, name = os.path.split(os.path.realpath(os.fsencode(src)))
    parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with BlobWriter(Path(blob_root)) as writer:
            return take_file(parent_fd, name, StoreSink(writer.staging), xattrs=False).sha256
    except Unreadable as exc:
        shown = display(os.fsencode(src))
        raise UnreadableError(
            f"cannot read {shown}: {exc.reason}; nothing was stored", [(name, exc.reason)]
        ) from exc
    finally:
        os.close(parent_fd)


@overload
def get_blob_path(sha256: str, blob_root: Path) -> Path: ...
@overload
def get_blob_path(blob_id: str) -> str: ...
def get_blob_path(*args: Any, **kwargs: Any) -> Path | str:
    """Where the blob lies, or would lie, in `blob_root`; without that, in the open run's store.
    ValueError unless it is named by 64 lower-case hexadecimal digits."""
    if len(args) + len(kwargs) == 1:
        return os.fspath(runs.active_run().get_blob_path(*args, **kwargs))
    return _path_in(*args, **kwargs)


def _path_in(sha256: str, blob_root: Path) -> Path:
    return Path(blob_root) / BlobDir.name(check_digest(sha256))


def check_digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except (ValueError, TypeError) as exc:
        raise BadDigestError(str(exc), hint="give what store_blob returned") from exc


def blob_exists(sha256: str, blob_root: Path) -> bool:
    """Is there such a blob? Its content is not looked at."""
    try:
        return find_size(sha256, blob_root) is not None
    except BadDigestError:
        return False


def find_size(sha256: str, blob_root: Path) -> int | None:
    """A blob's size in bytes; None if it is not there. BadDigestError."""
    digest = check_digest(sha256)
    if not Path(blob_root).is_dir():
        return None
    blobs = BlobDir(Path(blob_root))
    try:
        return blobs.size(digest)
    finally:
        blobs.close()


def read_blob(sha256: str, blob_root: Path) -> bytes:
    """A blob's content, verified. FileNotFoundError if it is not there, BlobError if it is damaged,
    ValueError for what is no digest."""
    digest = check_digest(sha256)
    size = find_size(digest, blob_root)
    if size is None:
        raise missing_blob(digest, blob_root)
    blobs = BlobDir(Path(blob_root))
    try:
        return b"".join(map(bytes, iter_blob(blobs, digest.encode(), digest, size)))
    finally:
        blobs.close()


def missing_blob(digest: Digest, blob_root: Path) -> NoBlobError:
    return NoBlobError(
        f"Blob not found: {digest} in {blob_root}",
        digest=digest,
        hint="store the same file again",
    )


def get_blob_stats(blob_root: Path) -> dict[str, Any]:
    """`blob_count` and `total_size_bytes`; zeros where there is no such directory."""
    root = Path(blob_root)
    if not root.is_dir():
        return {"blob_count": 0, "total_size_bytes": 0}
    blobs = BlobDir(root)
    try:
        sizes = [status.st_size for _, status in blobs.iter_blobs()]
    finally:
        blobs.close()
    return {"blob_count": len(sizes), "total_size_bytes": sum(sizes)}
