"""How outputs and inputs of a run become versions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from castfs.errors import LimitError, SourceError
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions
from castfs.paths import display, escape
from castfs.repository.drafting import Draft
from castfs.repository.publishing import Details, Published
from castfs.runs.outputs import Output
from castfs.store import Depot

_ENDING = ".json"
_NO_NAME = re.compile(r"[^\w.+/-]+")
#: Bytes of a name that are left for what stands before or behind.
_PART_BYTES_MAX = 115


def take_output(
    depot: Depot, namespace: str, output: Output, *, run_id: str | None = None
) -> Published:
    """One output as the next version of its own name in a namespace."""
    with Draft(depot, f"output {output.key}") as draft:
        if output.kind == "dir":
            options = ScanOptions(ignore=IgnoreOptions(no_ignore=True))
            draft.add_dir(b"", output.path, options)
        else:
            draft.add_file(os.fsencode(output.path.name), output.path)
        details = Details(
            name=f"{namespace}/{_own_name(output.key)}",
            type="output",
            run=run_id,
            metadata={"mode": output.mode},
        )
        return draft.commit(details, source=escape(os.fsencode(output.path.absolute())))


def _own_name(key: str) -> str:
    """No two outputs share one: what a name cannot hold is told apart by a digest."""
    name, plain = as_name(key), key.strip("/")
    # `m.json` is called `m.json_`, so what is called so has to be called something else.
    if name == (_with_ending(plain) if not plain.endswith(f"{_ENDING}_") else None):
        return name
    return f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def as_name(text: str) -> str:
    """What is left of a path as a part of a name."""
    # As names are: what becomes the same by it is told apart before it does.
    parts = _NO_NAME.sub("_", unicodedata.normalize("NFC", text)).split("/")
    whole = "/".join(part if part.strip(".") else "_" for part in parts if part)
    whole = whole.lstrip("-~") or "_"
    while len(whole.encode()) > _PART_BYTES_MAX:
        whole = whole[1:]
    return _with_ending(whole).strip("/") or "_"


def _with_ending(name: str) -> str:
    """A name that ends so would be read as a manifest's file."""
    return f"{name}_" if name.endswith(_ENDING) else name


def tell_apart(paths: Iterable[Path]) -> dict[str, Path]:
    """Each file once, under as many of the last parts of its path as tell it from the others, and
    none below another."""
    whole = {Path(os.path.abspath(path)): path for path in paths}
    lengths = dict.fromkeys(whole, 1)
    while True:
        names = {path: path.parts[-length:] for path, length in lengths.items()}
        count = Counter(names.values())
        doubtful = [
            path
            for path, name in names.items()
            if count[name] > 1
            or any(name[:end] in count for end in range(1, len(name)))
            or any(name == other[: len(name)] for other in count if len(other) > len(name))
        ]
        longer = [path for path in doubtful if lengths[path] < len(path.parts) - 1]
        if not longer:
            return {"/".join(name): whole[path] for path, name in names.items()}
        for path in longer:
            lengths[path] += 1


def stat_fingerprint(source: Path) -> dict[str, Any]:
    """What tells whether something that was not read is still the same."""
    try:
        status = source.stat()
    except OSError as exc:
        raise SourceError(f"cannot read {display(os.fsencode(source))}: {exc.strerror}") from exc
    if not stat.S_ISDIR(status.st_mode):
        return {"mtime_ns": status.st_mtime_ns, "size": status.st_size}
    count = size = 0
    for at, _, names in os.walk(source):
        for name in names:
            # What went since it was listed does not count.
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(at, name)).st_size
                count += 1
    return {"mtime_ns": status.st_mtime_ns, "file_count": count, "size": size}


def check_limits(source: Path, bytes_max: int, files_max: int) -> None:
    known = stat_fingerprint(source)
    if known["size"] > bytes_max or known.get("file_count", 1) > files_max:
        raise LimitError(
            f"{display(os.fsencode(source))} has {known.get('file_count', 1):,} files and "
            f"{known['size']:,} bytes, more than {files_max:,} or {bytes_max:,}",
            hint="give force_save=True, or log it without save=True",
        )
