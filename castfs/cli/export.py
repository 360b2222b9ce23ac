"""`castfs export`: a snapshot as an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.progress import progress_bar
from castfs.cli.snapshot_word import snapshot_arguments
from castfs.cli.units import format_count, format_size
from castfs.cli.words import PATH
from castfs.errors import UsageError
from castfs.paths import display

if TYPE_CHECKING:
    from pathlib import Path

    from castfs.archive import Format
    from castfs.older.exporting import ExportLayout


@verb("export")
@snapshot_arguments()
@click.argument("file", metavar="FILE|-", type=PATH)
@click.option(
    "--format", "kind", type=click.Choice(["tar", "tar.zst", "zip", "bundle", "runicorn"]),
    help="Instead of what FILE's suffix says. [default for -: tar]",
)  # fmt: skip
@click.option(
    "--layout", type=click.Choice(["assets", "artifacts"]),
    help="Of runicorn: that of 0.6.0 to 0.7.2, or of 0.5.3. [default: artifacts for a NAME]",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
def command(
    invocation: Invocation,
    *,
    snapshots: tuple[str, ...],
    file: Path,
    kind: str | None,
    layout: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write SNAPSHOT as an archive to FILE, or to stdout with `-`.

    The same tree gives the same bytes, on any machine. FILE appears when it is whole.

    A bundle (FILE ends in .castfs) is for `castfs import`: of each NAME all versions are in it, or
    those that are named (NAME:v3), with what is said of them and their runs. With `--format
    runicorn` FILE is a directory, which Runicorn's own package restores from; what that cannot hold
    is listed. These two take several snapshots.

    \b
    Examples:
      castfs export 0193a7c25d10 run.tar.zst
      castfs export sensors:latest data.zip --force
      castfs export ./run.json - | ssh host tar x -C /srv/run
      castfs export my-model my-model.castfs
      castfs export my-model:v3 my-data:v1 - --format bundle | ssh host castfs import -
      castfs export --format runicorn my-model ./runicorn-root
    """
    if layout is not None and kind != "runicorn":
        raise click.UsageError("--layout goes with --format runicorn")
    if kind == "runicorn":
        export_runicorn(invocation, snapshots, file, layout, as_json)
        return
    to_stdout = str(file) == "-"
    if to_stdout and as_json:
        raise click.UsageError("--json does not go with -: stdout holds the archive")
    if to_stdout and output.is_terminal():
        raise UsageError("an archive does not go to a terminal", hint="name a file, or redirect it")
    if kind == "bundle" or (kind is None and str(file).endswith(".castfs")):
        export_bundle(invocation, snapshots, file, to_stdout, force, as_json)
        return
    if len(snapshots) > 1:
        raise click.UsageError("one snapshot makes an archive; several go into a bundle (.castfs)")
    chosen = cast("Format | None", kind)
    found = invocation.find_snapshot(snapshots[0])
    with progress_bar() as progress:
        if to_stdout:
            found.export(output.binary_stdout(), format=chosen, progress=progress)
            return
        result = found.export(str(file), format=chosen, replace=force, progress=progress)
    if as_json:
        print_document(result)
    else:
        sizes = f"{format_count(result.file_count, 'file')}, {format_size(result.archive_bytes)}"
        output.line(output.one_line(f"exported {found.id} to {file}: {sizes}"))


def export_bundle(
    invocation: Invocation,
    words: tuple[str, ...],
    file: Path,
    to_stdout: bool,
    force: bool,
    as_json: bool,
) -> None:
    from castfs.bundles import exporting

    depot = invocation.open_store().depot
    target = output.binary_stdout() if to_stdout else file
    with progress_bar() as progress:
        result = exporting.export_bundle(depot, words, target, replace=force, progress=progress)
    if as_json:
        print_document(result)
        return
    if not to_stdout:
        output.line(
            output.one_line(
                f"exported {', '.join(words)} to {file}: "
                f"{format_count(result.version_count, 'version')}, "
                f"{format_count(result.run_count, 'run')}, {format_size(result.blob_bytes)}"
            )
        )
    for record_id in result.left_out:
        output.note(f"left out: snapshot {record_id}, which is no version")


def export_runicorn(
    invocation: Invocation,
    words: tuple[str, ...],
    target: Path,
    layout: str | None,
    as_json: bool,
) -> None:
    from castfs.catalog import reading
    from castfs.older import export_records
    from castfs.repository.naming import match_records

    depot = invocation.open_store().depot
    with reading(depot) as catalog:
        found = [match_records(catalog, word, newest_of_name=False) for word in words]
    records = list({record.id: record for each in found for record in each}.values())
    if layout is None:
        layout = "artifacts" if all(record.version is not None for record in records) else "assets"
    with progress_bar() as progress:
        report = export_records(
            depot, records, target, layout=cast("ExportLayout", layout), progress=progress
        )
    if as_json:
        print_document(report)
        return
    for loss in report.losses:
        output.note(output.one_line(f"not kept: {loss.name} {display(loss.path)}: {loss.reason}"))
    sizes = f"{format_count(report.file_count, 'file')}, {format_size(report.size_bytes)}"
    count = format_count(len(report.written), "version")
    output.line(output.one_line(f"exported {count} to {target}: {sizes}"))
