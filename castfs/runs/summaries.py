"""`summary.json` of a run: what is said of it as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from castfs import atomic
from castfs.errors import StoreError, UsageError
from castfs.paths import display
from castfs.regular import read_regular
from castfs.runs.values import to_stored

SUMMARY = "summary.json"


def read_summary(path: Path) -> dict[str, Any]:
    """As it is stored (`castfs.runs.values`); what others wrote may have floats that JSON has not.
    An empty one if there is none. UsageError for what is no object: the file belongs to the run,
    and is not written over. StoreError if it cannot be read."""
    shown = display(os.fsencode(path))
    try:
        raw = read_regular(path)
        known = json.loads(raw) if raw is not None else None
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise StoreError(f"{shown} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{shown} is no JSON: {exc}", hint="mend it or delete it") from exc
    if not isinstance(known, dict):
        raise UsageError(f"{shown} is no JSON object", hint="mend it or delete it")
    return known


def write_summary(path: Path, known: Mapping[str, Any]) -> None:
    """Whole or not at all. StoreError; UsageError for what others wrote there that cannot be."""
    text = msgspec.json.format(msgspec.json.encode(to_stored(known, "the summary")))
    try:
        atomic.write_file(path, [text, b"\n"])
    except OSError as exc:
        raise StoreError(
            f"cannot write {display(os.fsencode(path))}: {exc.strerror}",
            hint="free some space, or see that you may write there; the old one stays",
        ) from exc
