"""One name for each thing of an archive, whatever others of the archive are called."""

from __future__ import annotations

from castfs.older.description import Renamed
from castfs.older.naming import make_name


class Namer:
    """The same (older name, type) always gets the same name; two never share one.

    Types had namespaces of their own: of a model and a dataset of one name, whichever comes first
    keeps it, and the other gets `-` and its type behind it.
    """

    def __init__(self, renamed: list[Renamed]) -> None:
        self._renamed = renamed
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def name(self, older: str, type: str, *, kind: str = "") -> str:
        """`kind` tells apart what the archive kept apart although name and type are the same."""
        known = self._names.get((older, f"{type} {kind}"))
        if known is not None:
            return known
        wanted = make_name(older, type)
        name, count = wanted, 1
        while name in self._taken:
            name = f"{wanted}-{type}" + (f"-{count}" if count > 1 else "")
            count += 1
        if name != older:
            reason = (
                "another thing has that name"
                if name != wanted
                else "castfs does not take the older name"
            )
            self._renamed.append(Renamed(older, name, reason))
        self._names[older, f"{type} {kind}"] = name
        self._taken.add(name)
        return name
