"""`castfs versions`: the versions of a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.list import gathered, unique_digits
from castfs.cli.snapshot_word import ARTIFACT
from castfs.cli.tables import print_table
from castfs.cli.units import format_size, format_time
from castfs.repository.naming import made_by

if TYPE_CHECKING:
    from castfs.repository.results import VersionInfo


@verb("versions")
@click.argument("name", metavar="NAME", type=ARTIFACT)
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone, whole.")
@json_option
def command(invocation: Invocation, *, name: str, quiet: bool, as_json: bool) -> None:
    """List the versions of NAME, the first one first.

    Those that are deleted are listed as long as they are in the trash; numbers are never given
    again. A record that cannot be read is reported, and the exit code is 5 then.

    \b
    Examples:
      castfs versions resnet50-model
      castfs versions team/sensors --json
    """
    refuse_both(as_json, quiet)
    found, damage = gathered(invocation.open_store().iter_versions(name))
    if as_json:
        print_document(found)
    elif quiet:
        output.lines(each.id for each in found)
    elif found:
        print_versions(found)
    if damage is not None:
        raise damage


def print_versions(versions: list[VersionInfo]) -> None:
    digits = unique_digits([each.id for each in versions])
    print_table(
        (
            "VERSION", "CREATED", ">SIZE", ">FILES", "RUN", "BY", "STATUS", "ALIASES", "ID",
        ),
        [
            (
                f"v{each.record.version}" if each.record.version is not None else "",
                format_time(each.record.created_at),
                format_size(each.record.total_size_bytes),
                f"{each.record.file_count:,}",
                each.record.run or "",
                made_by(each.record),
                each.status,
                ", ".join(each.aliases),
                each.id[:digits],
            )
            for each in versions
        ],
    )  # fmt: skip
