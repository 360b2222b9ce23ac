"""`castfs cat`: files of a snapshot to stdout."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.digest import CHUNK_SIZE
from castfs.errors import BlobError, NotFoundError
from castfs.manifest import File
from castfs.paths import display

if TYPE_CHECKING:
    from castfs.repository import Snapshot


@verb("cat")
@snapshot_argument()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def command(invocation: Invocation, *, snapshot: str, paths: tuple[str, ...]) -> None:
    """Print files of SNAPSHOT, one after another, as they are.

    What is printed is hashed on the way: if a stored file is damaged the exit code is 5.

    \b
    Examples:
      castfs cat 0193a7c25d10 README.md
      castfs cat sensors:latest raw/a.csv raw/b.csv > both.csv
      castfs cat ./run.json config.yaml | diff - config.yaml
    """
    found = invocation.find_snapshot(snapshot)
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
    state = hashlib.sha256()
    with snapshot.open(path) as stream:
        while chunk := stream.read(CHUNK_SIZE):
            state.update(chunk)
            output.write_bytes(chunk)
    if state.hexdigest() != file.sha256:
        output.flush()
        raise BlobError(
            f"what was printed of {display(os.fsencode(path))} is damaged: "
            f"its content is not blob {file.sha256}",
            digest=file.sha256,
            hint="ingest the same file again with --check-existing to heal it",
        )
