"""Looking for outputs of a run, and keeping those that are complete, on Runicorn's own layout.

The rules are those of `castfs.runs.outputs`. `Run.scan_outputs_once` keeps outputs as versions in a
castfs store instead.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from castfs.compat.runicorn.assets.archive import (
    archive_dir,
    archive_dir_overwrite,
    archive_file,
    archive_file_overwrite,
    archive_file_overwrite_stat,
)
from castfs.compat.runicorn.assets.assets_json import Document, Lock, update_assets_atomic
from castfs.runs.outputs import Output, OutputScanner

log = logging.getLogger("castfs.compat.runicorn")

_CATEGORY = "outputs"


def scan_outputs_once(
    *,
    run_id: str,
    run_dir: Path,
    storage_root: Path,
    workspace_root: Path,
    output_dirs: Sequence[str | Path],
    assets_path: Path,
    assets_lock: Lock,
    state_path: Path,
    state_lock: Lock,
    patterns: Sequence[str] | None = None,
    stable_required: int = 2,
    min_age_sec: float = 1.0,
    mode: str = "rolling",
    log_snapshot_interval_sec: float = 60.0,
    state_gc_after_sec: float = 7 * 24 * 3600,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Look once, and put what is complete into the archive below `storage_root` and into
    `assets_path`: in its run's place with mode "rolling" (and logs always), else by content; with
    mode "overwrite_versions" each state is listed.

    Returns `run_id`, `scanned` (outputs that there are), `archived` and `changed` (those that were
    taken) and `archived_entries`. What fails is logged, and tried again by the next scan.
    UsageError; OSError or StoreError if the state cannot be read or written.
    """
    taker = _Taker(
        run_id, Path(storage_root) / "archive", Path(workspace_root), assets_path, assets_lock
    )
    with state_lock:
        scanner = OutputScanner(
            Path(workspace_root).expanduser(),
            [Path(each).expanduser().absolute() for each in output_dirs],
            patterns,
            stable_required=stable_required,
            min_age_sec=min_age_sec,
            mode=mode,
            log_snapshot_interval_sec=log_snapshot_interval_sec,
            state_gc_after_sec=state_gc_after_sec,
            state_file=Path(state_path),
            take=taker.take,
            keep_out=[taker.archive],
        )
        report = scanner.scan_once(should_stop=should_stop or (lambda: False))
    for failed in report.failed:
        log.warning("cannot take %s: %s", failed.key, failed.reason)
    seen = (report.taken, report.waiting, report.failed)
    return {
        "run_id": run_id,
        "scanned": sum(map(len, seen)) + report.unchanged,
        "archived": len(taker.entries),
        "changed": len(taker.entries),
        "archived_entries": taker.entries,
    }


class _Taker:
    def __init__(
        self, run_id: str, archive: Path, workspace: Path, assets_path: Path, assets_lock: Lock
    ) -> None:
        self.archive = archive
        self.entries: list[Document] = []
        self._run_id, self._workspace = run_id, workspace
        self._assets_path, self._assets_lock = assets_path, assets_lock

    def take(self, output: Output) -> str:
        key = output.key
        archived = self._archive(output)
        entry = {
            "key": key,
            "name": output.path.name,
            "kind": output.kind,
            "path": key if os.path.isabs(key) else f"./{key}",
            "saved": True,
            "archive_path": archived["archive_path"],
            "fingerprint_kind": archived["fingerprint_kind"],
            "fingerprint": archived["fingerprint"],
            "mode": output.mode,
            "archived_at": int(time.time()),
        }
        is_new = False

        def note(document: Document) -> Document:
            nonlocal is_new
            is_new = _note(document, entry)
            return document

        update_assets_atomic(self._assets_path, self._assets_lock, note)
        if is_new:
            self.entries.append(entry)
        return str(entry["fingerprint"])

    def _archive(self, output: Output) -> dict[str, Any]:
        if output.mode != "rolling":
            by_content = archive_dir if output.kind == "dir" else archive_file
            return by_content(output.path, self.archive, category=_CATEGORY)
        overwrite = archive_file_overwrite
        if output.kind == "dir":
            overwrite = archive_dir_overwrite
        elif output.is_log:
            overwrite = archive_file_overwrite_stat
        return overwrite(
            output.path, self.archive, category=_CATEGORY, run_id=self._run_id, key=output.key
        )


def _note(document: Document, entry: Document) -> bool:
    """False if the newest entry of that output says the same."""
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        outputs = document["outputs"] = []
    places = [
        place
        for place, each in enumerate(outputs)
        if isinstance(each, dict) and each.get("key") == entry["key"]
    ]
    if places and all(
        outputs[places[-1]].get(name) == entry[name] for name in ("fingerprint", "mode")
    ):
        return False
    if places and entry["mode"] != "overwrite_versions":
        outputs[places[0]] = entry
    else:
        outputs.append(entry)
    return True
