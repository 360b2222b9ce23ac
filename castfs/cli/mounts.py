"""`castfs mounts`: what is mounted."""

from __future__ import annotations

import os

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.tables import print_table
from castfs.cli.units import format_seconds_since_epoch
from castfs.paths import display


@verb("mounts")
@json_option
def command(invocation: Invocation, *, as_json: bool) -> None:
    """List the mounted snapshots: where, what, since when, by which process, whether it answers.

    State `dead` means that the process is gone: unmount it, or mount there again. `hung` means that
    it does not answer.

    \b
    Examples:
      castfs mounts
      castfs mounts --json
    """
    from castfs.mount import list_mounts

    mounts = list_mounts()
    if as_json:
        print_document(mounts)
    elif not mounts:
        output.note("no snapshots are mounted")
    else:
        print_table(
            ("MOUNTPOINT", "SNAPSHOT", "NAME", "SINCE", "ENGINE", ">PID", "STATE"),
            [
                (
                    display(os.fsencode(status.mountpoint)),
                    (status.record_id or status.manifest_id)[:12],
                    status.label or "",
                    "" if status.since is None else format_seconds_since_epoch(status.since),
                    status.engine,
                    "" if status.pid is None else str(status.pid),
                    status.state,
                )
                for status in mounts
            ],
        )
