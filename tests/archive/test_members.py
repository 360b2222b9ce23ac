"""A tar archive that a stranger made, read member by member."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.archive import iter_members

LONG = "long/" + "x" * 200


def packed(*members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def read(raw: bytes) -> list[tuple[str, bytes]]:
    return [(member.name, member.read()) for member in iter_members(io.BytesIO(raw))]


def extended(kind: bytes, data: bytes, *, count: int = 1) -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, len(data)
    block = header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    return block * count


def pax(*records: bytes) -> bytes:
    data = b""
    for record in records:
        length = len(record) + 2
        length += len(str(length + len(str(length))))
        data += b"%d %s\n" % (length, record)
    return extended(tarfile.XHDTYPE, data)


def forged(size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with this field as its size."""
    header = tarfile.TarInfo("x")
    header.type = kind
    block = bytearray(header.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tarfile_writes(format: int) -> None:
    members = [("a", b""), ("b", b"x"), ("c", b"y" * 512), ("d", b"z" * 513), (LONG[:105], b"1")]
    if format != tarfile.USTAR_FORMAT:
        members += [(LONG, b"2"), ("ü", b"3")]
    assert read(packed(*members, format=format)) == members


def test_what_tar_writes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    raw = subprocess.run(
        ["tar", "-C", tmp_path, "-c", "file"], capture_output=True, check=True
    ).stdout
    assert read(raw) == [("file", (tmp_path / "file").read_bytes())]


def test_large_sizes() -> None:
    for header in (
        forged(b"\x80" + (2**40).to_bytes(11)),
        pax(b"size=1099511627776") + forged(b"0" * 12),
    ):
        member = next(iter(iter_members(io.BytesIO(header))))
        assert member.size == 2**40
        with pytest.raises(EOFError):
            member.read()


def test_what_is_not_read_is_passed_over() -> None:
    raw = packed(("a", b"1" * 600), ("b", b"2"))
    assert [member.name for member in iter_members(io.BytesIO(raw))] == ["a", "b"]


def test_a_pipe_is_read_to_its_end() -> None:
    file = io.BytesIO(packed(("a", b"1")))
    assert len(list(iter_members(file))) == 1
    assert file.read() == b""


@pytest.mark.parametrize(
    "before",
    [
        extended(tarfile.XHDTYPE, b"11 foo=bar\n", count=5000),
        extended(tarfile.GNUTYPE_LONGNAME, b"abc\0", count=5000),
        extended(tarfile.GNUTYPE_LONGNAME, b"a" * (1 << 17)),
        extended(tarfile.XHDTYPE, b"99 foo=bar\n"), extended(tarfile.XHDTYPE, b"foo"),
        extended(tarfile.XHDTYPE, b"5 \xff\n"), extended(tarfile.XHDTYPE, b"2 a=b\n"),
        pax(b"size=-1"), pax(b"size=-600"), pax(b"size=abc"), pax(b"size=" + b"9" * 30),
        pax(b"size=9999999999999999999"), pax(b"path=\xff\xfe"), pax(b"GNU.sparse.major=1"),
        pax(b"GNU.sparse.realsize=zz"), forged(b"\xff" * 12), forged(b"\xff" * 11 + b"\0"),
        forged(b"\x81" + b"\0" * 11), forged(b"-0000000001\0"), forged(b"\xff" * 12, b"L"),
        forged(b"\xff" * 12, b"x"), forged(b"0" * 12, b"2"), forged(b"0" * 12, b"5"),
        forged(b"0" * 12, b"g"), forged(b"0" * 12, b"S"), b"\1" * 512,
    ],
)  # fmt: skip
def test_hostile(before: bytes) -> None:
    with pytest.raises((ValueError, EOFError)):
        read(before + packed(("a", b"1")))


@pytest.mark.parametrize("length", [1, 511, 513, 600, 1023])
def test_cut_off(length: int) -> None:
    with pytest.raises(EOFError):
        read(packed(("a", b"1" * 600))[:length])


@given(st.binary(max_size=1200), st.integers(0, 3000))
def test_anything(noise: bytes, at: int) -> None:
    raw = packed(("a", b"1"), (LONG, b"2"))
    for data in (noise, raw[:at] + noise + raw[at + len(noise) :]):
        try:
            found: Iterable[object] = read(data)
        except (ValueError, EOFError):
            continue
        assert isinstance(found, list)
