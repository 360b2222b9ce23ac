"""Directories that both systems can keep, and what `find` and `cat` would say of them."""

from __future__ import annotations

import os
from pathlib import Path

CONTENTS = {
    "train.py": b"print('hello')\n",
    "empty": b"",
    "binary": bytes(range(256)) * 5000,
    "sub/.hidden": b"hidden\n",
    "sub/copy of train.py": b"print('hello')\n",
    "sub/deeper/and/deeper/f": b"deep\n",
    "ünïcode/目录/\U0001f9ca.txt": "ü".encode(),
    "quotes/\"double\" \\ 'single'": b"q",
    "quotes/tab\tand\nnewline": b"n",
    "quotes/␛ff": b"not an escape",
    "-rf": b"a leading dash",
    "n" * 255: b"long",
}


def write_tree(root: Path) -> Path:
    for name, content in CONTENTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    """Path → content of every regular file below `root`, found without castfs."""
    found = {}
    for where, _, names in os.walk(root):
        for name in names:
            path = Path(where, name)
            assert path.is_file()
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found
