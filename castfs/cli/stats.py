"""`castfs stats`: what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.tables import print_fields, print_table
from castfs.cli.units import format_count, format_size

if TYPE_CHECKING:
    from castfs.repository.results import StoreStats


@verb("stats")
@json_option
def command(invocation: Invocation, *, as_json: bool) -> None:
    """Show what the store holds, and what is saved by storing each content once.

    What is saved is also given as a part of the snapshots' sizes. References (`castfs reference`)
    lie elsewhere, so neither counts them.

    \b
    Examples:
      castfs stats
      castfs stats --store /data/castfs --json
    """
    stats = invocation.open_store().stats()
    if as_json:
        print_document(stats)
        return
    print_fields(fields(stats))
    if any(each.type is not None for each in stats.types):
        output.line()
        print_table(
            ("TYPE", ">NAMES", ">SNAPSHOTS", ">SIZE"),
            [
                (
                    each.type or "",
                    f"{each.name_count:,}",
                    f"{each.snapshot_count:,}",
                    format_size(each.size_bytes),
                )
                for each in stats.types
            ],
        )


def fields(stats: StoreStats) -> list[tuple[str, str]]:
    rows = [
        ("store", str(stats.store)),
        ("names", f"{stats.name_count:,}, {format_count(stats.version_count, 'version')}"),
        ("snapshots", f"{stats.snapshot_count:,}, and {stats.trash_count:,} in the trash"),
        ("manifests", f"{stats.manifest_count:,}, {format_size(stats.manifest_bytes)}"),
        ("contents", f"{format_count(stats.blob_count, 'blob')}, {format_size(stats.blob_bytes)}"),
        ("snapshots' sizes", f"{format_size(stats.logical_bytes)} in all"),
        ("saved", f"{format_size(stats.saved_bytes)} ({stats.saved_ratio:.1%})"),
    ]
    if stats.reference_count:
        size = format_size(stats.reference_bytes)
        rows.append(("references", f"{stats.reference_count:,}, {size} elsewhere"))
    return rows
