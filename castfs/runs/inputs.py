"""What runs are given: where it is, or all of it; and what they are told."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from castfs.catalog.words import show_word
from castfs.errors import SourceError, UsageError
from castfs.paths import display
from castfs.runs.artifact import Artifact
from castfs.runs.checking import as_number, as_path
from castfs.runs.keeping import check_limits, stat_fingerprint
from castfs.runs.values import to_told

log = logging.getLogger("castfs.runs")

#: Of a URI: what has none may be a path that is not there.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def add_input(
    artifact: Artifact,
    place: str | os.PathLike[str],
    *,
    save: bool,
    limits: tuple[int, int] | None,
    warns: bool,
) -> None:
    """With `save` the files, no more than `limits` says (bytes, files); else where they are.
    SourceError, LimitError, UsageError."""
    source = as_path(place, "where it is")
    # Not Path.exists: a URI may be longer than a path can be.
    is_local = os.path.exists(source)
    if save:
        if not is_local:
            raise SourceError(
                f"{display(os.fsencode(source))} does not exist",
                hint="give a path, or log it without save=True",
            )
        if limits is not None:
            check_limits(source, *(as_number(limit, "the limit") for limit in limits))
        artifact.add_dir(source) if source.is_dir() else artifact.add_file(source)
    elif is_local:
        artifact.add_reference(source, **stat_fingerprint(source))
    else:
        uri = os.fsdecode(place)
        if warns and not _SCHEME.match(uri):
            log.warning(
                "%s: there is no %s here; that is recorded as where it is",
                show_word(artifact.name),
                display(os.fsencode(uri)),
            )
        artifact.add_reference(uri)


def encode_config(args: Any, extra: Mapping[str, Any] | None) -> bytes:
    """A JSON document of both. UsageError."""
    try:
        given = dict(args) if isinstance(args, Mapping) else {} if args is None else vars(args)
        said = {
            "args": to_told(given, "the configuration"),
            "extra": to_told(dict(extra or {}), "the configuration"),
        }
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(
            f"the configuration cannot be recorded: {exc}", hint="give a mapping"
        ) from exc
    return f"{json.dumps(said, indent=2, sort_keys=True, allow_nan=False)}\n".encode()
