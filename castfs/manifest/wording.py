"""How an error speaks of a manifest: one line of bounded length, whatever a stranger wrote."""

from __future__ import annotations

from castfs.errors import ManifestError
from castfs.paths import display

#: Characters of a reason. Room for two long paths as `castfs.paths.shown` cuts them.
_REASON_MAX = 1500


def bad_manifest(reason: object, *, hint: str | None = None) -> ManifestError:
    """The error to raise. `reason` may quote the manifest, or be another library's exception."""
    text = "nested too deeply" if isinstance(reason, RecursionError) else str(reason)[:_REASON_MAX]
    line = display(text.encode(errors="backslashreplace"))
    return ManifestError(f"bad manifest: {line}", hint=hint)
