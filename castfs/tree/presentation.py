"""Whose files a tree shows and with which modes: the mount's part in attributes."""

from __future__ import annotations

from dataclasses import dataclass

#: st_blocks counts these, whatever the filesystem's own blocks are (stat(2)).
BLOCK_SIZE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """`owner` and `group` have what the manifest records no owner for; `uid` and `gid`, if given,
    have everything. The bits of `umask` are cleared from every mode but a symlink's."""

    owner: int = 0
    group: int = 0
    uid: int | None = None
    gid: int | None = None
    umask: int = 0

    def uid_of(self, recorded: int | None) -> int:
        if self.uid is not None:
            return self.uid
        return self.owner if recorded is None else recorded

    def gid_of(self, recorded: int | None) -> int:
        if self.gid is not None:
            return self.gid
        return self.group if recorded is None else recorded

    def __str__(self) -> str:
        """All that attributes depend on, in letters for a file's name: two that differ only in what
        they would not show are the same."""
        uid = f"o{self.owner}" if self.uid is None else f"u{self.uid}"
        gid = f"o{self.group}" if self.gid is None else f"u{self.gid}"
        return f"{uid}-{gid}-{self.umask:03o}"
