"""`castfs reference`: a version that says where something is."""

from __future__ import annotations

from typing import Any

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.metadata import parse_metadata
from castfs.cli.snapshot_word import ARTIFACT
from castfs.cli.words import ALIAS, KEY_VALUE, SIZE, TEXT, TYPE
from castfs.errors import UsageError


class ChecksumWord(click.ParamType[str]):
    """`sha256:` and 64 hex digits; another algorithm's is recorded as it is."""

    name = "checksum"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from castfs.repository.referencing import check_checksum

        try:
            return check_checksum(str(value))
        except UsageError as exc:
            self.fail(str(exc), param, ctx)


@verb("reference")
@click.argument("name", metavar="NAME", type=ARTIFACT)
@click.argument("uri", metavar="URI|PATH", type=TEXT)
@click.option("--checksum", metavar="sha256:HEX", type=ChecksumWord(), help="What it must hash to.")
@click.option("--size", type=SIZE, metavar="SIZE", help="How large it is.")
@click.option("--type", "kind", type=TYPE, help="What it is: dataset, model, …")
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
@click.option("-q", "--quiet", is_flag=True, help="Print the snapshot's id alone.")
@json_option
def command(
    invocation: Invocation,
    *,
    name: str,
    uri: str,
    checksum: str | None,
    size: int | None,
    kind: str | None,
    tags: tuple[str, ...],
    meta: tuple[str, ...],
    message: str | None,
    aliases: tuple[str, ...],
    new_version: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a version of NAME that says where something is which is too large to take.

    Nothing is read or copied. In a mount the version is a directory with one small file that
    describes the reference. `castfs verify` compares the size of those that are files here (a path,
    or file:///…), and with --data their SHA-256.

    \b
    Examples:
      castfs reference imagenet s3://bucket/imagenet --size 150GB --type dataset
      castfs reference raw /data/raw.bin --checksum sha256:9f86d081884c7d65[…]
    """
    from castfs.repository.referencing import check_uri

    refuse_both(as_json, quiet)
    metadata = parse_metadata(meta)
    uri = check_uri(uri)  # a mistake must not create a store
    store = invocation.open_store(create=True)
    if store.created:
        output.note(f"created store at {store.path}")
    result = store.add_reference(
        name,
        uri,
        checksum=checksum,
        size=size,
        type=kind,
        tags=tags,
        metadata=metadata,
        message=message,
        aliases=aliases,
        new_version=new_version,
    )
    if as_json:
        print_document(result)
    elif quiet:
        output.line(result.id)
    else:
        output.line(f"snapshot {result.id}")
        said = "unchanged:" if result.unchanged else "version"
        output.line(output.one_line(f"{said} {result.name}:v{result.version}"))
