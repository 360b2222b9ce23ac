"""Every failure that castfs tells its user about.

    CastfsError                      exit code 1
    ├── UsageError                   2   the arguments do not make sense
    ├── SourceError                  1   the ingested tree cannot be taken as it is
    │   └── UnreadableError          1   … with the list of what could not be read
    ├── LimitError                   1   --max-bytes or --max-files was exceeded
    ├── TargetError                  1   restore or export cannot write there
    ├── StoreError                   1   the store refuses (format, filesystem, permission)
    │   ├── NoStoreError            10   there is no store at that place
    │   └── BusyError               11   somebody else holds what is needed
    ├── MountError                   1   a mount cannot be made or ended
    │   └── MountBusyError          11   … because processes are using it
    ├── NotFoundError                4   no such snapshot, or path in one
    │   └── AmbiguousError           4   several readings; lists them
    └── DamageError                  5   stored bytes are not what they should be
        ├── ManifestError            5   a manifest is malformed or does not match its id
        └── BlobError                5   a blob is missing, short or has other content

`message` is one line that says what is wrong; `hint` one that says what to do. An OSError
outside this tree is one line without a hint; any other exception is a bug and prints a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class CastfsError(Exception):
    """Base of the tree. `exit_code` is the process's exit status when it reaches the top."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(CastfsError):
    exit_code = 2


class SourceError(CastfsError):
    """The directory to ingest is missing, vanished, or cannot be taken whole."""


class UnreadableError(SourceError):
    """Some entries could not be read. `entries` holds (path relative to the root, reason)."""

    def __init__(
        self, message: str, entries: Sequence[tuple[bytes, str]], *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.entries = tuple(entries)


class LimitError(CastfsError):
    """The tree is larger than the limit that the caller gave."""


class TargetError(CastfsError):
    """What should be written to (a restore's target, an export's file) is in the way."""


class StoreError(CastfsError):
    """The store cannot do it: unknown format, wrong filesystem, no permission, no space."""


class NoStoreError(StoreError):
    exit_code = 10


class BusyError(StoreError):
    exit_code = 11


class MountError(CastfsError):
    """A mount could not be made, found or ended."""


class MountBusyError(MountError):
    exit_code = 11


class NotFoundError(CastfsError):
    exit_code = 4


class AmbiguousError(NotFoundError):
    """A name has several readings. `candidates` holds a line for each."""

    def __init__(self, message: str, candidates: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class DamageError(CastfsError):
    exit_code = 5


class ManifestError(DamageError):
    """A manifest is malformed, hostile, or does not match its id. Names the entry."""


class BlobError(DamageError):
    """A blob is missing, has the wrong size, or has other content than its name says."""

    def __init__(self, message: str, *, digest: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.digest = digest
