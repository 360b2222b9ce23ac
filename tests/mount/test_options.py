"""The words that `-o` takes."""

from __future__ import annotations

import pytest

from castfs.errors import UsageError
from castfs.mount import MountOptions, parse_options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", MountOptions()),
        ("ro,nosuid,nodev,default_permissions", MountOptions()),
        ("allow_other", MountOptions(allow_other=True)),
        ("uid=1000,gid=0", MountOptions(uid=1000, gid=0)),
        ("umask=022", MountOptions(umask=0o022)),
        ("umask=77", MountOptions(umask=0o077)),
        ("noexec,verify", MountOptions(exec=False, verify=True)),
        ("noexec,exec,uid=1,uid=2", MountOptions(uid=2)),
        ("passthrough", MountOptions(passthrough=True)),
        ("passthrough,nopassthrough", MountOptions(passthrough=False)),
        ("suid,dev", MountOptions(suid=True, dev=True)),
        (" verify , ro,", MountOptions(verify=True)),
        ("uid=4294967294", MountOptions(uid=2**32 - 2)),
    ],
)
def test_understood(text: str, options: MountOptions) -> None:
    assert parse_options(text) == options
    assert parse_options(str(options)) == options


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rw", "cannot be mounted writable"),
        ("nonsense", "unknown mount option 'nonsense'; known are: allow_other, uid=N"),
        ("ro,allow_root", "unknown mount option 'allow_root'"),
        ("verify=yes", "unknown mount option 'verify=yes'"),
        ("passthrough=auto", "unknown mount option 'passthrough=auto'"),
        ("ro=1", "unknown mount option 'ro=1'"),
        ("uid=", "uid= is not a valid uid; it is a number, as in uid=1000"),
        ("uid=-1", "uid=-1 is not"),
        ("uid=root", "uid=root is not"),
        ("uid=4294967295", "is not a valid uid"),
        ("uid=\u0661", "is not a valid uid"),
        ("gid=1e3", "is not a valid gid"),
        ("umask=9", "is not a valid umask; it is octal, as in umask=022"),
        ("umask=1777", "is not a valid umask"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(text)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_sharing_is_roots_default() -> None:
    assert MountOptions().is_shared(0)
    assert not MountOptions().is_shared(1000)
    assert MountOptions(allow_other=True).is_shared(1000)
