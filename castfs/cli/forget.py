"""`castfs forget`: snapshots that a policy does not keep, into the trash."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.gc_ import print_result
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.progress import progress_bar
from castfs.cli.tables import print_table
from castfs.cli.units import format_count, format_time
from castfs.cli.words import TEXT, DurationWord
from castfs.retention import Policy

if TYPE_CHECKING:
    from castfs.repository.results import ForgetResult
    from castfs.retention import Group

_COUNT = click.IntRange(min=0)
_PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")


class AgeWord(DurationWord):
    """A duration without `m`: months for users of restic, minutes everywhere here."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, str) and re.search(r"\d\s*m(?!in)", value.lower()):
            self.fail(f"{value!r} may mean months or minutes: say 180d or 90min", param, ctx)
        return super().convert(value, param, ctx)


@verb("forget")
@click.option("-l", "--keep-last", type=_COUNT, metavar="N", help="Keep the newest N.")
@click.option("-H", "--keep-hourly", type=_COUNT, metavar="N", help="… one for each of N hours.")
@click.option("-d", "--keep-daily", type=_COUNT, metavar="N", help="… one for each of N days.")
@click.option("-w", "--keep-weekly", type=_COUNT, metavar="N", help="… one for each of N weeks.")
@click.option("-m", "--keep-monthly", type=_COUNT, metavar="N", help="… one for each of N months.")
@click.option("-y", "--keep-yearly", type=_COUNT, metavar="N", help="… one for each of N years.")
@click.option(
    "--keep-within",
    type=AgeWord(),
    metavar="AGE",
    help="Keep what is at most so much older than the newest.",
)
@click.option(
    "--keep-tag", type=TEXT, multiple=True, help="Keep those with this tag (`a,b`: with both)."
)
@click.option("--source", metavar="DIR", help="Look only at snapshots of this directory.")
@click.option("--name", type=TEXT, help="Look only at snapshots of this name.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--gc", "collect", is_flag=True, help="Collect garbage afterwards.")
@json_option
def command(
    invocation: Invocation,
    *,
    source: str | None,
    name: str | None,
    dry_run: bool,
    collect: bool,
    as_json: bool,
    **keep: Any,
) -> None:
    """Move to the trash what no --keep option keeps.

    Snapshots are grouped by name, those without one by host and source; each group is looked at
    alone. A snapshot stays if any option keeps it. Of each hour, day, week, month or year the
    newest stays; only those count that have any. Where there are fewer than N, the oldest snapshot
    of the group stays too. A policy that would keep nothing of a group is refused.

    \b
    Examples:
      castfs forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
      castfs forget --keep-within 30d --keep-tag release --gc
      castfs forget --name sensors --keep-last 10
    """
    policy = policy_of(keep)
    if policy.is_empty:
        raise click.UsageError("say what to keep, for example --keep-last 10 or --keep-within 30d")
    store = invocation.open_store()
    if dry_run:
        result = store.plan_forget(policy, source=source, name=name)
    else:
        result = store.forget(policy, source=source, name=name)
    if not as_json:
        print_groups(result)
        output.flush()
    collected = None
    if collect and not dry_run:
        with progress_bar() as progress:
            collected = store.gc(progress=progress)
    if as_json:
        print_document({"forget": result, "gc": collected} if collect else result)
    elif collected is not None:
        print_result(collected)


def policy_of(keep: dict[str, Any]) -> Policy:
    if not all(tag for tags in keep["keep_tag"] for tag in tags.split(",")):
        # A shell's unset variable, and no snapshot has that tag.
        raise click.UsageError("--keep-tag has an empty tag")
    return Policy(
        last=keep["keep_last"] or 0,
        **{period: keep[f"keep_{period}"] or 0 for period in _PERIODS},
        within_seconds=keep["keep_within"],
        tags=tuple(frozenset(tags.split(",")) for tags in keep["keep_tag"]),
    )


def print_groups(result: ForgetResult) -> None:
    for group in result.groups:
        of = group.name if group.name is not None else f"{group.source} on {group.host}"
        output.line(output.one_line(f"{of}: {counts(group)}"))
        rows = [(each.record, ", ".join(each.reasons)) for each in group.kept]
        rows += [(record, "-") for record in group.removed]
        rows.sort(key=lambda row: row[0].id, reverse=True)
        print_table(
            ("", "VERSION", "ID", "DATE", "KEPT BY"),
            [
                (
                    "keep" if why != "-" else "remove",
                    f"v{r.version}" if r.version is not None else "",
                    r.id[:12],
                    format_time(r.created_at),
                    why,
                )
                for r, why in rows
            ],
        )
    removed = format_count(sum(len(group.removed) for group in result.groups), "snapshot")
    if result.dry_run:
        output.note(f"{removed} would go to the trash")
    else:
        output.note(f"{removed} went to the trash; `castfs undelete` brings them back")


def counts(group: Group) -> str:
    return f"{len(group.kept)} kept, {len(group.removed)} removed"
