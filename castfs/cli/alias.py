"""`castfs alias`: a word of one's own for a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import SNAPSHOT
from castfs.cli.tables import print_table
from castfs.cli.units import format_time
from castfs.cli.words import ALIAS

if TYPE_CHECKING:
    from castfs.repository.results import Aliases, AliasMove


@verb("alias")
@click.argument("word", metavar="NAME:vN|NAME", type=SNAPSHOT)
@click.argument("alias", metavar="[ALIAS]", type=ALIAS, required=False)
@click.option("-d", "--delete", is_flag=True, help="Take the alias NAME:ALIAS away.")
@json_option
def command(
    invocation: Invocation, *, word: str, alias: str | None, delete: bool, as_json: bool
) -> None:
    """Let NAME:ALIAS mean a version, whatever it meant until now; or list the aliases of NAME.

    An alias means one version at any moment, and the name remembers which ones it meant. `latest`
    cannot be set: it always is the highest version that is not deleted.

    \b
    Examples:
      castfs alias resnet:v3 production
      castfs alias -d resnet:production
      castfs alias resnet
    """
    store = invocation.open_store()
    if delete:
        name, colon, of_name = word.partition(":")
        if alias is not None or not colon:
            raise click.UsageError("-d takes one word, NAME:ALIAS")
        moved = store.remove_alias(name, of_name)
    elif alias is not None:
        moved = store.set_alias(word, alias)
    elif ":" in word:
        raise click.UsageError(f"say what {output.one_line(word)} is to be called, too")
    else:
        found = store.aliases(word)
        if as_json:
            print_document(found)
        else:
            print_aliases(found)
        return
    if as_json:
        print_document(moved)
    output.note(describe(moved))


def describe(moved: AliasMove) -> str:
    word = f"{moved.name}:{moved.alias}"
    if moved.version is None:
        return f"{word} is gone; it was v{moved.before}"
    if moved.before is None:
        return f"{word} is v{moved.version}"
    if moved.before == moved.version:
        return f"{word} is v{moved.version} already"
    return f"{word} is v{moved.version}; it was v{moved.before}"


def print_aliases(found: Aliases) -> None:
    if found.aliases:
        rows = [(alias, f"v{version}") for alias, version in found.aliases.items()]
        print_table(("ALIAS", "VERSION"), rows)
    else:
        output.note(f"{found.name} has no aliases")
    if found.history:
        output.line()
        print_table(
            ("DATE", "ALIAS", "FROM", "TO", "BY"),
            [
                (
                    format_time(event.at),
                    event.alias,
                    "" if event.before is None else f"v{event.before}",
                    "" if event.version is None else f"v{event.version}",
                    event.by,
                )
                for event in found.history
            ],
        )
