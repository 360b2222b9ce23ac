"""How a long operation tells how far it is: the command line draws a bar, others ignore it."""

from __future__ import annotations

from typing import Literal


class Progress:
    """Ignores everything; subclass it to show something.

    Calls come from the thread that runs the operation, at most a few hundred a second.
    """

    def phase(
        self, name: str, *, total: int | None = None, unit: Literal["files", "bytes"] = "files"
    ) -> None:
        """A new part begins; `total` is None where nobody knows it yet."""

    def advance(self, count: int, size: int = 0) -> None:
        """`count` more files with `size` more bytes are done."""


SILENT = Progress()
