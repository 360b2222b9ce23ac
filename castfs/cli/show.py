"""`castfs show`: what is known of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.tables import print_fields
from castfs.cli.units import (
    format_count,
    format_seconds_since_epoch,
    format_size,
    format_time,
)

if TYPE_CHECKING:
    from castfs.repository import Snapshot
    from castfs.store import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A snapshot as `show --json` prints it. `content_bytes` counts each content once; `record` is
    None for a manifest that no record of the store names."""

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


@verb("show")
@snapshot_argument()
@click.option("--manifest", is_flag=True, help="Print the manifest itself.")
@json_option
def command(invocation: Invocation, *, snapshot: str, manifest: bool, as_json: bool) -> None:
    """Show what is known of SNAPSHOT: its record, its sizes, what was skipped.

    \b
    Examples:
      castfs show 0193a7c25d10
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
    description = describe(found)
    if as_json:
        print_document(description)
        return
    print_fields(fields(description))
    if description.record:
        output.lines(
            output.one_line(f"skipped {entry.path}: {entry.reason}")
            for entry in description.record.skipped
        )


def describe(snapshot: Snapshot) -> Description:
    tree = snapshot.manifest.tree
    contents = {file.sha256: file.size_bytes for file in tree.files.values()}
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
        record=snapshot.record,
    )


def fields(shown: Description) -> list[tuple[str, str]]:
    record = shown.record
    rows = [("snapshot", record.id if record else "(no record in the store)")]
    rows.append(("manifest", shown.manifest_id))
    rows.append(("fingerprint", shown.fingerprint))
    if record:
        rows.append(("taken", f"{format_time(record.created_at)} on {record.host}"))
    else:
        rows.append(("created", format_seconds_since_epoch(shown.created_at)))
    rows.append(("source", shown.source))
    if record:
        rows += _record_fields(record)
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


def _record_fields(record: Record) -> list[tuple[str, str]]:
    rows = []
    if record.name:
        version = f":v{record.version}" if record.version is not None else ""
        rows.append(("name", record.name + version))
    if record.tags:
        rows.append(("tags", ", ".join(record.tags)))
    rows += [("meta", f"{key}={value}") for key, value in record.metadata.items()]
    if record.message:
        rows.append(("message", record.message))
    return rows
