"""Code snapshots that nobody's package would write."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.older import filling
from castfs.older.importing import import_directory
from castfs.older.report import ImportReport
from tests.older.memory import Memory


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Where the zip of a run lies."""
    path = tmp_path / "root/runs/demo/20260115_100000_abc123/code_snapshot.zip"
    path.parent.mkdir(parents=True)
    (path.parent / "meta.json").write_text('{"path": "demo", "created_at": 1.5}')
    return path


def take(archive: Path) -> tuple[dict[str, bytes] | None, ImportReport]:
    """What became of the code, and the report."""
    memory = Memory()
    root = archive.parents[3]
    before = sorted(root.parent.rglob("*"))
    report = import_directory(memory, root)
    assert sorted(root.parent.rglob("*")) == before
    again = import_directory(memory, root)
    assert again.versions == ()
    assert set(again.damage) == set(report.damage)
    names = memory.names()
    return (memory.find("demo/code").files if "demo/code" in names else None), report


def write(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/etc/evil", "a/../../evil", "..", "a//b", "a/./b", "a/.."),
        *("x" * 300, "d/" * 3000 + "f"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_names(archive: Path, name: str) -> None:
    write(archive, [("good.py", b"good"), (name, b"evil")])
    files, report = take(archive)
    assert files == {"good.py": b"good"}
    assert len(report.damage) == 1
    assert report.damage[0].path.startswith(
        b"runs/demo/20260115_100000_abc123/code_snapshot.zip/" + name.encode()[:20]
    )


def test_name_with_a_nul(archive: Path) -> None:
    write(archive, [("aXb", b"evil"), ("good", b"good")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb", b"a\0b"))
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert len(report.damage) == 1


def test_name_of_nothing(archive: Path) -> None:
    write(archive, [("X", b"evil"), ("good", b"good")])
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace(b"X", b"\0"))
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert len(report.damage) == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_conflicts(archive: Path) -> None:
    write(
        archive,
        [("a", b"1"), ("a", b"2"), ("a/b", b"3"), ("d/e", b"4"), ("d", b"5"), ("./x", b"6")],
    )
    files, report = take(archive)
    assert files == {"a": b"1", "d/e": b"4", "x": b"6"}
    assert len(report.damage) == 3


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_what_is_no_file(archive: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    write(archive, [(entry, b"/etc/passwd"), ("good", b"good")])
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert "no regular file" in report.damage[0].reason


def test_encrypted(archive: Path) -> None:
    write(archive, [("secret", b"x"), ("good", b"good")])
    raw = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(magic) + offset] |= 1
    archive.write_bytes(raw)
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert "encrypted" in report.damage[0].reason


def test_unknown_method(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("packed", b"x" * 100, compress_type=zipfile.ZIP_BZIP2)
        out.writestr("good", b"good")
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert "unknown method" in report.damage[0].reason


def patch_size(raw: bytes, size: int) -> bytes:
    """The first entry's declared size, in both headers."""
    patched = bytearray(raw)
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = raw.index(magic) + offset
        patched[at : at + 4] = struct.pack("<L", size)
    return bytes(patched)


@pytest.mark.parametrize("size", [5, 5000])
def test_unpacks_to_another_size(archive: Path, size: int) -> None:
    write(archive, [("lies", b"x" * 1000), ("good", b"good")])
    archive.write_bytes(patch_size(archive.read_bytes(), size))
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert len(report.damage) == 1


def test_says_that_it_is_endless(archive: Path) -> None:
    write(archive, [("bomb", bytes(1000)), ("good", b"good")])
    archive.write_bytes(patch_size(archive.read_bytes(), 3 << 30))
    files, report = take(archive)
    assert files is None
    assert "no workspace" in report.damage[0].reason


def test_bomb(archive: Path) -> None:
    """2 GiB of zeros in 2 MiB, honestly declared."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        chunk = bytes(1 << 20)
        for number in range(3):
            with out.open(f"zeros{number}", "w", force_zip64=True) as file:
                for _ in range(400):
                    file.write(chunk)
    files, report = take(archive)
    assert files is None
    assert "no workspace" in report.damage[0].reason


def test_entries_that_share_bytes(archive: Path) -> None:
    write(archive, [(f"f{number:03}", b"%d" % number * 4000) for number in range(10)])
    raw = bytearray(archive.read_bytes())
    at = 0
    while (at := raw.find(b"PK\x01\x02", at)) >= 0:
        raw[at + 20 : at + 24] = struct.pack("<L", len(raw))  # compressed size
        at += 4
    archive.write_bytes(raw)
    files, report = take(archive)
    assert files is None
    assert "overlap" in report.damage[0].reason


def test_damaged_entry(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        out.writestr("bad", b"content")
        out.writestr("good", b"good")
    archive.write_bytes(archive.read_bytes().replace(b"content", b"CONTENT"))
    files, report = take(archive)
    assert files == {"good": b"good"}
    assert len(report.damage) == 1


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def nothing(raw: bytes) -> bytes:
    return b""


def wild_directory(raw: bytes) -> bytes:
    """A directory of 4 GiB, if the end is believed."""
    at = raw.rindex(b"PK\x05\x06")
    return raw[: at + 12] + struct.pack("<L", 0xFFFFFFF0) + raw[at + 16 :]


def wild_locator(raw: bytes) -> bytes:
    at = raw.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 2**63, 1)
    return raw[:at] + locator + raw[at:]


@pytest.mark.parametrize("spoil", [cut, nothing, wild_directory, wild_locator])
def test_no_zip(archive: Path, spoil: Callable[[bytes], bytes]) -> None:
    write(archive, [("good", b"good")])
    archive.write_bytes(spoil(archive.read_bytes()))
    files, report = take(archive)
    assert files is None
    assert len(report.damage) == 1


def test_large_entries_do_not_stay_in_memory(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_IN_MEMORY", 1000)
    content = bytes(range(256)) * 100
    write(archive, [("large", content), ("small", b"s")])
    files, report = take(archive)
    assert (files, report.damage) == ({"large": content, "small": b"s"}, ())


def test_other_zips_of_a_run(archive: Path) -> None:
    """The documents have `out_zip=run.run_dir / "code.zip"`, and nothing else remembers it."""
    write(archive.with_name("later.zip"), [("f", b"2")])
    write(archive, [("f", b"1")])
    memory = Memory()
    import_directory(memory, archive.parents[3])
    assert memory.find("demo/code").files == {"f": b"1"}
    assert memory.find("demo/later").files == {"f": b"2"}


def test_symlinked_zip(archive: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere.zip", [("f", b"1")])
    archive.symlink_to(tmp_path / "elsewhere.zip")
    files, report = take(archive)
    assert files is None
    assert "symbolic link" in report.damage[0].reason


def test_times_are_those_of_unzip(archive: Path) -> None:
    entry = zipfile.ZipInfo("odd", (1980, 0, 0, 0, 0, 0))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr(entry, b"x")
    archive.write_bytes(buffer.getvalue())
    files, report = take(archive)
    assert (files, report.damage) == ({"odd": b"x"}, ())
