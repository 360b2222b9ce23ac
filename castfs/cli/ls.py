"""`castfs ls`: a directory of a snapshot."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import click

from castfs.cli import output
from castfs.cli.documents import plain, print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.words import ENTRY
from castfs.manifest import Directory, Entry, File, Symlink, Tree
from castfs.paths import RelPath, normalize, split

_KINDS: dict[type, str] = {File: "file", Directory: "directory", Symlink: "symlink"}
_TYPE_BITS = {File: stat.S_IFREG, Directory: stat.S_IFDIR, Symlink: stat.S_IFLNK}

Listed = tuple[RelPath, Entry]


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
    found = invocation.find_snapshot(snapshot)
    top = found.get(path)
    tree = found.manifest.tree
    start = normalize(path)
    if isinstance(top, Directory):
        listed = list(iter_below(tree, start, recursive=recursive))
        hidden = b"" if recursive else start
    else:
        listed, hidden = [(RelPath(start), top)], b""
    if as_json:
        print_document([describe(*each) for each in listed])
    elif long:
        output.lines(long_lines(tree, listed, hidden))
    else:
        end = b"\0" if null else b"\n"
        for name, _ in listed:
            shown = relative(name, hidden)
            output.write_bytes((shown if null else output.shown_name(shown)) + end)


def iter_below(tree: Tree, start: bytes, *, recursive: bool) -> Iterator[Listed]:
    """The entries of directory `start`, or with all below them, by the bytes of their paths."""
    prefix = start + b"/" if start else b""
    kinds = (tree.dirs, tree.files, tree.symlinks)
    paths = [
        path
        for kind in kinds
        for path in kind
        if path.startswith(prefix) and (recursive or b"/" not in path[len(prefix) :])
    ]
    for path in sorted(paths):
        entry = tree.get(path)
        assert entry is not None
        yield path, entry


def relative(path: bytes, start: bytes) -> bytes:
    return path[len(start) + 1 :] if start else path


def describe(path: RelPath, entry: Entry) -> dict[str, Any]:
    """One entry for `--json`: what the manifest says, without what it does not."""
    known = {key: value for key, value in plain(entry).items() if value is not None}
    return {"path": plain(bytes(path)), "type": _KINDS[type(entry)], **known}


def long_lines(tree: Tree, listed: Sequence[Listed], hidden: bytes) -> Iterator[bytes]:
    """Lines like those of `ls -l`; owners only where they are recorded. A directory has no size."""
    links = count_links(tree)
    rows = [
        (
            stat.filemode(_TYPE_BITS[type(entry)] | getattr(entry, "mode", 0o777)),
            str(links.get(path, 1)),
            *(str(n) for n in (entry.uid, entry.gid) if n is not None),
            size_of(entry),
            format_mtime(entry.mtime_ns),
        )
        for path, entry in listed
    ]
    if not rows:
        return
    columns = max(len(row) for row in rows)
    rows = [
        row if len(row) == columns else (*row[:2], *("-",) * (columns - 4), *row[-2:])
        for row in rows
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    for row, (path, entry) in zip(rows, listed, strict=True):
        front = " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        name = output.shown_name(relative(path, hidden))
        if isinstance(entry, Symlink):
            name += b" -> " + output.shown_name(entry.raw_target)
        yield front.encode() + b" " + name


def count_links(tree: Tree) -> dict[bytes, int]:
    """Link counts that are not 1: of hard links in the tree, and of directories as ext4 counts."""
    groups: Counter[str] = Counter()
    for kind in (tree.files, tree.symlinks):
        groups.update(e.hardlink for e in kind.values() if e.hardlink is not None)
    links: dict[bytes, int] = {
        path: groups[entry.hardlink]
        for kind in (tree.files, tree.symlinks)
        for path, entry in kind.items()
        if entry.hardlink is not None
    }
    below = Counter(split(path)[0] for path in tree.dirs)
    return links | {path: 2 + below[path] for path in tree.dirs}


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
