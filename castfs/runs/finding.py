"""Which run a word means: its id, seven characters or more that the id begins with, or what people
call it, `project/name`. Nothing that several can be is guessed."""

from __future__ import annotations

from collections.abc import Iterator

from castfs.catalog import Catalog, RunFile
from castfs.catalog.words import PREFIX_MIN, show_word
from castfs.errors import AmbiguousError, DamageError, NotFoundError

#: Candidates that an error message lists; the error's own list has all.
_LISTED = 10


def run_path_of(run: RunFile) -> str:
    """`project/name`; empty where it has neither."""
    return "/".join(filter(None, (run.project, run.name)))


def match_run(catalog: Catalog, word: str) -> RunFile:
    """NotFoundError, AmbiguousError; DamageError if one that cannot be read might be meant."""
    if word and (exact := catalog.run(word)) is not None:
        return exact
    found = list(_iter_matches(catalog, word))
    # Nobody knows how one that cannot be read is called.
    if not any(run.id.startswith(word) for run in found) and (damages := run_damages(catalog)):
        raise damages[0]
    if not found:
        is_short = 0 < len(word) < PREFIX_MIN
        hint = f"an id needs {PREFIX_MIN} characters at least, or " if is_short else ""
        raise NotFoundError(f"no run {show_word(word)}", hint=f"{hint}see `castfs runs`")
    if len(found) > 1:
        lines = [show_word(f"{run.id} {run_path_of(run)}".rstrip()) for run in found]
        more = f"; and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
        raise AmbiguousError(
            f"{show_word(word)} can mean {len(found)} runs: {'; '.join(lines[:_LISTED])}{more}",
            lines,
            hint="give more of its id",
        )
    return found[0]


def _iter_matches(catalog: Catalog, word: str) -> Iterator[RunFile]:
    for run in catalog.iter_runs():
        if (len(word) >= PREFIX_MIN and run.id.startswith(word)) or (
            word and run_path_of(run) == word
        ):
            yield run


def run_damages(catalog: Catalog) -> list[DamageError]:
    """Files of runs that cannot be read."""
    return [each for each in catalog.damages_beside_records() if "/runs/" in each.message]
