"""`castfs cat`: files of a snapshot to stdout."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.words import ENTRY
from castfs.errors import NotFoundError
from castfs.manifest import File
from castfs.paths import display
from castfs.store.reading import iter_blob

if TYPE_CHECKING:
    from castfs.repository import Snapshot


@verb("cat")
@snapshot_argument()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=ENTRY)
def command(invocation: Invocation, *, snapshot: str, paths: tuple[str, ...]) -> None:
    """Print files of SNAPSHOT, one after another, as they are.

    What is printed is hashed on the way: if a stored file is damaged the exit code is 5.

    \b
    Examples:
      castfs cat 0193a7c25d10 README.md
      castfs cat sensors:latest raw/a.csv raw/b.csv > both.csv
      castfs cat ./run.json config.yaml | diff - config.yaml
    """
    found = invocation.find_snapshot(snapshot, read=False)
    files = [(path, find_file(found, path)) for path in paths]
    with found.pinned("cat"):
        for path, file in files:
            copy_file(found, path, file)


def find_file(snapshot: Snapshot, path: str) -> File:
    entry = snapshot.get(path)
    if not isinstance(entry, File):
        raise NotFoundError(
            f"{display(os.fsencode(path))} is not a regular file", hint="see `castfs ls -l`"
        )
    return entry


def copy_file(snapshot: Snapshot, path: str, file: File) -> None:
    """A damaged file is an error: a small one before any of it is printed, a large one after."""
    for chunk in iter_blob(snapshot.blobs, os.fsencode(path), file.digest, file.size_bytes):
        output.write_bytes(chunk)
