"""One pass over a directory: this process walks, readers take what is new, the builder joins it.

Walk ──files──▶ Intake ──▶ Readers
  └──directories, symlinks──▶ TreeBuilder ◀──files──┘        Losses: what is left out, and why
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from castfs.errors import SourceError
from castfs.ingest.beneath import Identity
from castfs.ingest.builder import TreeBuilder
from castfs.ingest.intake import Intake
from castfs.ingest.losses import Losses
from castfs.ingest.options import ScanOptions, ScanResult
from castfs.ingest.presence import PresenceCheck
from castfs.ingest.readers import Readers
from castfs.ingest.statcache import StatCache
from castfs.ingest.walk import Walk
from castfs.manifest import make_manifest
from castfs.paths import display, escape
from castfs.progress import SILENT, Progress
from castfs.store import WriteSession


def scan(
    source: Path,
    *,
    session: WriteSession | None,
    cache: StatCache,
    options: ScanOptions,
    readers: int,
    presence: PresenceCheck | None = None,
    keep_out: Identity | None = None,
    progress: Progress = SILENT,
) -> ScanResult:
    """Read directory (or file) `source` into `session` and describe it.

    Without a session nothing is stored, only hashed. `readers` is how many processes may read.
    `presence` vouches for contents of a pinned manifest. `keep_out` is a directory that is left out
    wherever it turns up (the store). SourceError, UnreadableError, LimitError; StoreError and
    OSError where the store fails.
    """
    progress.phase("reading")
    started_ns = time.time_ns()
    tree, losses = TreeBuilder(options), Losses()
    root_fd, single = _open_root(source)
    try:
        with Readers(session, xattrs=tree.wants_xattrs, count=readers) as pool:
            intake = Intake(
                tree,
                losses,
                pool,
                session=session,
                cache=cache,
                presence=presence,
                progress=progress,
            )
            walk = Walk(
                os.fsencode(source), options, tree, losses, intake, cache=cache, keep_out=keep_out
            )
            if single:
                walk.take_single(root_fd, single, os.fsencode(source.name) or single)
            else:
                walk.run(root_fd)
            intake.finish(root_fd)
    finally:
        os.close(root_fd)
    losses.settle(options)
    if not tree.files and not tree.symlinks:
        losses.refuse_empty(os.fsencode(source), single=bool(single))
    manifest = make_manifest(
        tree.build(),
        created_at=started_ns // 1000 / 1e6,
        source_path=escape(os.fsencode(source.absolute())),
    )
    return ScanResult(
        manifest=manifest,
        added_count=intake.added[0],
        added_bytes=intake.added[1],
        # The other names of hard-linked files among them, which the intake never sees.
        deduplicated_count=len(manifest.tree.files) - intake.added[0],
        deduplicated_bytes=manifest.tree.total_size_bytes - intake.added[1],
        unchanged_count=intake.unchanged,
        ignored=losses.ignored(),
        skipped=tuple(sorted(losses.skipped, key=lambda entry: entry.path)),
    )


def _open_root(source: Path) -> tuple[int, bytes]:
    """A descriptor of the directory, and b""; of a file's directory, and its name.

    The root may be a symlink: the user named it. A file's directory need not be readable.
    """
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    shown = display(os.fsencode(source))
    try:
        status = source.stat()
        if stat.S_ISREG(status.st_mode):
            parent, name = os.path.split(os.path.realpath(os.fsencode(source)))
            return os.open(parent, flags | os.O_PATH), name
        if not stat.S_ISDIR(status.st_mode):
            raise SourceError(
                f"{shown} is neither a directory nor a regular file",
                hint="name the directory that it is in",
            )
        return os.open(source, flags | os.O_RDONLY), b""
    except OSError as exc:
        raise SourceError(f"cannot open {shown}: {exc.strerror}", hint="check the path") from exc
