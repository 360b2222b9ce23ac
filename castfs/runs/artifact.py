"""An artifact: files and references that belong together, before it is logged and after."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from castfs.catalog import reading
from castfs.catalog.words import check_name, check_text
from castfs.errors import NotFoundError, SourceError, UsageError
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions
from castfs.paths import display, shown
from castfs.repository.drafting import Draft
from castfs.repository.lookup import resolve_snapshot
from castfs.repository.publishing import check_type
from castfs.repository.snapshot import Snapshot
from castfs.runs.checking import as_metadata, as_number, as_path, as_patterns, as_text
from castfs.runs.values import from_stored
from castfs.store import Depot, Record

if TYPE_CHECKING:
    from castfs.mount import MountStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactMetadata:
    """What is known of a logged artifact. Sizes in bytes, without references; times RFC 3339."""

    name: str
    type: str
    version: int
    created_at: str
    updated_at: str
    created_by_run: str | None
    created_by_user: str
    size_bytes: int
    num_files: int
    num_references: int
    status: str
    metadata: Mapping[str, Any]
    description: str
    tags: Sequence[str]
    aliases: Sequence[str]


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of an artifact. `digest` is `sha256:` and 64 hex digits; `modified_at` in seconds
    since the epoch."""

    path: str
    size: int
    digest: str
    modified_at: float


@dataclass(frozen=True, slots=True)
class ManifestReference:
    uri: str
    checksum: str | None
    size: int | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactManifest:
    """The files and references of an artifact. `total_size` counts files alone."""

    files: Sequence[ManifestFile]
    references: Sequence[ManifestReference]
    total_size: int
    total_files: int
    total_references: int
    created_at: str


@dataclass(slots=True)
class _Staged:
    """What was added and is not logged yet."""

    files: list[tuple[bytes, Path]] = field(default_factory=list)
    dirs: list[tuple[bytes, Path, tuple[str, ...]]] = field(default_factory=list)
    references: list[dict[str, Any]] = field(default_factory=list)


