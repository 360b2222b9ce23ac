"""What is too large to be taken: versions that say where it is, and whether it still is that."""

from __future__ import annotations

import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

from castfs.catalog.words import check_text
from castfs.digest import digest_fd
from castfs.errors import UsageError
from castfs.paths import display
from castfs.repository.drafting import Draft
from castfs.repository.naming import version_word
from castfs.repository.publishing import Details
from castfs.repository.results import ReferenceResult
from castfs.store import Depot, Record
from castfs.store.records import Reference

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CHECKSUM = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*:\S+")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def add_reference(
    depot: Depot, uri: str, *, checksum: str | None, size: int | None, details: Details
) -> ReferenceResult:
    """See `Store.add_reference`."""
    details = details.checked()
    uri = check_uri(uri)
    checksum = None if checksum is None else check_checksum(checksum)
    if size is not None and size < 0:
        raise UsageError("a size is at least 0", hint="give it in bytes")
    with Draft(depot, f"reference {display(uri.encode())}") as draft:
        draft.add_reference(uri, checksum=checksum, size=size)
        published = draft.commit(details, source=uri)
    record = published.record
    return ReferenceResult(
        id=record.id,
        name=record.name,
        version=record.version,
        unchanged=published.unchanged,
        manifest_id=record.manifest,
        references=record.references,
    )


def check_uri(uri: str) -> str:
    """A path without a scheme is a file here, and is recorded from the root on."""
    check_text(uri)
    if not uri.strip() or not uri.isprintable():
        raise UsageError("that is no address", hint="give a path, or one like s3://bucket/data")
    return uri if _SCHEME.match(uri) else os.path.abspath(uri)


def check_checksum(checksum: str) -> str:
    check_text(checksum)
    algorithm, _, digits = checksum.partition(":")
    if algorithm.lower() == "sha256":
        checksum = f"sha256:{digits.lower()}"
        if _SHA256.fullmatch(checksum):
            return checksum
    elif _CHECKSUM.fullmatch(checksum):
        return checksum
    raise UsageError(
        f"{display(checksum.encode())} is no checksum", hint="give sha256: and 64 hex digits"
    )


def local_path(uri: str) -> Path | None:
    """The file here that an address means; None if it means none."""
    if uri.startswith("/"):
        return Path(uri)
    if not uri.lower().startswith("file:"):
        return None
    parts = urllib.parse.urlsplit(uri)
    path = urllib.parse.unquote_to_bytes(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith(b"/") or b"\0" in path:
        return None
    return Path(os.fsdecode(path))


def check_references(records: Iterable[Record], *, data: bool) -> Iterator[tuple[Reference, str]]:
    """(reference, what is wrong with it, in one line) of those that are files here. With `data`
    they are hashed, too."""
    for record in records:
        for reference in record.references:
            path = local_path(reference.uri)
            trouble = _find_trouble(reference, path, data=data) if path is not None else None
            if trouble is not None:
                shown = display(reference.uri.encode())
                word = display(version_word(record).encode())
                yield reference, f"{shown}, which {word} refers to, {trouble}"


def _find_trouble(reference: Reference, path: Path, *, data: bool) -> str | None:
    try:
        # Opening alone does something to a device, or to who waits at the other end of a FIFO.
        if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return "is no file"
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        return f"cannot be read: {getattr(exc, 'strerror', None) or exc}"
    try:
        return _find_difference(reference, fd, data=data)
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    finally:
        os.close(fd)


def _find_difference(reference: Reference, fd: int, *, data: bool) -> str | None:
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        return None  # what a size or checksum of one would be, nobody says
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if reference.size_bytes is not None and status.st_size != reference.size_bytes:
        return f"has {status.st_size:,} bytes instead of {reference.size_bytes:,}"
    checksum = reference.checksum or ""
    if data and _SHA256.fullmatch(checksum.lower()):
        found = digest_fd(fd)
        if checksum.lower() != f"sha256:{found}":
            return f"has the checksum sha256:{found} instead of {checksum}"
    return None
