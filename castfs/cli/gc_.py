"""`castfs gc`: one collection, or one every so often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.progress import progress_bar
from castfs.cli.tables import print_fields
from castfs.cli.units import format_count, format_duration, format_size
from castfs.cli.words import DURATION

if TYPE_CHECKING:
    from castfs.gc import Amount, GcOptions, GcResult

#: What frees what each of them keeps.
ADVICE = {
    "snapshots": "",
    "trash": "`castfs gc --trash-age 0s` empties the trash",
    "readers": "until they end: `castfs mounts`, `castfs umount`",
    "ingests": "until they end",
    "grace": "`castfs gc --grace 0s` frees what is not needed of it",
}


@verb("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--grace",
    type=DURATION,
    default="1h",
    show_default=True,
    metavar="AGE",
    help="Delete only what is older.",
)
@click.option(
    "--trash-age",
    type=DURATION,
    default="30d",
    show_default=True,
    metavar="AGE",
    help="Snapshots that were removed so long ago leave the trash for good.",
)
@click.option("--every", type=DURATION, metavar="TIME", help="Go on, with a round every so often.")
@click.option(
    "--force", is_flag=True, help="Collect although no snapshot, mount or ingest is left."
)
@click.option(
    "--network-store",
    is_flag=True,
    help="The store is on a network filesystem, whose locks work on all machines.",
)
@json_option
def command(
    invocation: Invocation,
    *,
    dry_run: bool,
    grace: float,
    trash_age: float,
    every: float | None,
    force: bool,
    network_store: bool,
    as_json: bool,
) -> int:
    """Free what no snapshot, mount or running ingest needs. Others may go on working meanwhile.

    Snapshots in the trash keep their contents until they leave it. If anything that might lead to
    contents cannot be read, nothing is deleted and the message names it.

    \b
    Examples:
      castfs gc --dry-run
      castfs gc
      castfs gc --trash-age 0s --grace 0s      everything that can be freed now
      castfs gc --every 6h                     as a service; ends on SIGTERM
    """
    from castfs.gc import GcOptions

    options = GcOptions(
        grace_seconds=grace, trash_age_seconds=trash_age, force=force, network_store=network_store
    )
    if every is not None:
        if dry_run or every < 1:
            raise click.UsageError("--every needs a time of 1s at least, and no --dry-run")
        from castfs.cli.rounds import run_rounds

        return run_rounds(
            lambda: collect(invocation, options, as_json=as_json, dry_run=False), every
        )
    collect(invocation, options, as_json=as_json, dry_run=dry_run)
    return 0


def collect(
    invocation: Invocation, options: GcOptions, *, as_json: bool, dry_run: bool
) -> GcResult:
    store = invocation.open_store()
    with progress_bar() as progress:
        run = store.plan_gc if dry_run else store.gc
        result = run(options, progress=progress)
    if as_json:
        print_document(result)
    else:
        print_result(result)
    output.flush()
    return result


def print_result(result: GcResult) -> None:
    would = "would be " if result.dry_run else ""
    manifests = format_count(result.deleted_manifests, "manifest")
    rows = [
        ("snapshots", f"{result.snapshot_count:,}, and {result.trash_count:,} in the trash"),
        ("scanned", blobs(result.scanned)),
        (
            f"{would}deleted",
            f"{blobs(result.deleted)} freed, {manifests}",
        ),
    ]
    if result.expired:
        rows.append((f"{would}expired", format_count(len(result.expired), "deleted snapshot")))
    if result.held:
        rows.append(("held", f"{format_count(len(result.held), 'deleted snapshot')} being read"))
    if result.unfinished.count:
        text = (
            format_count(result.unfinished.count, "file")
            + f", {format_size(result.unfinished.bytes)}"
        )
        rows.append(("unfinished", f"{text} of writers that died {would}removed"))
    for keeper, amount in result.kept.items():
        if amount.count or keeper == "snapshots":
            advice = f" ({ADVICE[keeper]})" if ADVICE[keeper] else ""
            rows.append((f"kept by {keeper}", blobs(amount) + advice))
    rows.append(("time", format_duration(result.seconds)))
    print_fields(rows)
    for path in result.left:
        output.note(f"{path}: left by a writer that died, and not yours to remove")


def blobs(amount: Amount) -> str:
    return f"{format_count(amount.count, 'blob')}, {format_size(amount.bytes)}"
