"""`castfs umount`: the end of a mount."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.words import PATH
from castfs.errors import CastfsError

if TYPE_CHECKING:
    from castfs.mount import Unmounted


@verb("umount")
@click.argument("mountpoints", metavar="DIR...", type=PATH, nargs=-1)
@click.option(
    "--all", "every", is_flag=True, help="Unmount all of this user's (root: everybody's)."
)
@click.option("--lazy", is_flag=True, help="Take it away although it is in use.")
@json_option
def command(
    invocation: Invocation, *, mountpoints: tuple[Path, ...], every: bool, lazy: bool, as_json: bool
) -> int:
    """Unmount the snapshots at DIR.

    Returns when the process that served it has ended. A mount that is in use stays, and the message
    names its users; the exit code is 11 then.

    \b
    Examples:
      castfs umount /mnt/run
      castfs umount --lazy /mnt/run
      castfs umount --all
    """
    if every == bool(mountpoints):
        raise click.UsageError("name the directories to unmount, or --all (not both)")
    ended, failed = unmount_every(lazy=lazy) if every else unmount_these(mountpoints, lazy=lazy)
    if as_json:
        print_document(ended)
    for done in ended:
        if done.served:
            served = f"process {done.pid}" if done.pid else "a process"
            output.note(
                f"{done.mountpoint} is unmounted; {served} serves what is still in use of it"
            )
    for error in failed:
        output.note(f"castfs: {error}")
    return failed[0].exit_code if failed else 0


def unmount_every(*, lazy: bool) -> tuple[list[Unmounted], list[CastfsError]]:
    from castfs.mount import unmount_all

    return unmount_all(lazy=lazy)


def unmount_these(
    mountpoints: tuple[Path, ...], *, lazy: bool
) -> tuple[list[Unmounted], list[CastfsError]]:
    """Goes on after a failure, as umount(8) does."""
    from castfs.mount import unmount

    ended: list[Unmounted] = []
    failed: list[CastfsError] = []
    for mountpoint in mountpoints:
        try:
            ended.append(unmount(mountpoint, lazy=lazy))
        except CastfsError as exc:
            failed.append(exc)
    return ended, failed
