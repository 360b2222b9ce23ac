"""Snapshot records: small JSON files that say when, from where and as what a tree was taken."""

from __future__ import annotations

import os
import pwd
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from castfs.errors import DamageError, UsageError

FORMAT = "castfs-snapshot"


#: As many digits as a word like `NAME:v3` may have.
VERSION_MAX = 10**15 - 1
VersionNumber = Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]


class Skipped(msgspec.Struct, frozen=True):
    """An entry that was not taken: escaped path, and why."""

    path: str
    reason: str


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was too large to be taken: where it is, and how to know it again. `path` is
    the entry of the tree that describes it, escaped."""

    uri: str
    path: str
    checksum: str | None = None
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One snapshot. `id` sorts by time and is unique; `created_at` is RFC 3339 in UTC.

    `content` is the digest of the tree without its times (see `castfs.manifest.content_id`).
    """

    format: Literal["castfs-snapshot"] = "castfs-snapshot"
    record_version: Literal[1] = 1
    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{24}\Z")]
    manifest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    created_at: str
    host: str
    user: str | None = None
    source: str
    file_count: Annotated[int, msgspec.Meta(ge=0)]
    total_size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    name: str | None = None
    version: VersionNumber | None = None
    type: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    message: str | None = None
    run: str | None = None
    content: str | None = None
    references: tuple[Reference, ...] = ()
    skipped: tuple[Skipped, ...] = ()


_decoder = msgspec.json.Decoder(Record)


def user_name() -> str:
    """Who runs this; the number of one without a name, as containers have."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def new_record_id(now_ns: int | None = None) -> str:
    """24 hex digits: milliseconds since the epoch (12), then 48 random bits."""
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    return f"{milliseconds:012x}{secrets.token_hex(6)}"


def format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def encode_record(record: Record) -> bytes:
    """UsageError for what `decode_record` would not read again."""
    try:
        raw = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
        _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError) as exc:
        raise UsageError(f"this cannot be recorded: {exc}", hint="give what JSON can hold") from exc
    return raw


def decode_record(raw: bytes, *, record_id: str, where: str) -> Record:
    """DamageError names `where` if the file is not the record `record_id`."""
    try:
        record = _decoder.decode(raw)
        if record.id != record_id:
            raise msgspec.DecodeError(f"it is record {record.id}")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise DamageError(
            f"snapshot record {where} cannot be read: {exc}",
            hint="restore the file from a backup, or move it away to give the snapshot up",
        ) from exc
    return record
