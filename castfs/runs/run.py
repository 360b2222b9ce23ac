"""A run: one execution of a program, with what it was given and what it made."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import msgspec

from castfs.catalog import RunFile, changing, reading
from castfs.catalog.files import RunStatus, run_path, runs_dir, write_run
from castfs.catalog.words import show_word
from castfs.digest import Digest
from castfs.errors import NotFoundError, UsageError
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions
from castfs.paths import display, escape
from castfs.progress import SILENT
from castfs.repository.drafting import Draft
from castfs.repository.naming import match_records, version_word
from castfs.repository.publishing import Details, Published, normalize_keys
from castfs.repository.recording import record_use
from castfs.repository.selecting import json_text
from castfs.repository.store import Store
from castfs.repository.taking import ingest
from castfs.runs import active
from castfs.runs.artifact import Artifact
from castfs.runs.checking import (
    as_metadata,
    as_number,
    as_path,
    as_paths,
    as_patterns,
    as_step,
    as_text,
    as_texts,
)
from castfs.runs.inputs import add_input, encode_config
from castfs.runs.keeping import as_name, take_output, tell_apart
from castfs.runs.lines import LOG, append_line, read_lines
from castfs.runs.liveness import Hold, hold_run, status_of
from castfs.runs.outputs import Output, OutputScanner, OutputWatcher, ScanReport
from castfs.runs.summaries import SUMMARY, read_summary, write_summary
from castfs.runs.values import from_stored
from castfs.store import Depot
from castfs.store.records import format_time

#: What a dataset or pretrained model may have before somebody has to say that it is meant.
INPUT_BYTES_MAX = 5 << 30
INPUT_FILES_MAX = 2_000_000

log = logging.getLogger("castfs.runs")

AnyPath = str | os.PathLike[str]


class Run:
    """An open or finished run. A context manager, which finishes it. Safe to use from several
    threads; several processes may use one by its id."""

    def __init__(self, depot: Depot, run_id: str, *, hold: Hold | None = None) -> None:
        """`hold` is that of one that begins here. NotFoundError if there is no such run."""
        self._depot = depot
        self.id = run_id
        self._hold = hold
        self._is_at_work = hold is not None
        self._guard = threading.Lock()
        self._scanners: dict[str, OutputScanner] = {}
        self._watcher: OutputWatcher | None = None
        self._pid = os.getpid()
        self._file()

    def __repr__(self) -> str:
        return f"<castfs.Run {self.id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return  # a child that was forked in between: the run goes on without it
        is_well = exc is None or (isinstance(exc, SystemExit) and exc.code in (None, 0))
        self.finish("finished" if is_well else "failed")

    def _file(self) -> RunFile:
        with reading(self._depot) as catalog:
            found = catalog.run(self.id)
        if found is None:
            raise NotFoundError(f"no run {show_word(self.id)}", hint="see `castfs runs`")
        return found

    def _work(self) -> None:
        """From now on this process is at work for it, unless it is over (`castfs.runs.liveness`).
        NotFoundError: what a removed run makes nobody could remove with it."""
        run = self._file()
        with self._guard:
            if not self._is_at_work and run.status == "running":
                self._hold = hold_run(self._depot, self.id)
            self._is_at_work = True

    # What it is ---------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return Store(self._depot)

    @property
    def run_dir(self) -> Path:
        """A directory of the run's own, for whatever it likes to write."""
        return runs_dir(self._depot) / self.id

    @property
    def project(self) -> str | None:
        return self._file().project

    @property
    def name(self) -> str | None:
        return self._file().name

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed`; `lost` if it was running when its process ended."""
        return status_of(self._depot, self._file())

    def is_there(self) -> bool:
        """Or was it removed, with its store perhaps?"""
        return run_path(self._depot, self.id).exists()

    @property
    def path(self) -> str:
        """`project/name`, or the id where it has neither."""
        run = self._file()
        return "/".join(filter(None, (run.project, run.name))) or self.id

    def finish(self, status: RunStatus = "finished") -> None:
        """It is over. Outputs that are watched are looked at a last time. Nothing the second
        time. A run that nobody finishes ends with its process: `failed` after an exception that
        nobody caught (as at the end of a `with`), else `finished`. UsageError for a status that
        there is not."""
        if status not in get_args(RunStatus):
            raise UsageError(
                f"a run cannot be {status!r}", hint=f"one of {', '.join(get_args(RunStatus))}"
            )
        self.stop_outputs_watch()
        active.remove(self)
        with self._changing() as (change, run):
            if run.finished_at is None:
                ended = msgspec.structs.replace(
                    run, status=status, finished_at=format_time(time.time())
                )
                write_run(change.depot, ended)
        self._is_at_work = True  # and nothing more to say about that
        if self._hold is not None:
            self._hold.let_go()

    @contextlib.contextmanager
    def _changing(self) -> Any:
        with changing(self._depot) as change:
            run = change.run(self.id)
            if run is None:
                raise NotFoundError(f"run {self.id} was removed", hint="see `castfs runs`")
            change.touch_run(self.id)
            yield change, run

    # What it says -------------------------------------------------------------------------------

    def log(self, data: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers of a step: a line in `log.jsonl` of the run's directory, whole or not at all.
        Those of numpy and the like are taken as plain ones, arrays as lists; a loss may be NaN.
        UsageError for what is none, with its key; StoreError; NotFoundError if the run was
        removed."""
        line = {
            "at": format_time(time.time()),
            "step": as_step(step) if step is not None else None,
            "data": as_metadata(data, "what is logged"),
        }
        if not self._is_at_work:
            self._work()
        try:
            append_line(
                self.run_dir / LOG, msgspec.json.encode(line) + b"\n", self._depot.file_mode
            )
        except FileNotFoundError as exc:
            raise NotFoundError(f"run {self.id} was removed", hint="see `castfs runs`") from exc

    def iter_log(self) -> Iterator[dict[str, Any]]:
        """What was logged, the oldest first: `at` (RFC 3339), `step` (or None), `data`. OSError."""
        return (from_stored(line) for line in read_lines(self.run_dir / LOG))

    def summary(self, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Add to what is said of the run as a whole, `summary.json`, values as of `log`; returns
        all of it."""
        said = as_metadata(data, "the summary") if data is not None else {}
        path = self.run_dir / SUMMARY
        if said:
            self._work()
        # Other processes may use the same run.
        with self._guard, self._changing():
            known = read_summary(path)
            if said:
                known |= said
                write_summary(path, known)
        return dict(from_stored(known))

    # What it keeps ------------------------------------------------------------------------------

    def snapshot_workspace(
        self,
        root: str | os.PathLike[str] = ".",
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        ignore_files: Sequence[str | os.PathLike[str]] = (),
        message: str | None = None,
        max_bytes: int | None = None,
        max_files: int | None = None,
    ) -> dict[str, Any]:
        """Take a directory as it is now; a run may do so several times.

        Returns `id`, `manifest_id`, `fingerprint`, `file_count`, `total_size_bytes`,
        `workspace_root`, and `files`: path → `sha256`, `size_bytes`. SourceError,
        UnreadableError, LimitError, StoreError.
        """
        options = ScanOptions(
            ignore=IgnoreOptions(
                include=as_patterns(include, "include"),
                exclude=as_patterns(exclude, "exclude"),
                ignore_files=as_paths(ignore_files, "ignore_files"),
            ),
            max_bytes=as_number(max_bytes, "max_bytes") if max_bytes is not None else None,
            max_files=as_number(max_files, "max_files") if max_files is not None else None,
        )
        self._work()
        details = Details(type="code", message=message or "workspace", run=self.id)
        source = as_path(root, "the workspace")
        result = ingest(
            self._depot, source, options=options, output=None, details=details, progress=SILENT
        )
        tree = self.store.resolve(result.id).manifest.tree
        return {
            "id": result.id,
            "manifest_id": result.manifest_id,
            "fingerprint": result.fingerprint,
            "workspace_root": str(source.resolve()),
            "file_count": result.file_count,
            "total_size_bytes": result.total_size_bytes,
            "files": {
                escape(path): {"sha256": file.sha256, "size_bytes": file.size_bytes}
                for path, file in tree.files.items()
            },
        }

    def store_blob(self, file_path: str | os.PathLike[str]) -> str:
        """Keep the content of one file as long as the run. Returns its SHA-256, 64 hex digits."""
        source = as_path(file_path, "the file")
        self._work()
        with Draft(self._depot, f"run {self.id}") as draft:
            file = draft.add_file(os.fsencode(source.name), source)
            details = Details(type="blob", run=self.id, message="blob")
            draft.commit(details, source=escape(os.fsencode(source.absolute())))
        return str(file.sha256)

    def get_blob_path(self, blob_id: str) -> Path:
        """Where a content lies: read-only, under its digest. NotFoundError."""
        if not re.fullmatch("[0-9a-f]{64}", as_text(blob_id, "the digest")):
            raise UsageError(f"{show_word(blob_id)} is not a SHA-256", hint="give 64 hex digits")
        blobs = self._depot.blobs
        digest = Digest(blob_id)
        if blobs.size(digest) is None:
            raise NotFoundError(f"no content {blob_id} in {self._depot.path}")
        return blobs.path / blobs.name(digest)

    # Artifacts ----------------------------------------------------------------------------------

    def log_artifact(self, artifact: Artifact, *, aliases: Sequence[str] = ()) -> int:
        """The next version of an artifact that this run made. Returns its number: that of the
        latest version if that is the same."""
        if not isinstance(artifact, Artifact):
            raise UsageError("this is no artifact", hint="give what castfs.Artifact(…) makes")
        published = self._log(
            artifact,
            Details(
                name=artifact.name,
                type=artifact.type,
                tags=artifact.tags,
                metadata=as_metadata(artifact.metadata, "the metadata"),
                message=artifact.description or None,
                aliases=as_texts(aliases, "aliases"),
                run=self.id,
            ),
        )
        assert published.record.version is not None
        return published.record.version

    def _log(self, artifact: Artifact, details: Details) -> Published:
        self._work()
        with Draft(self._depot, f"run {self.id}", keeps_first=True) as draft:
            artifact.fill(draft)
            if draft.repeated:
                log.warning(
                    "%s: added before, so the first is kept: %s",
                    artifact.name,
                    ", ".join(display(path) for path in draft.repeated[:5]),
                )
            published = draft.commit(details, source=f"run {self.id}")
        artifact.bind(self._depot, published.record)
        said, given = published.record.metadata, normalize_keys(details.metadata)
        if others := [key for key in given if said[key] != given[key]]:
            log.warning(
                "%s was made before, and keeps what was said of it: %s",
                show_word(version_word(published.record)),
                ", ".join(show_word(f"{key}={json_text(said[key])}") for key in others[:5]),
            )
        return published

    def use_artifact(self, word: str) -> Artifact:
        """`NAME:latest`, `NAME:v3`, `NAME:ALIAS`, and that this run was given it. NotFoundError."""
        if not as_text(word, "what is used"):
            raise UsageError("what is used has no name", hint="give NAME, NAME:v3 or NAME:ALIAS")
        self._work()
        with changing(self._depot) as change:
            record = match_records(change, word)[0]
            record_use(change, self.id, record)
        return Artifact.of(self._depot, record)

    # Inputs -------------------------------------------------------------------------------------

    def log_dataset(
        self,
        name: str,
        root_or_uri: str | os.PathLike[str],
        *,
        context: str = "train",
        save: bool = False,
        description: str | None = None,
        force_save: bool = False,
        max_archive_bytes: int = INPUT_BYTES_MAX,
        max_archive_files: int = INPUT_FILES_MAX,
    ) -> Artifact:
        """A dataset that this run reads. With `save` it is taken whole, as a version of `name`
        (LimitError if it is larger than it may be, unless `force_save`); else only where it is."""
        return self._log_input(
            Artifact(name, "dataset", description or "", {"context": context}),
            root_or_uri,
            save=save or force_save,
            limits=None if force_save else (max_archive_bytes, max_archive_files),
        )

    def log_pretrained(
        self,
        name: str,
        path_or_uri: str | os.PathLike[str] | None = None,
        *,
        save: bool = False,
        source_type: str | None = None,
        description: str | None = None,
        force_save: bool = False,
        max_archive_bytes: int = INPUT_BYTES_MAX,
        max_archive_files: int = INPUT_FILES_MAX,
    ) -> Artifact:
        """A model that this run begins with; otherwise as `log_dataset`."""
        given = path_or_uri if path_or_uri is not None else name
        place = as_path(given, "where the model is")
        kind = source_type or ("local" if os.path.exists(place) else "remote")
        return self._log_input(
            Artifact(name, "model", description or "", {"source_type": kind}),
            given,
            save=save or force_save,
            limits=None if force_save else (max_archive_bytes, max_archive_files),
            # Models have names elsewhere, too.
            warns=path_or_uri is not None and source_type in (None, "local"),
        )

    def _log_input(
        self,
        artifact: Artifact,
        place: str | os.PathLike[str],
        *,
        save: bool,
        limits: tuple[int, int] | None,
        warns: bool = True,
    ) -> Artifact:
        add_input(artifact, place, save=save, limits=limits, warns=warns)
        details = Details(
            name=artifact.name,
            type=artifact.type,
            metadata=as_metadata(artifact.metadata, "the metadata"),
            message=artifact.description or None,
            run=self.id,
        )
        record = self._log(artifact, details).record
        with changing(self._depot) as change:
            record_use(change, self.id, record, is_input=True)
        return artifact

    def log_config(
        self,
        args: Any = None,
        extra: Mapping[str, Any] | None = None,
        config_files: Sequence[str | os.PathLike[str]] = (),
    ) -> Artifact:
        """What this run was told: `args` (a mapping, or an object with attributes such as that of
        argparse), more of the kind, and files. A version of `<path of the run>/config`.

        Values are as of `log`, and what else there is becomes text. Files lie in `files` under
        their own names; those of one name under the last parts of their paths that tell them apart
        (`files/cA/c.yaml`, `files/cB/c.yaml`).
        """
        text = encode_config(args, extra)
        files = tell_apart(as_paths(config_files, "config_files"))
        self._work()
        name = f"{as_name(self.path)}/config"
        with Draft(self._depot, f"run {self.id}") as draft:
            draft.add_bytes(b"config.json", text)
            for own, path in files.items():
                draft.add_file(b"files/" + os.fsencode(own), path)
            details = Details(name=name, type="config", run=self.id)
            record = draft.commit(details, source=f"run {self.id}").record
        with changing(self._depot) as change:
            record_use(change, self.id, record, is_input=True)
        return Artifact.of(self._depot, record)

    # Outputs ------------------------------------------------------------------------------------

    def scan_outputs_once(
        self,
        output_dirs: AnyPath | Iterable[AnyPath],
        patterns: Iterable[str] | None = None,
        stable_required: int = 2,
        min_age_sec: float = 1.0,
        mode: str = "rolling",
        log_snapshot_interval_sec: float = 60,
        state_gc_after_sec: float = 7 * 24 * 3600,
        *,
        root: str | os.PathLike[str] = ".",
    ) -> ScanReport:
        """Look once for outputs that are complete, and keep each as a version of
        `<path of the run>/outputs/<its path>`. The rules are those of `castfs.runs.outputs`; what
        was taken is remembered in the run's directory."""
        return self._scanner(
            root,
            output_dirs,
            patterns,
            stable_required=stable_required,
            min_age_sec=min_age_sec,
            mode=mode,
            log_snapshot_interval_sec=log_snapshot_interval_sec,
            state_gc_after_sec=state_gc_after_sec,
        ).scan_once()

    def watch_outputs(
        self,
        output_dirs: AnyPath | Iterable[AnyPath],
        patterns: Iterable[str] | None = None,
        interval_sec: float = 10,
        *,
        root: str | os.PathLike[str] = ".",
        **rules: Any,
    ) -> None:
        """`scan_outputs_once` from a thread, every `interval_sec`, until the run is finished."""
        self.stop_outputs_watch()
        watcher = OutputWatcher(self._scanner(root, output_dirs, patterns, **rules), interval_sec)
        watcher.start()
        self._watcher = watcher

    def stop_outputs_watch(self) -> None:
        """With a last look. Nothing if none are watched."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()

    def _scanner(
        self,
        root: str | os.PathLike[str],
        output_dirs: AnyPath | Iterable[AnyPath],
        patterns: Iterable[str] | None,
        **rules: Any,
    ) -> OutputScanner:
        place = as_path(root, "the root")
        dirs = as_paths(output_dirs, "output_dirs")
        given = as_patterns(patterns or (), "patterns")
        key = repr(
            (
                os.path.abspath(place),
                [os.fspath(each) for each in dirs],
                given,
                sorted(rules.items()),
            )
        )
        with self._guard:
            if key not in self._scanners:
                self._scanners[key] = OutputScanner(
                    place,
                    dirs,
                    given,
                    state_file=self.run_dir / "outputs-state.json",
                    take=self._take_output,
                    keep_out=[self._depot.path],
                    **rules,
                )
            return self._scanners[key]

    def _take_output(self, output: Output) -> str:
        self._work()
        return take_output(
            self._depot, f"{as_name(self.path)}/outputs", output, run_id=self.id
        ).record.id
