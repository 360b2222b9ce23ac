"""The types of arguments: what a word may be, checked before anything is done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from castfs.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(I?B?)", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


class PathWord(click.ParamType[Path]):
    """A path of the disk. An empty one is what a shell makes of an unset variable, and would mean
    the current directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if isinstance(value, Path):
            return value
        if not value:
            self.fail("the path is empty", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class EntryWord(click.ParamType[str]):
    """A path in a snapshot. An empty one is refused, too: it would mean all of it."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("the path is empty (`.` is the root)", param, ctx)
        return str(value)


class TextWord(click.ParamType[str]):
    """Text that a record can hold: UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail("it is not UTF-8", param, ctx)
        return str(value)


class NameWord(TextWord):
    """A snapshot's name: a word by which it can be found again (`castfs help snapshots`)."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        from castfs.repository.naming import check_name

        try:
            return check_name(text)
        except UsageError as exc:
            self.fail(str(exc), param, ctx)


class KeyValueWord(TextWord):
    """`key=value`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not text.partition("=")[0] or "=" not in text:
            self.fail(f"{text!r} is not of the form key=value", param, ctx)
        return text


class SizeWord(click.ParamType[int]):
    """Bytes: `1000`, `500M`, `1.5GiB` (powers of 1024), `2GB` (powers of 1000)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        size = parse_size(value)
        if size is None:
            self.fail(f"{value!r} is not a size like 500M, 1.5GiB or 2GB", param, ctx)
        return size


def parse_size(text: str) -> int | None:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, prefix, unit = match[1], match[2].upper(), match[3].upper()
    if not prefix and (unit.startswith("I") or "." in number):
        return None
    base = 1000 if unit == "B" else 1024
    factor = base ** _POWERS[prefix]
    return int(number) * factor if "." not in number else int(float(number) * factor)


PATH = PathWord()
ENTRY = EntryWord()
TEXT = TextWord()
NAME = NameWord()
KEY_VALUE = KeyValueWord()
SIZE = SizeWord()
