"""`castfs import`: what lies elsewhere, into the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.progress import progress_bar
from castfs.cli.units import format_count, format_size
from castfs.cli.words import PATH
from castfs.errors import NoStoreError, UsageError
from castfs.paths import display

if TYPE_CHECKING:
    from castfs.bundles.importing import UnbundleResult
    from castfs.older import Format, ImportReport
    from castfs.progress import Progress
    from castfs.repository import Store

_FORMATS = ("bundle", "manifest", "runicorn", "runicorn-assets", "runicorn-artifacts", "blobs")


@verb("import")
@click.argument("path", metavar="PATH|-", type=PATH)
@click.option(
    "--format", "kind", type=click.Choice(_FORMATS), help="What PATH is. [default: by its looks]"
)
@click.option("-q", "--quiet", is_flag=True, help="Print the ids of new snapshots alone.")
@json_option
def command(
    invocation: Invocation, *, path: Path, kind: str | None, quiet: bool, as_json: bool
) -> int:
    """Take into the store what PATH holds: a manifest file, a bundle of `castfs export`, or an
    archive of an older system.

    A manifest file becomes a snapshot; contents that the store lacks are copied from where it lies.
    A bundle brings artifacts with their versions, what is said of them, and their runs; `-` reads
    one from stdin. What the store says of versions that it has already stays, and tags, values and
    aliases that it lacks are added. Of
    Runicorn's archives (its storage root, `archive` or `artifacts` directory) everything is taken
    that can be: versions, datasets, pretrained models, code, outputs, runs. Nothing of PATH is
    changed, what the store has already is not taken again, and what is damaged is listed; the exit
    code is 5 then, and 3 if something was empty.

    \b
    Examples:
      castfs import run.json
      castfs import digits.castfs --store /data/castfs
      ssh host castfs export digits - --format bundle | castfs import -
      castfs import ~/.runicorn
    """
    refuse_both(as_json, quiet)
    from castfs.bundles.importing import is_bundle

    from_stdin = str(path) == "-"
    if from_stdin and kind not in (None, "bundle"):
        raise click.UsageError("- reads a bundle, and nothing else")
    if from_stdin and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("a bundle does not come from a terminal", hint="name a file, or redirect")
    if from_stdin:
        kind = "bundle"
    elif kind is None and path.is_file():
        kind = "bundle" if is_bundle(path) else "manifest"
    store = _open_store(invocation, path, kind)
    with progress_bar(quiet=quiet) as progress:
        if kind == "bundle":
            source = output.binary_stdin() if from_stdin else path
            return _import_bundle(store, source, progress, quiet, as_json)
        if kind == "manifest":
            return _import_manifest(store, path, progress, quiet, as_json)
        return _import_archive(store, path, kind, progress, quiet, as_json)


def _open_store(invocation: Invocation, path: Path, kind: str | None) -> Store:
    """Made if need be, as by `ingest`; but not for what is no such thing."""
    try:
        return invocation.open_store()
    except NoStoreError:
        if kind == "manifest":
            from castfs.manifest import read_manifest_file

            read_manifest_file(path)
        elif kind != "bundle":
            from castfs.older.opening import open_archive

            with open_archive(path, format=kind):
                pass
    store = invocation.open_store(create=True)
    if store.created:
        output.note(f"created store at {store.path}")
    return store


def _import_manifest(
    store: Store, path: Path, progress: Progress, quiet: bool, as_json: bool
) -> int:
    result = store.import_manifest(path, progress=progress)
    if as_json:
        print_document(result)
    elif quiet:
        output.line(result.id)
    else:
        output.line(f"snapshot {result.id}")
        output.line(
            f"manifest {result.manifest_id}" + ("" if result.new_manifest else " (as before)")
        )
        output.line(
            f"added {format_count(result.added_count, 'blob')}, {format_size(result.added_bytes)}"
        )
    return 0


def _import_bundle(
    store: Store, source: Path | BinaryIO, progress: Progress, quiet: bool, as_json: bool
) -> int:
    from castfs.bundles.importing import import_bundle

    result = import_bundle(store.depot, source, progress=progress)
    if as_json:
        print_document(result)
    elif quiet:
        output.lines(result.added_ids)
    else:
        _tell_bundle(result)
    return 0


def _tell_bundle(result: UnbundleResult) -> None:
    output.lines(output.one_line(f"new: {version}") for version in result.added_versions)
    for merged in result.merged:
        more = [*(f"tag {tag}" for tag in merged.tags), *merged.metadata]
        if more:
            output.line(output.one_line(f"more of {merged.version}: {', '.join(more)}"))
    if len(result.added_versions) < result.version_count:
        output.lines(output.one_line(f"new alias: {alias}") for alias in result.set_aliases)
    known = result.version_count - len(result.added_versions) - len(result.deleted_versions)
    output.line(
        f"{format_count(len(result.added_versions), 'new version')}, {known:,} there before; "
        f"{format_count(result.added_runs, 'new run')}; "
        f"added {format_count(result.added_count, 'blob')}, {format_size(result.added_bytes)}"
    )
    for version in result.trashed_versions:
        output.note(f"in the trash: {version} (`castfs undelete {version}`)")
    for version in result.deleted_versions:
        output.note(f"deleted here before: {version}, which stays out")
    for merged in result.merged:
        for key in merged.kept:
            output.note(f"{merged.version} has another {key} here, which stays")
    for alias in result.kept_aliases:
        output.note(f"the alias {alias} means another version here, and stays")


def _import_archive(
    store: Store, path: Path, kind: str | None, progress: Progress, quiet: bool, as_json: bool
) -> int:
    from castfs.older import import_archive

    report = import_archive(
        store.depot, path, format=cast("Format | None", kind), progress=progress
    )
    if as_json:
        print_document(report)
    elif quiet:
        output.lines(version.id for version in report.versions)
    else:
        _tell(report)
    return report.exit_code


def _tell(report: ImportReport) -> None:
    for version in report.versions:
        name = f"{version.name}:v{version.version}" if version.name else version.id
        lacks = f", without {format_count(version.lacks, 'damaged file')}" if version.lacks else ""
        trash = ", in the trash as it was there" if version.deleted else ""
        count = format_count(version.file_count, "file")
        size = format_size(version.size_bytes)
        output.line(output.one_line(f"new: {name} ({count}, {size}{lacks}{trash})"))
    for renamed in report.renamed:
        output.note(
            output.one_line(f"renamed: {renamed.older} is {renamed.name}, {renamed.reason}")
        )
    for skipped in report.skipped:
        output.note(f"skipped: {display(skipped.path)}: {skipped.reason}")
    for damage in report.damage:
        output.note(f"damaged: {display(damage.path)}: {damage.reason}")
    output.line(
        f"{format_count(len(report.versions), 'new version')}, {report.unchanged:,} there before; "
        f"{format_count(report.runs, 'run')}"
        + (f"; {format_count(len(report.damage), 'damaged thing')}" if report.damage else "")
    )
