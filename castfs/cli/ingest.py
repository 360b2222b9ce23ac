"""`castfs ingest`: a directory into the store."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.metadata import parse_metadata
from castfs.cli.progress import progress_bar
from castfs.cli.units import format_count, format_duration, format_size
from castfs.cli.words import ALIAS, KEY_VALUE, NAME, PATH, SIZE, TEXT, TYPE
from castfs.errors import TargetError
from castfs.paths import display

if TYPE_CHECKING:
    from castfs.ingest.options import SkippedEntry
    from castfs.repository.results import IngestResult

EXIT_SKIPPED = 3
#: Rules that the summary names, and skipped entries that it lists.
_RULES_SHOWN = 5
_SKIPPED_SHOWN = 20


@verb("ingest")
@click.argument("source", metavar="DIR", type=PATH)
@click.option(
    "-o", "--output", "copy", metavar="FILE", type=PATH, help="Write a copy of the manifest."
)
@click.option("--name", type=NAME, help="Record it as the next version of this name.")
@click.option(
    "--type", "kind", type=TYPE, help="What it is: model, dataset, config, code, custom, …"
)
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Record a tag (repeatable).")
@click.option(
    "--meta", type=KEY_VALUE, multiple=True, help="Record a value under a key (repeatable)."
)
@click.option("--message", type=TEXT, help="Record a description.")
@click.option(
    "--alias",
    "aliases",
    type=ALIAS,
    multiple=True,
    help="Let this alias mean the version (repeatable).",
)
@click.option("--new-version", is_flag=True, help="Make a version even if nothing changed.")
@click.option("--xattrs", is_flag=True, help="Take extended attributes.")
@click.option("--owner", is_flag=True, help="Take owner and group.")
@click.option(
    "--reproducible",
    is_flag=True,
    help="Modes 644/755, one fixed mtime, no owner: the same content gives the same id anywhere.",
)
@click.option(
    "--gitignore/--no-gitignore",
    default=None,
    help="Obey git's rules, or do not. [default: if DIR is the root of a work tree]",
)
@click.option("--no-ignore", is_flag=True, help="Look for no rule file; take .git too.")
@click.option("--include", metavar="PATTERN", multiple=True, help="Take only what matches.")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out what matches.")
@click.option(
    "--ignore-file", "ignore_files", metavar="FILE", type=PATH, multiple=True,
    help="Read more rules from FILE.",
)  # fmt: skip
@click.option("--skip-unreadable", is_flag=True, help="Go on without what cannot be read.")
@click.option("--rehash", is_flag=True, help="Read every file, changed or not.")
@click.option("--check-existing", is_flag=True, help="Compare with the bytes that are stored.")
@click.option("--max-bytes", metavar="SIZE", type=SIZE, help="Fail beyond this size (e.g. 10G).")
@click.option("--max-files", metavar="N", type=click.IntRange(min=0), help="Fail beyond N files.")
@click.option("-q", "--quiet", is_flag=True, help="Print the snapshot's id alone.")
@json_option
def command(
    invocation: Invocation,
    *,
    source: Path,
    copy: Path | None,
    name: str | None,
    kind: str | None,
    tags: tuple[str, ...],
    meta: tuple[str, ...],
    message: str | None,
    aliases: tuple[str, ...],
    new_version: bool,
    xattrs: bool,
    owner: bool,
    reproducible: bool,
    gitignore: bool | None,
    no_ignore: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    ignore_files: tuple[Path, ...],
    skip_unreadable: bool,
    rehash: bool,
    check_existing: bool,
    max_bytes: int | None,
    max_files: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Take directory DIR (or a file) into the store and record it as a snapshot.

    Contents that the store has are not stored again, and files that did not change since the last
    time are not read. If anything cannot be read, nothing is recorded. A store that does not exist
    is created.

    With --name it becomes NAME:v1, NAME:v2, and so on. A directory that equals the latest version
    in all but times and owners makes none: its tags, values and aliases go to that one. A message
    is kept with a new version alone. Values of --meta that are numbers, true, false or null in JSON
    are that; all others are text.

    At the root of a git work tree git's ignore rules apply and .git is left out; elsewhere, and of
    what is a dataset or model, only .castignore files count. Patterns are those of .gitignore,
    relative to DIR.

    The exit code is 3 if entries were skipped: a FIFO, a socket, a device, and with
    --skip-unreadable what could not be read.

    \b
    Examples:
      castfs ingest ./repo
      castfs ingest ./data --name sensors --type dataset --tag raw --meta site=berlin
      castfs ingest ./out --name resnet --type model --meta val_acc=0.95 --alias production
      castfs ingest ./run -o run.json --exclude '*.ckpt' --max-bytes 10G
      id=$(castfs ingest -q ./repo) && castfs mount $id /mnt/repo
    """
    refuse_both(as_json, quiet)
    if reproducible and (owner or xattrs):
        raise click.UsageError("--reproducible records no --owner and no --xattrs")
    if no_ignore and gitignore:
        raise click.UsageError("--no-ignore looks at no rule files, so not at --gitignore's either")
    if (include or exclude or ignore_files) and source.is_file():
        raise click.UsageError("--include, --exclude and --ignore-file are for directories")
    if name is None and (aliases or new_version):
        raise click.UsageError("--alias and --new-version are for versions: give a --name, too")
    metadata = parse_metadata(meta)
    from castfs.ignore import IgnoreOptions
    from castfs.ingest.options import ScanOptions

    options = ScanOptions(
        ignore=IgnoreOptions(
            gitignore=gitignore,
            no_ignore=no_ignore,
            include=include,
            exclude=exclude,
            ignore_files=ignore_files,
        ),
        xattrs=xattrs,
        owner=owner,
        reproducible=reproducible,
        skip_unreadable=skip_unreadable,
        rehash=rehash,
        check_existing=check_existing,
        max_bytes=max_bytes,
        max_files=max_files,
    )
    check_source(source)
    store = invocation.open_store(create=True)
    if store.created:
        output.note(f"created store at {store.path}")
    with progress_bar(quiet=quiet) as progress:
        result = store.ingest(
            source,
            options=options,
            output=copy,
            name=name,
            type=kind,
            tags=tags,
            metadata=metadata,
            message=message,
            aliases=aliases,
            new_version=new_version,
            progress=progress,
        )
    try:
        if as_json:
            print_document(result)
        elif quiet:
            output.line(result.id)
        else:
            output.lines(summarize(result))
        output.flush()
    except TargetError as exc:
        raise TargetError(
            f"snapshot {result.id} is recorded, but {exc.message}", hint=exc.hint
        ) from exc
    if result.skipped:
        if not as_json:
            note_skipped(result.skipped, result.id)
        return EXIT_SKIPPED
    return 0


