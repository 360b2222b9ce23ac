"""The types of arguments: what a word may be, checked before anything is done."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from castfs.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(I?B?)", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w|y)(?![a-z])")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern}\s*)+")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800, "y": 365 * 86400}
#: A thousand years: every date that can be computed with it exists.
_DURATION_MAX = 1000 * 365 * 86400


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
        from castfs.catalog.words import check_name

        try:
            return check_name(text)
        except UsageError as exc:
            self.fail(str(exc), param, ctx)


class TypeWord(TextWord):
    """What a snapshot is: model, dataset, config, code, custom, or a word of one's own."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        from castfs.repository.publishing import check_type

        try:
            return check_type(text)
        except UsageError as exc:
            self.fail(str(exc), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(each) for each in TYPES if each.startswith(incomplete)]


class AliasWord(TextWord):
    """An alias that can be set."""

    name = "alias"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        from castfs.catalog.words import check_alias

        try:
            return check_alias(text)
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


class DurationWord(click.ParamType[float]):
    """Seconds: `90s`, `30m`, `12h`, `30d`, `2w`, `1y`, `1h30m`; a number alone is 0 only."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        seconds = parse_duration(value)
        if seconds is None:
            self.fail(f"{value!r} is not a duration like 90s, 30m, 12h, 30d or 2w", param, ctx)
        return seconds


def parse_duration(text: str) -> float | None:
    text = text.strip().lower()
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text))
    return seconds if seconds <= _DURATION_MAX else None


class WhenWord(click.ParamType[float]):
    """A time: `7d` (ago), or a date and time (ISO 8601, local). Seconds since the epoch."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        now = datetime.now().astimezone()
        age = parse_duration(value)
        if age is not None:
            return now.timestamp() - age
        try:
            return datetime.fromisoformat(value).astimezone().timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not an age like 7d or a date like 2024-05-01", param, ctx)


#: Types that other systems have, too; any other word will do.
TYPES = ("model", "dataset", "config", "code", "custom")

PATH = PathWord()
ENTRY = EntryWord()
TEXT = TextWord()
NAME = NameWord()
TYPE = TypeWord()
ALIAS = AliasWord()
KEY_VALUE = KeyValueWord()
SIZE = SizeWord()
DURATION = DurationWord()
WHEN = WhenWord()
