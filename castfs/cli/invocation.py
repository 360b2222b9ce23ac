"""What every verb shares: which store is meant, the class of the commands, common options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from castfs.cli.words import PATH

if TYPE_CHECKING:
    from castfs.repository import Snapshot, Store

Function = Callable[..., int | None]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class Invocation:
    """One run of the program; click's `ctx.obj`. `store` is what `--store` gave."""

    store: Path | None = None

    def open_store(self, *, create: bool = False) -> Store:
        from castfs.repository import open_store

        return open_store(self.store, create=create)

    def find_snapshot(self, word: str, *, read: bool = True) -> Snapshot:
        from castfs.repository import find_snapshot

        return find_snapshot(word, store=self.store, read=read)


def _set_store(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    # The verb's options are parsed after the group's, so the later one wins.
    if value is not None:
        context.ensure_object(Invocation).store = value


def store_option(function: Decorated) -> Decorated:
    """`--store DIR`, before the verb and after it."""
    return click.option(
        "--store",
        metavar="DIR",
        type=PATH,
        expose_value=False,
        callback=_set_store,
        help="The store to use. [default: $CASTFS_STORE, else the user's own]",
    )(function)


HELP_NAMES = {"help_option_names": ["-h", "--help"]}


def verb(
    name: str, *, cls: type[click.Command] = click.Command
) -> Callable[[Function], click.Command]:
    """A command that takes `--store`; its function gets the Invocation."""

    def decorate(function: Function) -> click.Command:
        decorated = click.pass_obj(store_option(function))
        command = click.command(name, cls=cls, context_settings=HELP_NAMES)(decorated)
        # Decorated last, it would come first in the help, before what the verb is about.
        command.params.sort(key=lambda parameter: parameter.opts == ["--store"])
        return command

    return decorate


def json_option(function: Decorated) -> Decorated:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    )(function)


def refuse_both(as_json: bool, quiet: bool) -> None:
    if as_json and quiet:
        raise click.UsageError("--json and --quiet exclude each other")