def check_source(source: Path) -> None:
    """Neither a typo in DIR nor something that cannot be ingested may create a store."""
    from castfs.errors import SourceError

    try:
        mode = source.stat().st_mode
    except OSError as exc:
        raise SourceError(
            f"cannot ingest {source}: {exc.strerror}", hint="name a directory that exists"
        ) from exc
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise SourceError(
            f"{source} is neither a directory nor a regular file",
            hint="name the directory that it is in",
        )


def summarize(result: IngestResult) -> list[str]:
    """The result for people, without what was skipped."""
    kinds = [format_count(result.file_count, "file")]
    kinds.append(format_count(result.dir_count, "directory", "directories"))
    if result.symlink_count:
        kinds.append(format_count(result.symlink_count, "symlink"))
    size = format_size(result.total_size_bytes)
    summary = [f"snapshot {result.id}"]
    if result.name is not None:
        said = "unchanged:" if result.unchanged else "version"
        summary.append(output.one_line(f"{said} {result.name}:v{result.version}"))
    summary += [
        f"manifest {result.manifest_id}" + ("" if result.new_manifest else " (as before)"),
        f"{', '.join(kinds)}, {size} in {format_duration(result.seconds)}",
        f"added {format_count(result.added_count, 'blob')}, {format_size(result.added_bytes)}; "
        f"deduplicated {format_count(result.deduplicated_count, 'file')}, "
        f"{format_size(result.deduplicated_bytes)} ({result.unchanged_count:,} unchanged)",
    ]
    if result.ignored:
        summary.append(summarize_ignored(result))
    return summary


def summarize_ignored(result: IngestResult) -> str:
    entries = sum(row.entries for row in result.ignored)
    size = sum(row.size_bytes for row in result.ignored)
    largest = sorted(result.ignored, key=lambda row: row.size_bytes, reverse=True)
    rules = [
        output.one_line(
            f"`{row.rule.pattern}` {row.rule.origin} "
            f"({format_size(row.size_bytes)}, {format_count(row.entries, 'entry', 'entries')})"
        )
        for row in largest[:_RULES_SHOWN]
    ]
    if len(largest) > _RULES_SHOWN:
        rules.append(f"and {format_count(len(largest) - _RULES_SHOWN, 'more rule')}")
    what = format_count(entries, "entry", "entries")
    return f"ignored {what}, {format_size(size)}: " + ", ".join(rules)


def note_skipped(skipped: tuple[SkippedEntry, ...], snapshot_id: str) -> None:
    for entry in skipped[:_SKIPPED_SHOWN]:
        output.note(f"skipped {display(entry.path)}: {entry.reason}")
    more = len(skipped) - _SKIPPED_SHOWN
    if more > 0:
        output.note(f"and {more:,} more; all in `castfs show {snapshot_id}`")
