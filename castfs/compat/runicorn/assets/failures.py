"""castfs's errors that are at the same time the ones which programs written for Runicorn catch."""

from __future__ import annotations

from castfs.errors import (
    BlobError,
    LimitError,
    ManifestError,
    NotFoundError,
    SourceError,
    TargetError,
    UsageError,
)


class WrongKindError(SourceError, ValueError):
    """A directory where a file is meant, or the other way round, or nothing at all."""


class BadDigestError(UsageError, ValueError):
    """Not 64 lower-case hexadecimal digits."""


class TooLargeError(LimitError, ValueError):
    """The workspace has more files or bytes than allowed."""


class TargetExistsError(TargetError, FileExistsError):
    """The directory to restore to is there, and nobody said `overwrite`."""


class NoManifestError(NotFoundError, FileNotFoundError):
    """There is no such manifest file."""


class BadManifestError(ManifestError, ValueError):
    """It is no manifest (json.JSONDecodeError is a ValueError too)."""


class NoFileError(NotFoundError, KeyError):
    """The manifest has no file of that path."""


class NoBlobError(BlobError, FileNotFoundError):
    """The blob is not there."""
