"""Metrics of a Runicorn run (`events.jsonl`) as lines of a castfs run's log, and back.

    {"ts": 1736937015.5, "type": "metrics", "data": {"loss": 0.5, "global_step": 3, "time": …}}
    {"at": "2025-01-15T10:30:15.500000+00:00", "step": 3, "data": {"loss": 0.5}}

Numbers that JSON does not have (NaN, Infinity) become text, as in all that is imported. Events of
other types (pictures) are no points; what is no event, such as the half line of a run that was
killed, is passed over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from castfs.older.documents import clean, get_number, get_time, parse_object
from castfs.older.guarded import Refused
from castfs.store.records import format_time

#: Longer ones are no events: nobody logs so much at a step, but a stranger's file may be one line.
_LINE_MAX = 16 << 20


def read_points(path: Path) -> Iterator[bytes]:
    """The lines of a log that says what the events in `path` say. OSError."""
    for raw in _iter_lines(path):
        with contextlib.suppress(Refused):
            event = parse_object(raw)
            data = event.get("data")
            if event.get("type") != "metrics" or not isinstance(data, dict):
                continue
            at = get_time(event, "ts") or get_time(data, "time")
            step = get_number(data, "global_step")
            kept = {key: data[key] for key in data if key not in ("global_step", "time")}
            line = {"at": at and format_time(at), "step": step, "data": clean(kept)}
            yield msgspec.json.encode(line) + b"\n"


def write_events(lines: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Lines of a log as events. A step that was not given is one more than the last."""
    last = -1
    for line in lines:
        data = line.get("data")
        if not isinstance(data, dict):
            continue
        step = line.get("step")
        last = step if isinstance(step, int) else last + 1
        seconds = _seconds(line.get("at"))
        said = {**data, "global_step": last, "time": seconds}
        event = {"ts": seconds, "type": "metrics", "data": said}
        yield json.dumps(event, ensure_ascii=False).encode(errors="replace") + b"\n"


def _seconds(at: object) -> float:
    try:
        return datetime.fromisoformat(str(at)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _iter_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        is_whole = True
        while raw := file.readline(_LINE_MAX):
            if is_whole and (raw.endswith(b"\n") or len(raw) < _LINE_MAX):
                yield raw
            is_whole = raw.endswith(b"\n")
