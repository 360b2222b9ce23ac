"""`castfs show`: what is known of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.metadata import metadata_rows
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.tables import print_fields
from castfs.cli.units import (
    format_count,
    format_seconds_since_epoch,
    format_size,
    format_time,
)
from castfs.paths import display
from castfs.repository.artifacts import find_standing
from castfs.repository.naming import made_by, version_word

if TYPE_CHECKING:
    from castfs.repository import Snapshot
    from castfs.repository.results import Standing
    from castfs.store import Record
    from castfs.store.records import Reference


#: Files that are listed; all of them are in `--json`, and in `castfs ls -R`.
_FILES_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    path: bytes
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A snapshot as `show --json` prints it. `content_bytes` counts each content once; `record` is
    None for a manifest that no record of the store names. `status` is that of a version."""

    id: str
    manifest_id: str
    fingerprint: str
    source: str
    created_at: float
    file_count: int
    dir_count: int
    symlink_count: int
    total_size_bytes: int
    content_count: int
    content_bytes: int
    store: Path | None
    file: Path | None
    record: Record | None
    status: Literal["ready"] | None
    aliases: tuple[str, ...]
    used_by: tuple[str, ...]
    named_by: tuple[str, ...]
    files: tuple[ListedFile, ...]


@verb("show")
@snapshot_argument()
@click.option("--manifest", is_flag=True, help="Print the manifest itself.")
@json_option
def command(invocation: Invocation, *, snapshot: str, manifest: bool, as_json: bool) -> None:
    """Show what is known of SNAPSHOT: its record, its sizes, its first files, what was skipped.

    Of a version also its aliases, the runs that were given it, and the snapshots whose metadata
    name it. If something that may say more of it cannot be read, the exit code is 5.

    \b
    Examples:
      castfs show 0193a7c25d10
      castfs show resnet:v3
      castfs show sensors:latest --json
      castfs show ./run.json
      castfs show --manifest 0193a7c25d10 > run.json
    """
    if as_json and manifest:
        raise click.UsageError("--manifest is a JSON document already")
    found = invocation.find_snapshot(snapshot)
    if manifest:
        from castfs.manifest import encode_manifest

        for chunk in encode_manifest(found.manifest):
            output.write(chunk)
        return
    standing = find_standing(found.depot, found.record) if found.depot and found.record else None
    description = describe(found, standing)
    if as_json:
        print_document(description)
    else:
        print_fields(fields(description))
        if description.record:
            print_record(description.record)
        print_files(description)
    if standing and standing.damages:
        raise standing.damages[0]


def print_record(record: Record) -> None:
    if record.metadata:
        output.line("metadata")
        print_indented(metadata_rows(record.metadata))
    if record.references:
        output.line("references")
        print_indented([(each.path, describe_reference(each)) for each in record.references])
    output.lines(
        output.one_line(f"skipped {entry.path}: {entry.reason}") for entry in record.skipped
    )


def print_indented(rows: list[tuple[str, str]]) -> None:
    print_fields([(f"  {name}", value) for name, value in rows])


def describe_reference(reference: Reference) -> str:
    size = None if reference.size_bytes is None else format_size(reference.size_bytes)
    return ", ".join(filter(None, [reference.uri, size, reference.checksum]))


def print_files(shown: Description) -> None:
    if not shown.files:
        return
    output.line(f"files ({shown.file_count:,})")
    for file in shown.files[:_FILES_SHOWN]:
        output.line(f"  {display(file.path)} ({format_size(file.size_bytes)})")
    more = shown.file_count - _FILES_SHOWN
    if more > 0:
        output.line(f"  and {more:,} more: castfs ls -R {shown.id[:12]}")


def describe(snapshot: Snapshot, standing: Standing | None) -> Description:
    tree = snapshot.manifest.tree
    contents = {file.sha256: file.size_bytes for file in tree.files.values()}
    record = snapshot.record
    return Description(
        id=snapshot.id,
        manifest_id=snapshot.manifest.id,
        fingerprint=snapshot.manifest.fingerprint,
        source=snapshot.record.source if snapshot.record else snapshot.manifest.source_path,
        created_at=snapshot.manifest.created_at,
        file_count=len(tree.files),
        dir_count=len(tree.dirs),
        symlink_count=len(tree.symlinks),
        total_size_bytes=tree.total_size_bytes,
        content_count=len(contents),
        content_bytes=sum(contents.values()),
        store=snapshot.depot.path if snapshot.depot else None,
        file=snapshot.file,
        record=record,
        status="ready" if record and record.version is not None else None,
        aliases=standing.aliases if standing else (),
        used_by=standing.used_by if standing else (),
        named_by=standing.named_by if standing else (),
        files=tuple(
            ListedFile(path=path, size_bytes=file.size_bytes, sha256=file.sha256)
            for path, file in tree.files.items()
        ),
    )


def fields(shown: Description) -> list[tuple[str, str]]:
    record = shown.record
    rows = [("snapshot", record.id if record else "(no record in the store)")]
    rows.append(("manifest", shown.manifest_id))
    rows.append(("fingerprint", shown.fingerprint))
    if record:
        rows.append(("taken", f"{format_time(record.created_at)} by {made_by(record)}"))
    else:
        rows.append(("created", format_seconds_since_epoch(shown.created_at)))
    rows.append(("source", shown.source))
    if record:
        rows += _record_fields(record, shown)
    if shown.store:
        rows.append(("store", str(shown.store)))
    if shown.file:
        rows.append(("file", str(shown.file)))
    kinds = [
        format_count(shown.file_count, "file"),
        format_count(shown.dir_count, "directory", "directories"),
        format_count(shown.symlink_count, "symlink"),
    ]
    rows.append(("entries", ", ".join(kinds)))
    rows.append(
        ("size", f"{format_size(shown.total_size_bytes)} ({shown.total_size_bytes:,} bytes)")
    )
    rows.append(
        ("contents", f"{shown.content_count:,} different, {format_size(shown.content_bytes)}")
    )
    if record and record.skipped:
        rows.append(("skipped", format_count(len(record.skipped), "entry", "entries")))
    return rows


def _record_fields(record: Record, shown: Description) -> list[tuple[str, str]]:
    rows = []
    if record.name:
        rows.append(("name", version_word(record)))
    if record.type:
        rows.append(("type", record.type))
    if shown.status:
        rows.append(("status", shown.status))
    if record.run:
        rows.append(("created by", f"run {record.run}"))
    if shown.aliases:
        rows.append(("aliases", ", ".join(shown.aliases)))
    if shown.used_by:
        rows.append(("used by", ", ".join(shown.used_by)))
    if shown.named_by:
        rows.append(("named by", ", ".join(shown.named_by)))
    if record.tags:
        rows.append(("tags", ", ".join(record.tags)))
    if record.message:
        rows.append(("message", record.message))
    return rows
