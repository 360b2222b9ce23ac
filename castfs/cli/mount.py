"""`castfs mount`: a snapshot as a read-only directory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.list import ID_DIGITS
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.words import PATH

if TYPE_CHECKING:
    from castfs.mount import MountStatus
    from castfs.repository import Snapshot

#: Where MountCommand leaves what stands after `--`; None where there is no `--`.
_COMMAND_KEY = "castfs.mount.command"


class MountCommand(click.Command):
    """Keeps what stands after `--` apart: click would drop the `--` and take the command's words
    for arguments of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_COMMAND_KEY] = None
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_COMMAND_KEY] = args[:at], tuple(args[at + 1 :])
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


@verb("mount", cls=MountCommand)
@snapshot_argument()
@click.argument("mountpoint", metavar="DIR", type=PATH)
@click.option(
    "-o", "options", metavar="OPTION,...", multiple=True,
    help="allow_other, uid=N, gid=N, umask=OCTAL, verify, noexec and others (repeatable).",
)  # fmt: skip
@click.option("--no-fast-lane", is_flag=True, help="Serve it by pyfuse3 alone, which is slower.")
@click.option("-f", "--foreground", is_flag=True, help="Serve it here until Ctrl-C.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    invocation: Invocation,
    *,
    snapshot: str,
    mountpoint: Path,
    options: tuple[str, ...],
    no_fast_lane: bool,
    foreground: bool,
    as_json: bool,
) -> int:
    """Show SNAPSHOT at directory DIR, read-only, and return once it answers.

    DIR is an empty directory. The mount keeps its snapshot from being collected until it is
    unmounted. With `-- COMMAND` it lives as long as COMMAND, which finds DIR in $CASTFS_MOUNT; the
    exit code is then COMMAND's.

    \b
    Examples:
      castfs mount 0193a7c25d10 /mnt/run && ls /mnt/run
      castfs mount ./run.json mnt -o uid=1000,gid=1000
      castfs mount sensors:latest mnt -o verify -- python train.py mnt
      castfs mount -f 0193a7c25d10 mnt
    """
    argv: tuple[str, ...] | None = context.meta[_COMMAND_KEY]
    check_usage(argv, foreground=foreground, as_json=as_json)
    from castfs.mount import parse_options, run_in_mount, start_mount
    from castfs.repository.mounting import mount_request

    parsed = parse_options(",".join(options))
    found = invocation.find_snapshot(snapshot, read=False)
    request = mount_request(found, mountpoint, parsed, fast_lane=not no_fast_lane)
    if argv is not None:
        # stdout belongs to the command.
        return run_in_mount(request, argv, on_ready=partial(note_warnings, found))
    on_ready = partial(announce, found, as_json=as_json)
    start_mount(request, foreground=foreground, on_ready=on_ready)
    return 0


def check_usage(argv: tuple[str, ...] | None, *, foreground: bool, as_json: bool) -> None:
    if argv is None:
        return
    if not argv:
        raise click.UsageError("there is no command after --")
    if foreground or as_json:
        raise click.UsageError(f"{'-f' if foreground else '--json'} does not go with -- COMMAND")


def announce(snapshot: Snapshot, status: MountStatus, *, as_json: bool) -> None:
    note_warnings(snapshot, status)
    if as_json:
        print_document(status)
    else:
        what = status.record_id or status.manifest_id[:ID_DIGITS]
        output.line(output.one_line(f"mounted {what} at {status.mountpoint}"))
    output.flush()


def note_warnings(snapshot: Snapshot, status: MountStatus) -> None:
    for warning in status.warnings:
        output.note(f"castfs: {warning}")
    if snapshot.record is None and snapshot.file is not None:
        # Protected while it is mounted, and not after.
        output.note(
            f"castfs: {snapshot.file} is not recorded as a snapshot of a store; "
            f"`castfs import {snapshot.file}` records it"
        )
