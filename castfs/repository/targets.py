"""Places that a user named to be written to."""

from __future__ import annotations

import os
from pathlib import Path

from castfs.errors import TargetError
from castfs.paths import display
from castfs.store import Depot


def refuse_inside(target: Path, depot: Depot, *, hint: str = "name another file") -> None:
    """TargetError for what lies in the store: a collector ends at a file that it does not know, and
    a file with a record's name would be taken for one."""
    real = Path(os.path.realpath(target))
    if real.is_relative_to(os.path.realpath(depot.path)):
        raise TargetError(
            f"{display(os.fsencode(target))} lies in the store {display(os.fsencode(depot.path))}",
            hint=hint,
        )
