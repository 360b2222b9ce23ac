"""What mounts say of themselves, and the kernel's table."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from castfs import settings
from castfs.errors import MountError
from castfs.mount import MountOptions, MountRequest, MountStatus, mountinfo, registry
from castfs.mount.resolving import resolve_mountpoint

ODD = Path("/tmp/\udcff new\nline")


def make_status(mountpoint: Path = ODD) -> MountStatus:
    return MountStatus(
        mountpoint=mountpoint,
        manifest_id="ab" * 32,
        record_id=None,
        label="\udcff",
        since=1.5,
        pid=os.getpid(),
        store=Path("/s\udc80"),
        options="ro",
        log=Path("/log"),
        warnings=("one", "two"),
    )


def test_codec() -> None:
    status = make_status()
    assert MountStatus.decode(status.encode()) == status
    request = MountRequest(
        mountpoint=ODD,
        blob_dir=Path("/b"),
        manifest_id="ab" * 32,
        manifest_file=Path("/m"),
        options=MountOptions(uid=5, verify=True, allow_other=False),
    )
    assert MountRequest.decode(request.encode()) == request


def test_an_entry_lives_as_long_as_its_owner() -> None:
    registry.ensure_directory()
    status = make_status()
    assert registry.find_entry(ODD) is None
    with registry.entered(status):
        assert registry.find_entry(ODD) == (status, True)
        assert registry.is_alive(status)
        registry.remove_dead_entries(set())
        assert registry.find_entry(ODD) == (status, True)
        with registry.entered(status):  # a later mount at the same place
            pass
        assert registry.find_entry(ODD) is None
    assert list(registry.directory().iterdir()) == []


def test_dead_entries_go_with_their_mount() -> None:
    registry.ensure_directory()
    with registry.entered(make_status()):
        (path,) = registry.directory().iterdir()
        content = path.read_bytes()
    path.write_bytes(content)
    assert registry.find_entry(ODD) == (make_status(), False)
    registry.remove_dead_entries({ODD})
    assert path.exists()
    registry.remove_dead_entries(set())
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"mountpoint": 1}', b"\xff"])
def test_what_is_no_entry_is_passed_over(content: bytes) -> None:
    registry.ensure_directory()
    with registry.entered(make_status()):
        (path,) = registry.directory().iterdir()
    path.write_bytes(content)
    assert registry.find_entry(ODD) is None
    registry.remove_dead_entries(set())


def test_one_mount_at_a_time_is_made_in_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is at it, wherever the logs are."""
    odd, elsewhere = tmp_path / ODD.name, tmp_path / "elsewhere"
    for path in (odd, elsewhere):
        path.mkdir()
    registry.ensure_directory()
    with registry.starting(odd):
        with pytest.raises(MountError, match="just being mounted"), registry.starting(odd):
            pass
        with registry.starting(elsewhere):
            pass
        monkeypatch.setattr(settings, "state_dir", lambda: tmp_path / "of another user")
        registry.ensure_directory()
        with pytest.raises(MountError, match="just being mounted"), registry.starting(odd):
            pass
    with registry.starting(odd):
        pass


def test_a_log_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "state_dir", lambda: tmp_path / "missing")
    with (
        pytest.raises(MountError, match=r"No such file.*XDG_STATE_HOME"),
        registry.starting(tmp_path),
    ):
        pass


def test_old_logs_are_deleted() -> None:
    registry.ensure_directory()
    now = time.time()
    old, listed, new = (registry.log_path(Path(name)) for name in ("/old", "/listed", "/new"))
    for path in (old, listed, new):
        path.write_text("said")
    for path in (old, listed):
        os.utime(path, (now - 31 * 86400, now - 31 * 86400))
    listed.with_suffix(".json").write_text("")
    registry.remove_old_logs(now)
    assert [path.exists() for path in (old, listed, new)] == [False, True, True]


def test_a_home_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "state_dir", lambda: Path("~/.local/state/castfs"))
    with pytest.raises(MountError, match="set XDG_STATE_HOME"):
        registry.ensure_directory()


def test_a_line_of_mountinfo() -> None:
    line = (
        rb"41 28 0:38 / /mnt/a\040b\012c\134d ro,nosuid,nodev,relatime shared:7 master:2 - "
        rb"fuse.castfs castfs:abc rw,user_id=1000,group_id=5,allow_other"
    )
    mounted = mountinfo._parse(line)
    assert mounted.mountpoint == Path("/mnt/a b\nc\\d")
    assert (mounted.mount_id, mounted.parent_id, mounted.device) == (41, 28, (0, 38))
    assert mounted.is_castfs
    assert (mounted.manifest_id, mounted.owner) == ("abc", 1000)
    assert mounted.options == "ro,nosuid,nodev,relatime"
    other = mountinfo._parse(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw")
    assert (other.is_castfs, other.owner) == (False, None)


def test_where_a_path_leads(tmp_path: Path) -> None:
    real = tmp_path.resolve() / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "link2").symlink_to(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("real/..")
    for name in ("real", "link", "link2", "link/", "link/../real", "up/link2"):
        assert resolve_mountpoint(tmp_path / name) == real
    assert resolve_mountpoint(tmp_path / "up") == tmp_path.resolve()
    assert resolve_mountpoint(tmp_path / "missing") == tmp_path.resolve() / "missing"
    assert resolve_mountpoint(tmp_path / "loop").name == "loop"
    assert resolve_mountpoint(Path("/")) == Path("/")
