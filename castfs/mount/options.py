"""Mount options: `-o` with the names that mount(8) and FUSE have for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from castfs.errors import UsageError

#: (field, value) of each option without an argument.
_FLAGS: dict[str, tuple[str, bool] | None] = {
    "allow_other": ("allow_other", True),
    "default_permissions": None,  # always on
    "ro": None,  # always on
    "suid": ("suid", True),
    "nosuid": ("suid", False),
    "dev": ("dev", True),
    "nodev": ("dev", False),
    "exec": ("exec", True),
    "noexec": ("exec", False),
    "verify": ("verify", True),
    "passthrough": ("passthrough", True),
    "nopassthrough": ("passthrough", False),
}
_NUMBERS = {"uid": 10, "gid": 10, "umask": 8}
_KNOWN = [
    "allow_other", "uid=N", "gid=N", "umask=OCTAL", "verify", "passthrough", "nopassthrough", "ro",
    "nosuid", "nodev", "noexec", "suid", "dev", "exec", "default_permissions",
]  # fmt: skip
#: (uid_t)-1 is nobody's number.
_ID_MAX = 2**32 - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """`allow_other` None means the default: on for root, off for everybody else. `passthrough` None
    means: where it can be had, for trees of large files."""

    allow_other: bool | None = None
    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    verify: bool = False
    passthrough: bool | None = None
    suid: bool = False
    dev: bool = False
    exec: bool = True

    def is_shared(self, euid: int) -> bool:
        """May other users look into a mount that `euid` makes?"""
        return euid == 0 if self.allow_other is None else self.allow_other

    def flags(self) -> list[str]:
        """The options that belong to the kernel's mount, whoever mounts."""
        return [
            "ro",
            "suid" if self.suid else "nosuid",
            "dev" if self.dev else "nodev",
            *([] if self.exec else ["noexec"]),
        ]

    def __str__(self) -> str:
        """As `-o` takes them."""
        words = self.flags()
        if self.allow_other:
            words.append("allow_other")
        if self.uid is not None:
            words.append(f"uid={self.uid}")
        if self.gid is not None:
            words.append(f"gid={self.gid}")
        if self.umask:
            words.append(f"umask={self.umask:04o}")
        if self.verify:
            words.append("verify")
        if self.passthrough is not None:
            words.append("passthrough" if self.passthrough else "nopassthrough")
        return ",".join(words)


def parse_options(text: str) -> MountOptions:
    """The argument of `-o`: words separated by commas; of contradicting ones the last counts.

    UsageError names the word that is not understood, and those that are.
    """
    options = MountOptions()
    for word in filter(None, (part.strip() for part in text.split(","))):
        options = _apply(options, word)
    return options


def _apply(options: MountOptions, word: str) -> MountOptions:
    key, equals, value = word.partition("=")
    if key == "rw":
        raise UsageError("a snapshot cannot be mounted writable (option rw)", hint="leave rw away")
    if key in _NUMBERS:
        number: Any = _parse_number(key, value)
        return replace(options, **{key: number})
    if key not in _FLAGS or equals:
        raise UsageError(f"unknown mount option {word!r}", hint=f"known are: {', '.join(_KNOWN)}")
    change = _FLAGS[key]
    return options if change is None else replace(options, **{change[0]: change[1]})


def _parse_number(key: str, value: str) -> int:
    base = _NUMBERS[key]
    largest = 0o777 if base == 8 else _ID_MAX
    digits = "[0-7]{1,12}" if base == 8 else "[0-9]{1,12}"
    if re.fullmatch(digits, value) and (number := int(value, base)) <= largest:
        return number
    wanted = "octal, as in umask=022" if base == 8 else f"a number, as in {key}=1000"
    raise UsageError(f"mount option {key}={value} is not a valid {key}", hint=f"it is {wanted}")
