"""What was left out of a scan: by rules, by the format's limits, or as unreadable."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict

from castfs.errors import LimitError, SourceError, UnreadableError
from castfs.ignore import Rule
from castfs.ingest.beneath import open_beneath
from castfs.ingest.options import Ignored, ScanOptions, SkippedEntry
from castfs.ingest.reading import EXHAUSTED
from castfs.paths import display

_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Losses:
    """Counts and lists. Belongs to one thread."""

    def __init__(self) -> None:
        self._ignored: defaultdict[Rule, list[int]] = defaultdict(lambda: [0, 0])
        self.skipped: list[SkippedEntry] = []
        self.unreadable: list[tuple[bytes, str]] = []

    def ignore(self, rule: Rule, status: os.stat_result, dir_fd: int, name: str) -> None:
        """`rule` drops the entry: count it with all that is below it."""
        entries, size = 1, status.st_size if stat.S_ISREG(status.st_mode) else 0
        if stat.S_ISDIR(status.st_mode):
            below = _measure(dir_fd, name)
            entries, size = entries + below[0], size + below[1]
        total = self._ignored[rule]
        total[0] += entries
        total[1] += size

    def skip_special(self, path: bytes, status: os.stat_result) -> None:
        kind = _SPECIAL.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
        self.skipped.append(SkippedEntry(path, f"{kind}, which a snapshot cannot hold"))

    def fail(self, path: bytes, reason: str, *, vanished: bool = False) -> None:
        """An entry that should be there. What vanished was not there at the end either: that is no
        reason to refuse the rest."""
        if vanished:
            self.skipped.append(SkippedEntry(path, reason))
        else:
            self.unreadable.append((path, reason))

    def fail_entry(self, path: bytes, exc: OSError) -> None:
        """The same, by what the kernel said. Raised again if it is this process that lacks
        something: the next entry would fail for the same reason."""
        if exc.errno in EXHAUSTED:
            raise exc
        vanished = isinstance(exc, FileNotFoundError | NotADirectoryError)
        reason = "vanished while it was read" if vanished else exc.strerror or str(exc)
        self.fail(path, reason, vanished=vanished)

    def ignored(self) -> tuple[Ignored, ...]:
        """By rule, what dropped most bytes first."""
        rows = [Ignored(rule, entries, size) for rule, (entries, size) in self._ignored.items()]
        return tuple(sorted(rows, key=lambda row: (-row.size_bytes, -row.entries, row.rule.origin)))

    def settle(self, options: ScanOptions) -> None:
        """UnreadableError if anything could not be read, unless that was allowed."""
        if not self.unreadable:
            return
        self.unreadable.sort()
        if options.skip_unreadable:
            self.skipped += [SkippedEntry(path, reason) for path, reason in self.unreadable]
            return
        first, reason = self.unreadable[0]
        count = len(self.unreadable)
        raise UnreadableError(
            f"{count} {'entry' if count == 1 else 'entries'} could not be read, the first is "
            f"{display(first) or 'the directory itself'}: {reason}; nothing was stored",
            self.unreadable,
            hint="make them readable, ignore them, or take the rest with --skip-unreadable",
        )

    def refuse_empty(self, source: bytes, *, single: bool) -> None:
        """A snapshot of nothing, although there was something, is a mistake in the rules; and a
        `single` file that cannot be had leaves nothing to record."""
        if single:
            reason = self.skipped[0].reason if self.skipped else "it vanished"
            raise SourceError(f"cannot read {display(source)}: {reason}; nothing was stored")
        rows = self.ignored()
        if rows:
            rule = rows[0].rule
            pattern = display(os.fsencode(rule.pattern))
            raise SourceError(
                f"everything in {display(source)} is ignored, most of it by {pattern} "
                f"({rule.origin})",
                hint="change that option"
                if rule.origin.startswith("--")
                else "change the rule, or take everything with --no-ignore",
            )


class Limits:
    """--max-files and --max-bytes, checked while the tree is walked."""

    def __init__(self, options: ScanOptions) -> None:
        self._options = options
        self.files = 0
        self.size = 0

    def count(self, size: int) -> None:
        self.files += 1
        self.size += size
        limit = self._options.max_files
        if limit is not None and self.files > limit:
            raise LimitError(
                f"more than {limit:,} files; nothing was stored",
                hint="ignore what is not needed, or raise --max-files",
            )
        limit = self._options.max_bytes
        if limit is not None and self.size > limit:
            raise LimitError(
                f"more than {limit:,} bytes; nothing was stored",
                hint="ignore what is not needed, or raise --max-bytes",
            )


def _measure(dir_fd: int, name: str) -> tuple[int, int]:
    """Entries and bytes below a directory, of any depth, as far as they can be seen."""
    entries = size = 0
    pending = [os.fsencode(name)]
    while pending:
        path = pending.pop()
        try:
            fd = open_beneath(dir_fd, path, None)
        except OSError:
            continue
        try:
            with contextlib.suppress(OSError), os.scandir(fd) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path + b"/" + os.fsencode(entry.name))
                        continue
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        finally:
            os.close(fd)
    return entries, size
