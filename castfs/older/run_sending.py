"""A run's directory for Runicorn: its documents, and what it wrote of itself."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from castfs.older.events import write_events
from castfs.older.export_writing import ExportRun, replacing, write_json
from castfs.older.run_files import DOCUMENTS, EVENTS, MEDIA
from castfs.older.run_keeping import Taken, read_taken
from castfs.paths import escape, unescape
from castfs.runs.lines import LOG, parse_lines

#: Made anew from what is known of the run by now.
_OWN = (b"summary.json", b"meta.json", b"status.json", b"assets.json", b"artifacts_created.json",
        b"artifacts_used.json")  # fmt: skip


def write_run_documents(directory: Path, run: ExportRun, names: Mapping[str, Any]) -> None:
    """`names`: how the layout calls the run. OSError."""
    meta = {
        "id": run.id,
        **names,
        "created_at": run.created_at,
        "python": "",
        "platform": "",
        "hostname": run.host,
        "pid": 0,
        "storage_dir": "",
    }
    status: dict[str, Any] = {"status": run.status, "started_at": run.created_at}
    if run.ended_at is not None:
        status["ended_at"] = run.ended_at
    # What the older system said besides (its Python, its platform) is said again.
    said = _read_before(run, "meta.json")
    known = {"id": run.id, **names, "storage_dir": ""}
    write_json(directory / "meta.json", {**meta, **said, **known})
    said = _read_before(run, "status.json")
    if said.get("status") == "running" != run.status:
        said = {}
    write_json(directory / "status.json", {**status, **said})
    write_json(directory / "summary.json", run.summary)
    if run.directory is not None:
        _write_files(directory, run.directory)


def _read_before(run: ExportRun, name: str) -> dict[str, Any]:
    if run.directory is not None and name in read_taken(run.directory):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return msgspec.json.decode((run.directory / name).read_bytes(), type=dict[str, Any])
    return {}


def _write_files(directory: Path, source: Path) -> None:
    taken = read_taken(source)
    for key in taken:
        path = unescape(key)
        if path not in _OWN and (path in DOCUMENTS or path.startswith(MEDIA + b"/")):
            with _opened(source / os.fsdecode(path)) as file:
                if file is not None:
                    since = _events_since(source, taken) if path == EVENTS else ()
                    _write(directory / os.fsdecode(path), file, since)
    if escape(EVENTS) not in taken and (source / LOG).is_file():
        _write(directory / os.fsdecode(EVENTS), io.BytesIO(), _events_since(source, taken))


def _write(target: Path, file: IO[bytes], more: Iterable[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temp, open(temp, "xb") as out:
        shutil.copyfileobj(file, out)
        out.writelines(more)


def _events_since(source: Path, taken: Mapping[str, Taken]) -> Iterator[bytes]:
    """What was logged here, after what came in."""
    with _opened(source / LOG) as file:
        if file is not None:
            file.seek(taken[LOG].size if LOG in taken else 0)
            yield from write_events(parse_lines(file))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | None]:
    """None for what is gone, or no file any more: the directory is the user's."""
    if not path.is_file():
        yield None
        return
    with path.open("rb") as file:
        yield file
