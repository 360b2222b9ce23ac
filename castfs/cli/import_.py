"""`castfs import`: a manifest file into the store's records."""

from __future__ import annotations

from pathlib import Path

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.progress import progress_bar
from castfs.cli.units import format_count, format_size
from castfs.cli.words import PATH


@verb("import")
@click.argument("file", metavar="FILE", type=PATH)
@click.option("-q", "--quiet", is_flag=True, help="Print the snapshot's id alone.")
@json_option
def command(invocation: Invocation, *, file: Path, quiet: bool, as_json: bool) -> None:
    """Record manifest FILE as a snapshot of the store.

    A manifest file is a copy that keeps nothing alive; a snapshot does. Contents that the store
    lacks are copied from the store, or the older archive, that FILE lies in. The manifests of
    older formats are read too.

    \b
    Examples:
      castfs import run.json
      castfs import /mnt/disk/archive/manifests/run_001.json --store /data/castfs
    """
    refuse_both(as_json, quiet)
    store = invocation.open_store()
    with progress_bar(quiet=quiet) as progress:
        result = store.import_manifest(file, progress=progress)
    if as_json:
        print_document(result)
    elif quiet:
        output.line(result.id)
    else:
        output.line(f"snapshot {result.id}")
        output.line(
            f"manifest {result.manifest_id}" + ("" if result.new_manifest else " (as before)")
        )
        output.line(
            f"added {format_count(result.added_count, 'blob')}, {format_size(result.added_bytes)}"
        )
