"""`assets.json` of a run: what it keeps, and where that lies.

Locks are whatever context managers the program uses for the file (Runicorn's are filelock's).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from castfs import atomic
from castfs.compat.runicorn.assets import layout
from castfs.compat.runicorn.assets.writing import make_dirs

Document = dict[str, Any]
Lock = AbstractContextManager[Any]


def ensure_assets_file(path: Path) -> None:
    """One that names nothing, if there is none."""
    if not path.exists():
        _write(path, {"code": {}, "config": {}, "datasets": [], "pretrained": [], "outputs": []})


def read_assets(path: Path) -> Document:
    """An empty one if there is none. DamageError."""
    return layout.read_assets(path) if path.exists() else {}


def update_assets_atomic(
    path: Path, lock: Lock, updater: Callable[[Document], Document | None]
) -> Document:
    """What `updater` makes of it, or did with it, is written and returned. DamageError for one that
    cannot be read: what it names would be forgotten."""
    with lock:
        document = read_assets(path)
        document = updater(document) or document
        _write(path, document)
    return document


def write_assets_atomic(path: Path, lock: Lock, data: Document) -> None:
    with lock:
        _write(path, data)


def _write(path: Path, document: Document) -> None:
    make_dirs(path.parent)
    atomic.write_file(path, [json.dumps(document, ensure_ascii=False, indent=2).encode()])
