"""`castfs rm`: snapshots into the trash, or away for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_arguments
from castfs.cli.units import format_count
from castfs.repository.naming import describe_record

if TYPE_CHECKING:
    from castfs.store import Record


@verb("rm")
@snapshot_arguments()
@click.option("--all-versions", is_flag=True, help="All that the names have, each.")
@click.option("--force", is_flag=True, help="Also what an alias or a run uses.")
@click.option("--permanent", is_flag=True, help="Delete for good, also what is in the trash.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting for good.")
@json_option
def command(
    invocation: Invocation,
    *,
    snapshots: tuple[str, ...],
    all_versions: bool,
    force: bool,
    permanent: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Move snapshots to the trash, from where `castfs undelete` brings them back.

    Contents stay until `castfs gc` finds that nothing needs them; what is in the trash leaves it 30
    days later (`castfs gc --trash-age`). A word that means several snapshots is refused; with
    --all-versions each word is a name, and all its versions go. If an alias means one of them, or a
    run was given one, nothing is removed without --force (exit code 11). The number of a version is
    never given again. A manifest file stands for the snapshot of its tree; the file itself stays.

    \b
    Examples:
      castfs rm 0193a7c25d10 sensors:latest
      castfs rm ./run.json
      castfs rm --all-versions old-model
      castfs rm --permanent --yes 0193a7c25d10
    """
    store = invocation.open_store()
    if not permanent:
        records = store.remove(*snapshots, all_versions=all_versions, force=force)
        if as_json:
            print_document(records)
        for record in records:
            output.note(f"in the trash: {describe_record(record)}")
        return
    from castfs.repository.removing import find_for_good, remove_for_good

    records = find_for_good(store.depot, snapshots, all_versions=all_versions)
    if not yes:
        confirm(records)
    remove_for_good(store.depot, records, force=force)
    if as_json:
        print_document(records)
    for record in records:
        output.note(f"deleted: {describe_record(record)}")
    output.note("`castfs gc` frees what nothing else needs of them")


def confirm(records: Sequence[Record]) -> None:
    for record in records:
        output.note(describe_record(record))
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("--permanent asks first, and nobody can answer here; give --yes")
    question = f"Delete {format_count(len(records), 'snapshot')} for good?"
    click.confirm(question, abort=True, err=True)
