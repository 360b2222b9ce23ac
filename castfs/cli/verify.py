"""`castfs verify`: is the store whole? The exit code tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from castfs.cli import output
from castfs.cli.documents import plain, print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.progress import progress_bar
from castfs.cli.snapshot_word import snapshot_arguments
from castfs.cli.units import format_count, format_duration, format_size
from castfs.cli.words import PATH, WHEN
from castfs.paths import display

if TYPE_CHECKING:
    from castfs.verify import VerifyResult

EXIT_CODES = {"clean": 0, "repaired": 3, "damaged": 5}


class SampleWord(click.ParamType[float]):
    """A part: `5%`."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)%", value)
        if match is None or not 0 < float(match[1]) <= 100:
            self.fail(f"{value!r} is not a part like 5%", param, ctx)
        return float(match[1]) / 100


@verb("verify")
@snapshot_arguments(required=False)
@click.option("--data", is_flag=True, help="Hash the contents, too.")
@click.option(
    "--sample", type=SampleWord(), metavar="5%", help="With --data: only this part, by chance."
)
@click.option("--since", type=WHEN, metavar="WHEN", help="With --data: only what came since.")
@click.option(
    "--repair-from",
    type=PATH,
    metavar="DIR|STORE",
    help="Replace what is bad, from another store or from the files themselves.",
)
@json_option
def command(
    invocation: Invocation,
    *,
    snapshots: tuple[str, ...],
    data: bool,
    sample: float | None,
    since: float | None,
    repair_from: Path | None,
    as_json: bool,
) -> int:
    """Check the store, or the snapshots that are named and what they need.

    Without --data: records, manifests (ids and fingerprints), and that every content is there with
    its size. With it every content is hashed; a bad one is moved to the store's quarantine, so that
    reading it fails instead of giving wrong bytes. The files of snapshots that are hurt are listed.
    Ingesting the good file again heals, too. Of what `castfs reference` recorded, files of this
    machine are looked at: their sizes, with --data also their checksums (unless --sample or --since
    are given). The exit code is 0 for clean, 3 for repaired, 5 for damaged.

    \b
    Examples:
      castfs verify
      castfs verify --data --sample 5%
      castfs verify --data --since 7d
      castfs verify --data --repair-from /backup/castfs
    """
    if not data and (sample is not None or since is not None):
        raise click.UsageError("--sample and --since choose among contents: give --data, too")
    from castfs.verify import VerifyOptions

    options = VerifyOptions(
        data=data, sample=1.0 if sample is None else sample, since=since, repair_from=repair_from
    )
    with progress_bar() as progress:
        result = invocation.open_store().verify(*snapshots, options=options, progress=progress)
    if as_json:
        print_document({"status": result.status, **plain(result)})
    else:
        print_result(result)
    return EXIT_CODES[result.status]


def print_result(result: VerifyResult) -> None:
    for problem in result.problems:
        output.line(output.one_line(f"{repaired(problem.repaired)}{problem.message}"))
    for blob in result.bad_blobs:
        moved = ", quarantined" if blob.quarantined else ""
        output.line(f"{repaired(blob.repaired)}blob {blob.digest}: {blob.detail}{moved}")
    for hurt in result.hurt:
        output.line(f"{repaired(hurt.repaired)}{hurt.snapshot}: {display(hurt.path)}")
    counts = [
        format_count(result.snapshot_count, "snapshot"),
        format_count(result.manifest_count, "manifest"),
        format_count(result.blob_count, "content"),
    ]
    if result.reference_count:
        counts.append(format_count(result.reference_count, "reference"))
    hashed = f"; {result.hashed_count:,} hashed, {format_size(result.hashed_bytes)}"
    took = format_duration(result.seconds)
    output.line(f"{', '.join(counts)} looked at{hashed if result.hashed_count else ''} in {took}")
    if result.quarantine_count:
        kept = format_count(result.quarantine_count, "bad blob")
        output.note(f"{kept} in {result.store}/quarantine; delete them when nobody needs them")
    output.line(f"{result.status}{advice(result)}")


def repaired(yes: bool) -> str:
    return "repaired: " if yes else "damaged: "


def advice(result: VerifyResult) -> str:
    if all(blob.repaired for blob in result.bad_blobs):
        return ""  # what else there is says itself what to do
    return ": ingest the good files again, or give --repair-from with another copy"
