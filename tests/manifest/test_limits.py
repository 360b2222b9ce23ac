"""What a small hostile file may cost: seconds and memory in proportion to its own size."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.manifest.documents import sha256

#: Bytes that the reading process may have in all: the interpreter needs about 100 MB of them.
ADDRESS_SPACE = 1 << 30
#: Seconds of CPU; each of these takes well under one.
CPU = 20

READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({address_space}, {address_space}))
resource.setrlimit(resource.RLIMIT_CPU, ({cpu}, {cpu}))
from castfs.errors import ManifestError
from castfs.manifest import parse_manifest
raw = sys.stdin.buffer.read()
try:
    parse_manifest(raw)
except ManifestError as exc:
    print(exc)
else:
    print("accepted")
"""

HEADER = (
    b'{"created_at":1.0,"file_count":0,"fingerprint":"%s","format":"castfs-manifest","id":"%s",'
    b'"source_path":"","total_size_bytes":0,"version":1,' % (b"0" * 64, b"0" * 64)
)
FOOTER = b'},"files":{},"root":{"mode":0,"mtime_ns":0},"symlinks":{}}\n'
MEGABYTE = 1_000_000


def deep_older(files: int, depth: int) -> bytes:
    """Files below so many directories that share nothing."""
    entries = (
        b'"%05d%s/f":{"sha256":"%s","size_bytes":1}' % (i, b"/d" * depth, b"0" * 64)
        for i in range(files)
    )
    return b'{"files":{' + b",".join(entries) + b"}}"


BOMBS = {
    # 20 KB for 200 MB of directories' paths, and again for each table that holds them.
    "one path of 20,000 levels": deep_older(1, 19_990),
    "paths of 2,000 levels": deep_older(500, 2_000),
    "brackets": b"[" * 10 * MEGABYTE,
    "brackets for a format": b'{"format":' + b"[" * 10 * MEGABYTE,
    "lists for a format": b'{"format":[' + b"[]," * 3 * MEGABYTE + b"[]]}",
    "lists in an unknown key": b'{"files":{},"x":[' + b"[]," * MEGABYTE + b"[]]}",
    "the same key again and again": b'{"files":{' + b'"a":1,' * MEGABYTE + b'"b":1}}',
    "the same directory again and again": (
        HEADER + b'"dirs":{' + b'"a":{"mode":0,"mtime_ns":0},' * 300_000 + b'"b":{}' + FOOTER
    ),
    "numbers for directories": (
        HEADER + b'"dirs":{' + b",".join(b'"%07d":1' % i for i in range(MEGABYTE)) + FOOTER
    ),
    "the last directory is wrong": (
        HEADER
        + b'"dirs":{'
        + b"".join(b'"%07d":{"mode":0,"mtime_ns":0},' % i for i in range(300_000))
        + b'"x":1'
        + FOOTER
    ),
    "one key of ten megabytes": (
        HEADER + b'"dirs":{"' + b"a/" * 5 * MEGABYTE + b'":{"mode":0,"mtime_ns":0}' + FOOTER
    ),
    "one key of escapes": (
        HEADER + b'"dirs":{"' + "␛ff".encode() * MEGABYTE + b'":{"mode":0,"mtime_ns":0}' + FOOTER
    ),
    "digits": HEADER + b'"dirs":{"a":{"mode":' + b"9" * 10 * MEGABYTE + b"}" + FOOTER,
    "an attribute of ten megabytes": (
        HEADER
        + b'"dirs":{"a":{"mode":0,"mtime_ns":0,"xattrs":{"user.a":"'
        + b"A" * 10 * MEGABYTE
        + b'"}}'
        + FOOTER
    ),
}


@pytest.mark.parametrize("raw", BOMBS.values(), ids=BOMBS.keys())
def test_bomb(raw: bytes) -> None:
    program = READ.format(address_space=ADDRESS_SPACE, cpu=CPU)
    result = subprocess.run(
        [sys.executable, "-c", program], input=raw, capture_output=True, timeout=100, check=False
    )
    assert result.stderr == b""
    assert result.returncode == 0
    said = result.stdout.decode()
    assert len(said.splitlines()) == 1
    assert said.startswith(("bad manifest: ", "accepted"))
    # Nothing is wrong with data that nobody looks at.
    assert said.startswith("accepted") == (raw == BOMBS["lists in an unknown key"])


MEASURE = """
import resource, sys
from castfs.manifest import parse_manifest
with open(sys.argv[1], "rb") as file:
    raw = file.read()
assert len(parse_manifest(raw).tree.files) == 1_000_000
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_maxrss // 1024, usage.ru_utime + usage.ru_stime)
"""


@pytest.mark.slow
def test_a_million_files(tmp_path: Path) -> None:
    write_million(tmp_path / "manifest.json")
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "manifest.json"],
        capture_output=True,
        timeout=100,
        check=True,
    )
    mebibytes, seconds = map(float, result.stdout.split())
    # 950 where this was written, 150 of them the file itself.
    assert mebibytes < 1200
    # 3.6 there. Room for a slow machine, none for what grows with the square.
    assert seconds < 20


def write_million(path: Path) -> None:
    """Made by hand, so that the encoder need not be fast for this."""
    dirs = [b"d%05d" % i for i in range(10_000)]
    tree = [b'{"dirs":{']
    tree.append(b",".join(b'"%s":{"mode":493,"mtime_ns":1700000000000000000}' % d for d in dirs))
    tree.append(b'},"files":{')
    fingerprint = hashlib.sha256()
    entries = []
    for directory, number in itertools.product(dirs, range(100)):
        digest = sha256(directory + b"%d" % number).encode()
        name = b"%s/module_%02d.py" % (directory, number)
        fingerprint.update(name + b"\0" + digest + b"\0")
        entries.append(
            b'"%s":{"mode":420,"mtime_ns":1700000000000000000,"sha256":"%s","size_bytes":%d}'
            % (name, digest, number)
        )
    tree.append(b",".join(entries))
    tree.append(b'},"root":{"mode":493,"mtime_ns":0},"symlinks":{}}')
    raw = b"".join(tree)
    header = (
        b'{"created_at":1.0,"file_count":1000000,"fingerprint":"%s","format":"castfs-manifest",'
        b'"id":"%s","source_path":"","total_size_bytes":%d,"version":1,'
    ) % (fingerprint.hexdigest().encode(), sha256(raw).encode(), sum(range(100)) * len(dirs))
    path.write_bytes(header + raw[1:] + b"\n")
