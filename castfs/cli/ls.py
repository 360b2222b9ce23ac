"""`castfs ls`: a directory of a snapshot."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from castfs.cli import output
from castfs.cli.documents import plain, print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.words import ENTRY
from castfs.manifest import Directory, Entry, File, Symlink
from castfs.paths import RelPath, normalize

if TYPE_CHECKING:
    from castfs.tree import ListedEntry

_KINDS: dict[type, str] = {File: "file", Directory: "directory", Symlink: "symlink"}
_TYPE_BITS = {File: stat.S_IFREG, Directory: stat.S_IFDIR, Symlink: stat.S_IFLNK}


@verb("ls")
@snapshot_argument()
@click.argument("path", default=".", type=ENTRY)
@click.option("-l", "--long", is_flag=True, help="With mode, links, owner, size, time and target.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, as paths from the root.")
@click.option("-0", "null", is_flag=True, help="End each name with NUL instead of a line feed.")
@json_option
def command(
    invocation: Invocation,
    *,
    snapshot: str,
    path: str,
    long: bool,
    recursive: bool,
    null: bool,
    as_json: bool,
) -> None:
    """List directory PATH of SNAPSHOT, by default its root.

    Names come out as they are; on a terminal, control characters and what is not UTF-8 are escaped.

    \b
    Examples:
      castfs ls 0193a7c25d10
      castfs ls -l sensors:latest raw/2024
      castfs ls -R ./run.json | grep py$
      castfs ls -R0 0193a7c25d10 | xargs -0 castfs cat 0193a7c25d10
    """
    if null and (long or as_json):
        raise click.UsageError("-0 goes with plain names only")
    found = invocation.find_snapshot(snapshot, read=False)
    start = normalize(path)
    listed = found.list(path, recursive=recursive, hardlinks=as_json)
    is_file = [entry.path for entry in listed] == [start]
    hidden = b"" if recursive or is_file else start
    if as_json:
        print_document([describe(path, entry) for path, entry, _ in listed])
    elif long:
        output.lines(long_lines(listed, hidden))
    else:
        end = b"\0" if null else b"\n"
        for entry in listed:
            shown = relative(entry.path, hidden)
            output.write_bytes((shown if null else output.shown_name(shown)) + end)


def relative(path: bytes, start: bytes) -> bytes:
    return path[len(start) + 1 :] if start else path


def describe(path: RelPath, entry: Entry) -> dict[str, Any]:
    """One entry for `--json`: what the manifest says, without what it does not."""
    known = {key: value for key, value in plain(entry).items() if value is not None}
    return {"path": plain(bytes(path)), "type": _KINDS[type(entry)], **known}


def long_lines(listed: Sequence[ListedEntry], hidden: bytes) -> Iterator[bytes]:
    """Lines like those of `ls -l`; owners only where they are recorded. A directory has no size."""
    rows = [
        (
            stat.filemode(_TYPE_BITS[type(entry)] | getattr(entry, "mode", 0o777)),
            str(nlink),
            *(str(n) for n in (entry.uid, entry.gid) if n is not None),
            size_of(entry),
            format_mtime(entry.mtime_ns),
        )
        for _, entry, nlink in listed
    ]
    if not rows:
        return
    columns = max(len(row) for row in rows)
    rows = [
        row if len(row) == columns else (*row[:2], *("-",) * (columns - 4), *row[-2:])
        for row in rows
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    for row, (path, entry, _) in zip(rows, listed, strict=True):
        front = " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        name = output.shown_name(relative(path, hidden))
        if isinstance(entry, Symlink):
            name += b" -> " + output.shown_name(entry.raw_target)
        yield front.encode() + b" " + name


def size_of(entry: Entry) -> str:
    match entry:
        case File():
            return str(entry.size_bytes)
        case Symlink():
            return str(len(entry.raw_target))
    return "-"


def format_mtime(mtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(mtime_ns // 1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a year that Python does not know
        return f"@{mtime_ns // 1_000_000_000}"
