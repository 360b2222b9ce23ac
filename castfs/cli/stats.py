"""`castfs stats`: what the store holds."""

from __future__ import annotations

from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.tables import print_fields
from castfs.cli.units import format_count, format_size


@verb("stats")
@json_option
def command(invocation: Invocation, *, as_json: bool) -> None:
    """Show what the store holds, and what is saved by storing each content once.

    \b
    Examples:
      castfs stats
      castfs stats --store /data/castfs --json
    """
    stats = invocation.open_store().stats()
    if as_json:
        print_document(stats)
        return
    print_fields(
        [
            ("store", str(stats.store)),
            ("snapshots", f"{stats.snapshot_count:,}, and {stats.trash_count:,} in the trash"),
            ("manifests", f"{stats.manifest_count:,}, {format_size(stats.manifest_bytes)}"),
            (
                "contents",
                f"{format_count(stats.blob_count, 'blob')}, {format_size(stats.blob_bytes)}",
            ),
            ("snapshots' sizes", f"{format_size(stats.logical_bytes)} in all"),
            ("saved", format_size(stats.saved_bytes)),
        ]
    )