class Artifact:
    """Named content with versions. Made here it is filled and given to `Run.log_artifact`; one that
    `Run.use_artifact` returns is read."""

    def __init__(
        self,
        name: str,
        type: str = "model",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """UsageError for a name, type or anything else that cannot be."""
        self.name = check_name(name)
        self.type = check_type(type)
        self.description = as_text(description, "the description")
        self.metadata: dict[str, Any] = {}
        self.tags: list[str] = []
        self._staged = _Staged()
        self._bound: tuple[Depot, Record] | None = None
        self.add_metadata(metadata if metadata is not None else {})

    def __repr__(self) -> str:
        version = f":v{self.version}" if self._bound else ""
        return f"<castfs.Artifact {self.name}{version}>"

    # Filling it --------------------------------------------------------------------------------

    def add_file(self, path: str | os.PathLike[str], name: str | None = None) -> Self:
        """A file, as `name` (by default its own). It is read when the artifact is logged.
        SourceError."""
        source = as_path(path, "the file")
        if not os.path.isfile(source):
            what = "is no file" if os.path.lexists(source) else "does not exist"
            raise SourceError(
                f"{display(os.fsencode(source))} {what}", hint="give the path of a file"
            )
        own = _as_name(name) if name is not None else b""
        self._open().files.append((own or os.fsencode(source.name), source.resolve()))
        return self

    def add_dir(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        exclude_patterns: Sequence[str] | None = None,
    ) -> Self:
        """All of a directory, at the artifact's root or below `name`. Nothing is left out but what
        `exclude_patterns` (as in .gitignore) match. SourceError."""
        source = as_path(path, "the directory")
        if not os.path.isdir(source):
            what = "is no directory" if os.path.lexists(source) else "does not exist"
            raise SourceError(
                f"{display(os.fsencode(source))} {what}", hint="give the path of a directory"
            )
        own = _as_name(name).strip(b"/") if name is not None else b""
        excluded = as_patterns(exclude_patterns or (), "exclude_patterns")
        self._open().dirs.append((own, source.resolve(), excluded))
        return self

    def add_reference(
        self,
        uri: str | os.PathLike[str],
        checksum: str | None = None,
        size: int | None = None,
        name: str | None = None,
        **metadata: Any,
    ) -> Self:
        """Something that is too large to be copied: where it is (a URI, or a path of what there
        is), how to know it again, its size in bytes. SourceError, UsageError."""
        said = as_metadata(metadata, "the metadata")
        place = _as_uri(uri) if isinstance(uri, os.PathLike) else as_text(uri, "the URI")
        if not place:
            raise UsageError("a reference needs a URI", hint="say where it is")
        for word, what in ((checksum, "the checksum"), (name, "the name")):
            if word is not None:
                as_text(word, what)
        if size is not None and as_number(size, "the size") < 0:
            raise UsageError(f"{size!r} is no size", hint="give bytes, a whole number")
        self._open().references.append(
            {"uri": place, "checksum": checksum, "size": size, "name": name, "metadata": said}
        )
        return self

    def add_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Values as of `Run.log`. One that is `NAME:v3` is a link to that version."""
        said = as_metadata(metadata, "the metadata")
        self._open()
        self.metadata.update(from_stored(said))
        return self

    def add_tags(self, *tags: str) -> Self:
        check_text(*tags)
        self._open()
        self.tags += [tag for tag in dict.fromkeys(tags) if tag not in self.tags]
        return self

    def _open(self) -> _Staged:
        if self._bound:
            raise UsageError(
                f"{shown(self.name.encode())} is logged already",
                hint="make a new Artifact of the same name for the next version",
            )
        return self._staged

    def fill(self, draft: Draft) -> None:
        """Put what was added into a draft. SourceError, UnreadableError, UsageError."""
        staged = self._open()
        for name, source in staged.files:
            draft.add_file(name, source)
        for name, source, excluded in staged.dirs:
            # What belongs to a dataset is not for git's rules to decide, nor is anything else that
            # somebody named.
            ignore = IgnoreOptions(no_ignore=True, exclude=excluded)
            draft.add_dir(name, source, ScanOptions(ignore=ignore))
        for reference in staged.references:
            draft.add_reference(**reference)

    def bind(self, depot: Depot, record: Record) -> None:
        """From now on it is that version."""
        self._bound = depot, record
        self._staged = _Staged()

    @classmethod
    def of(cls, depot: Depot, record: Record) -> Artifact:
        """The artifact that a record is of."""
        self = cls.__new__(cls)
        self.name = record.name or record.id
        self.type = record.type or "custom"
        self.description = record.message or ""
        self.metadata = from_stored(record.metadata)
        self.tags = list(record.tags)
        self.bind(depot, record)
        return self

    # Reading it --------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """UsageError before it is logged."""
        return self._record.version or 0

    @property
    def full_name(self) -> str:
        return f"{self.name}:v{self.version}"

    @property
    def id(self) -> str:
        return self._record.id

    @property
    def _record(self) -> Record:
        if self._bound is None:
            raise UsageError(
                f"{shown(self.name.encode())} is not logged yet",
                hint="give it to run.log_artifact first",
            )
        return self._bound[1]

    @property
    def snapshot(self) -> Snapshot:
        """NotFoundError once it was removed; DamageError."""
        record = self._record
        assert self._bound is not None
        return resolve_snapshot(self._bound[0], record.id)

    def download(self, target_dir: str | os.PathLike[str] | None = None) -> Path:
        """The files as a directory of one's own, to write in as well: new, among the temporary ones
        of the system, or `target_dir`, where they replace those of the same names.

        TargetError, BlobError.
        """
        snapshot = self.snapshot
        if target_dir is None:
            word = "".join(c if c.isalnum() else "_" for c in self.name)[:80]
            target = Path(tempfile.mkdtemp(prefix=f"castfs_{word}_v{self.version}_"))
        else:
            target = as_path(target_dir, "the directory")
        try:
            snapshot.restore(target, if_exists="replace")
        except BaseException:
            if target_dir is None:
                shutil.rmtree(target, ignore_errors=True)
            raise
        if target_dir is None:
            target.chmod(0o700)
        elif not (mode := target.stat().st_mode) & 0o200:
            target.chmod(mode | 0o200)
        for path, entry in snapshot.iter_entries():
            # What is recorded without may have been read-only for a reason that is gone here.
            mode = getattr(entry, "mode", 0o200)
            if not mode & 0o200:
                place = target / os.fsdecode(path)
                place.chmod(place.stat().st_mode | 0o200)
        return target

    @contextlib.contextmanager
    def mount(self, mountpoint: str | os.PathLike[str] | None = None) -> Iterator[Path]:
        """Its files as a read-only directory, at `mountpoint` or a temporary one, until the block
        ends. MountError."""
        from castfs.mount import start_mount, unmount
        from castfs.repository.mounting import mount_request

        given = as_path(mountpoint, "the mount point") if mountpoint is not None else None
        place = given if given is not None else Path(tempfile.mkdtemp("", "castfs_"))
        status: MountStatus | None = None
        try:
            status = start_mount(mount_request(self.snapshot, place, label=self.full_name))
            yield status.mountpoint
        finally:
            if status is not None:
                # Whoever still has a file open may go on reading it.
                unmount(status.mountpoint, lazy=mountpoint is None)
            if mountpoint is None:
                with contextlib.suppress(OSError):
                    place.rmdir()

    def get_file_path(self, path: str) -> Path:
        """Where the content of one file lies in the store: read-only, and without its name.
        NotFoundError."""
        as_path(path, "the path")
        snapshot = self.snapshot
        entry = snapshot.get(path)
        digest = getattr(entry, "digest", None)
        if digest is None:
            raise NotFoundError(f"{display(os.fsencode(path))} is not a regular file")
        return snapshot.blobs.path / snapshot.blobs.name(digest)

    def get_metadata(self) -> ArtifactMetadata:
        record = self._record
        assert self._bound is not None
        aliases: list[str] = []
        with reading(self._bound[0]) as catalog:
            record = catalog.get(record.id) or record
            if record.name is not None and record.version is not None:
                aliases = catalog.aliases_of(record.name, record.version)
                latest = catalog.latest(record.name)
                if latest is not None and latest.id == record.id:
                    aliases.insert(0, "latest")
            is_deleted = catalog.deleted_ns(record.id) is not None
        return ArtifactMetadata(
            name=self.name,
            type=self.type,
            version=self.version,
            created_at=record.created_at,
            updated_at=record.created_at,
            created_by_run=record.run,
            created_by_user=record.user or record.host,
            size_bytes=record.total_size_bytes,
            num_files=record.file_count,
            num_references=len(record.references),
            status="deleted" if is_deleted else "ready",
            metadata=from_stored(record.metadata),
            description=record.message or "",
            tags=record.tags,
            aliases=tuple(aliases),
        )

    def get_manifest(self) -> ArtifactManifest:
        record = self._record
        described = {reference.path.encode() for reference in record.references}
        files = [
            ManifestFile(
                os.fsdecode(path), file.size_bytes, f"sha256:{file.sha256}", file.mtime_ns / 1e9
            )
            for path, file in sorted(self.snapshot.manifest.tree.files.items())
            if path not in described
        ]
        return ArtifactManifest(
            files=files,
            references=self.get_references(),
            total_size=sum(file.size for file in files),
            total_files=len(files),
            total_references=len(record.references),
            created_at=record.created_at,
        )

    def get_references(self) -> list[ManifestReference]:
        return [
            ManifestReference(each.uri, each.checksum, each.size_bytes, from_stored(each.metadata))
            for each in self._record.references
        ]


def _as_name(given: str) -> bytes:
    """A path in the artifact: bytes, as any name of a file. UsageError."""
    if given == "":
        return b""
    as_path(given, "the name")
    return os.fsencode(given)  # not the Path's: what has odd slashes is refused, not changed


def _as_uri(path: os.PathLike[str]) -> str:
    place = as_path(path, "the path")
    if not os.path.exists(place):
        raise SourceError(
            f"{display(os.fsencode(place))} does not exist",
            hint="give a path of what there is, or a URI as text",
        )
    return place.resolve().as_uri()
