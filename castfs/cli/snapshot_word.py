"""The argument SNAPSHOT, and what a shell offers for it: the ids and names that the store has."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from castfs.catalog import reading
from castfs.cli.invocation import Invocation
from castfs.cli.output import one_line
from castfs.cli.units import format_count, format_time
from castfs.cli.words import NameWord, TextWord
from castfs.errors import CastfsError
from castfs.repository.naming import version_word

#: Records that are read for one press of Tab: about 20 ms.
_RECORDS = 500

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class SnapshotWord(click.ParamType[str]):
    """A snapshot, by id, name or manifest file; resolved by the verb."""

    name = "snapshot"

    def __init__(self, *, deleted: bool = False) -> None:
        self._deleted = deleted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("the snapshot's name is empty", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return complete_snapshot(ctx, incomplete, deleted=self._deleted)


class ArtifactWord(NameWord):
    """A name that snapshots have."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return complete_name(ctx, incomplete)


class NamesWord(TextWord):
    """A name that snapshots have, or a pattern of such."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return complete_name(ctx, incomplete)


SNAPSHOT = SnapshotWord()
NAMES = NamesWord()
ARTIFACT = ArtifactWord()


def snapshot_argument(name: str = "snapshot") -> Callable[[Decorated], Decorated]:
    return click.argument(name, metavar=name.upper(), type=SNAPSHOT)


def snapshot_arguments(
    *, deleted: bool = False, required: bool = True
) -> Callable[[Decorated], Decorated]:
    return click.argument(
        "snapshots",
        metavar="SNAPSHOT..." if required else "[SNAPSHOT...]",
        type=SnapshotWord(deleted=deleted),
        nargs=-1,
        required=required,
    )


def complete_snapshot(
    context: click.Context, incomplete: str, *, deleted: bool = False
) -> list[CompletionItem]:
    """Ids (12 digits) and names that begin with `incomplete`; files too once it has a `/`."""
    if "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    invocation = context.find_object(Invocation) or Invocation()
    found: dict[str, str] = {}
    try:
        depot = invocation.open_store().depot
        with reading(depot) as catalog:
            records = catalog.iter_records("trash" if deleted else "live")
            for record in itertools.islice(records, _RECORDS):
                what = one_line(f"{format_time(record.created_at)} {record.source}")
                found.setdefault(record.id[:12], what)
                if record.name:
                    word = version_word(record) if ":" in incomplete else record.name
                    found.setdefault(word, what)
            name, colon, _ = incomplete.partition(":")
            known = catalog.find_name(name) if colon and not deleted else None
            for alias, version in known.aliases.items() if known else ():
                found.setdefault(f"{name}:{alias}", f"v{version}")
    except (CastfsError, OSError):
        # A shell has no place for an error message; the command itself will give it.
        return []
    return [
        CompletionItem(word, help=what)
        for word, what in found.items()
        if word.startswith(incomplete)
    ]


def complete_name(context: click.Context, incomplete: str) -> list[CompletionItem]:
    invocation = context.find_object(Invocation) or Invocation()
    try:
        with reading(invocation.open_store().depot) as catalog:
            found = catalog.count_by_name()
    except (CastfsError, OSError):
        return []
    return [
        CompletionItem(name, help=format_count(count, "snapshot"))
        for name, count in found
        if name.startswith(incomplete)
    ]
