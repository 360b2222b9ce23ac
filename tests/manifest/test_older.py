"""Manifests of Runicorn's assets system: read as their own reader does, but not believed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.errors import ManifestError
from castfs.manifest import decode_manifest, encode_manifest, parse_manifest, read_older
from castfs.paths import ESCAPE, parse_relpath
from tests.manifest.documents import sha256

X = {"sha256": sha256(b"x"), "size_bytes": 1}


def fingerprint(files: dict[str, Any]) -> str:
    """As `_hash_manifest` computes it (runicorn/assets/archive.py)."""
    named = sorted((name, entry["sha256"]) for name, entry in files.items())
    return sha256("".join(f"{name}\0{digest}\0" for name, digest in named).encode())


def older(files: Any = None, **fields: Any) -> dict[str, Any]:
    """As `archive_dir` writes it (runicorn/assets/archive.py)."""
    files = {"train.py": X, "sub/a.py": X} if files is None else files
    return {
        "created_at": 1_700_000_000.5,
        "source_path": "/home/user/run",
        "fingerprint": fingerprint(files),
        "total_size_bytes": sum(entry["size_bytes"] for entry in files.values()),
        "file_count": len(files),
        "files": files,
        **fields,
    }


def write(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def with_file(name: str, entry: object = X) -> bytes:
    return write({"created_at": 1.0, "files": {name: entry}})


def listed(*files: object, **fields: object) -> bytes:
    """As `ArtifactManifest.to_dict` gives it (runicorn/artifacts/models.py of 0.5.3)."""
    return write({"files": list(files), "references": [], "created_at": 1_700_000_000.5, **fields})


def one(path: str = "a", **fields: object) -> dict[str, object]:
    digest = f"sha256:{sha256(b'x')}"
    return {"path": path, "size": 1, "digest": digest, "modified_at": 1.1, **fields}


def test_artifacts() -> None:
    raw = listed(one("conf/a.yaml", modified_at=1795302197.0528002), one("b"), total_files=2)
    tree = parse_manifest(raw).tree
    assert list(tree.files) == [b"b", b"conf/a.yaml"]
    file = tree.files[parse_relpath(b"conf/a.yaml")]
    assert (file.sha256, file.size_bytes, file.mode) == (sha256(b"x"), 1, 0o644)
    assert file.mtime_ns == pytest.approx(1795302197052800200, abs=250)
    assert tree.dirs[parse_relpath(b"conf")].mtime_ns == 1_700_000_000_500_000_000


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (listed(one(), one()), "twice"),
        (listed(one("../x")), "bad manifest"),
        (listed(one("X")).replace(b'"X"', rb'"\ud800"'), "bad manifest"),
        (listed({"size": 1}), "without a path"),
        (listed(one(size=-1)), "no possible size"),
        (listed(one(size=True)), "no possible size"),
        (listed(one(digest="md5:00")), "a: "),
        (listed(one(digest=None)), "a: "),
        (listed(one(modified_at="x")), "no time"),
        (listed(one(modified_at=2**40)), "no time"),
        (listed(one(modified_at=float("nan"))), "bad manifest"),
        (listed(one(), total_files=2), "total_files does not match"),
        (listed(one(), one("a/b")), "bad manifest"),
        (listed(references=[{"uri": "s3://x"}]), "castfs import"),
    ],
)
def test_artifacts_that_are_refused(raw: bytes, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(raw)
    assert words in str(caught.value)


def test_what_is_made_up() -> None:
    manifest = parse_manifest(write(older({"a/b/c": X, "a/x": X, "top": X})))
    tree = manifest.tree
    assert list(tree.dirs) == [b"a", b"a/b"]
    assert list(tree.files) == [b"a/b/c", b"a/x", b"top"]
    assert {entry.mode for entry in tree.files.values()} == {0o644}
    assert {entry.mode for entry in (tree.root, *tree.dirs.values())} == {0o755}
    entries = (tree.root, *(entry for _, entry in tree.iter_entries()))
    assert {entry.mtime_ns for entry in entries} == {1_700_000_000_500_000_000}
    assert manifest.created_at == 1_700_000_000.5
    assert manifest.source_path == "/home/user/run"


def test_becomes_one_of_ours() -> None:
    manifest = parse_manifest(write(older()))
    raw = b"".join(encode_manifest(manifest))
    assert decode_manifest(raw) == manifest
    assert parse_manifest(write(older())).id == manifest.id


def test_order_of_files_does_not_matter() -> None:
    files = {"b": X, "a/x": X, "a.x": X}
    ids = {
        parse_manifest(write(older(dict(order)))).id
        for order in (files.items(), reversed(files.items()))
    }
    assert len(ids) == 1


def test_names_stand_as_they_are() -> None:
    names = [
        "ünï/目录 \U0001f9ca",
        f"{ESCAPE}ff",
        '"\\',
        "\n\t",
        " ",
        "~",
        "%2e%2e",
        "C:\\x",
        "...",
        "-rf",
    ]
    tree = parse_manifest(write(older(dict.fromkeys(names, X)))).tree
    assert set(tree.files) == {name.encode() for name in names}


def test_unknown_keys_are_ignored() -> None:
    document = older({"f": {**X, "mode": "rw", "sub": {"sha256": None}}}, schema={"a": [1, None]})
    assert list(parse_manifest(write(document)).tree.files) == [b"f"]


@pytest.mark.parametrize("key", ["created_at", "source_path", "fingerprint", "file_count"])
def test_only_files_are_needed(key: str) -> None:
    document = older()
    del document[key]
    assert len(parse_manifest(write(document)).tree.files) == 2


def test_empty() -> None:
    manifest = parse_manifest(b'{"files":{}}')
    assert list(manifest.tree.iter_entries()) == []
    assert manifest.source_path == ""


@pytest.mark.parametrize("created_at", [0, -1, 1.5, -1e9, 8e9, 1_700_000_000])
def test_times(created_at: float) -> None:
    manifest = parse_manifest(write(older(created_at=created_at)))
    assert math.isclose(manifest.tree.root.mtime_ns / 1e9, created_at)


@given(st.dictionaries(st.text("ab/.\0ü\n", max_size=8), st.just(X), max_size=4))
def test_any_names(files: dict[str, Any]) -> None:
    def is_good(name: str) -> bool:
        return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))

    conflict = any(other.startswith(name + "/") for name in files for other in files)
    raw = write(older(files))
    if all(map(is_good, files)) and not conflict:
        assert set(parse_manifest(raw).tree.files) == {name.encode() for name in files}
    else:
        with pytest.raises(ManifestError):
            parse_manifest(raw)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "absolute path": (with_file("/etc/passwd"), "absolute path: /etc/passwd"),
    "dot-dot": (with_file("../evil"), "'..' in '../evil'"),
    "dot-dot inside": (with_file("a/../../evil"), "'..' in 'a/../../evil'"),
    "dot": (with_file("./evil"), "'.' in './evil'"),
    "empty component": (with_file("a//evil"), "'' in 'a//evil'"),
    "trailing slash": (with_file("evil/"), "'' in 'evil/'"),
    "no name": (with_file(""), "not a name"),
    "NUL": (with_file("evil\0"), "slash or NUL: 'evil\\x00'"),
    "name of 256 bytes": (with_file("ü" * 128), "longer than 255 bytes"),
    "path of 4,096 bytes": (with_file("/".join(["n" * 255] * 16) + "x"), "longer than 255"),
    "path that no system call takes": (with_file("/".join(["d"] * 2048) + "e"), "than 4095 bytes"),
    "depth bomb": (with_file("/".join(["d"] * 100_000)), "deeper than 20000 levels"),
    "file that is a directory": (write(older({"a": X, "a/evil": X})), "a is of two kinds"),
    "digest short": (with_file("evil", {**X, "sha256": "ab"}), "evil: not a SHA-256 digest: 'ab'"),
    "digest in upper case": (
        with_file("evil", {**X, "sha256": sha256(b"x").upper()}),
        "evil: not a SHA-256 digest",
    ),
    "digest a path": (
        with_file("evil", {**X, "sha256": "/etc/passwd".ljust(64, "x")}),
        "evil: not a SHA-256 digest: '/etc/passwd",
    ),
    "digest with a newline": (with_file("evil", {**X, "sha256": "a" * 64 + "\n"}), "evil: not a"),
    "digest a number": (with_file("evil", {**X, "sha256": 5}), "evil: not a SHA-256 digest: '5'"),
    "digest missing": (with_file("evil", {"size_bytes": 1}), "evil: not a SHA-256 digest: 'None'"),
    "size negative": (with_file("evil", {**X, "size_bytes": -1}), "evil has no possible"),
    "size 2**63": (with_file("evil", {**X, "size_bytes": 2**63}), "evil has no possible"),
    "size a float": (with_file("evil", {**X, "size_bytes": 1.0}), "evil has no possible"),
    "size true": (with_file("evil", {**X, "size_bytes": True}), "evil has no possible"),
    "size text": (with_file("evil", {**X, "size_bytes": "1"}), "evil has no possible"),
    "size missing": (with_file("evil", {"sha256": X["sha256"]}), "evil has no possible"),
    "one digest with two sizes": (
        write(older({"a": X, "evil": {**X, "size_bytes": 2}})),
        "file evil: another file of this sha256",
    ),
    "sum of sizes beyond 2**63": (
        write(
            older(
                {
                    "a": {"sha256": sha256(b"a"), "size_bytes": 2**62},
                    "b": {"sha256": sha256(b"b"), "size_bytes": 2**62},
                }
            )
        ),
        "absurd total size",
    ),
    "entry null": (with_file("evil", None), "evil is not an object"),
    "entry a list": (with_file("evil", [X]), "evil is not an object"),
    "files a list": (write({"files": ["a"]}), "a file without a path"),
    "files text": (write({"files": "a"}), "no `files` object"),
    "no files": (b"{}", "no `files` object"),
    "assets.json of a run": (
        write({"code": {"snapshot": {}}, "datasets": []}),
        "no `files` object",
    ),
    "fingerprint of others": (write(older(fingerprint="0" * 64)), "fingerprint does not match"),
    "fingerprint a number": (write(older(fingerprint=0)), "fingerprint does not match"),
    "file_count wrong": (write(older(file_count=3)), "file_count does not match"),
    "file_count a float": (write(older(file_count=2.0)), "file_count does not match"),
    "file_count true": (write(older({"f": X}, file_count=True)), "file_count does not match"),
    "total wrong": (write(older(total_size_bytes=1)), "total_size_bytes does not match"),
    "created_at text": (write(older(created_at="now")), "created_at is not a time"),
    "created_at null": (write(older(created_at=None)), "created_at is not a time"),
    "created_at true": (write(older(created_at=True)), "created_at is not a time"),
    "created_at 1e300": (write(older(created_at=1e300)), "created_at is not a time"),
    "created_at NaN": (write(older(created_at=math.nan)), ""),
    "created_at 1e999": (b'{"files":{},"created_at":1e999}', ""),
    "created_at of 10,000 digits": (b'{"files":{},"created_at":' + b"9" * 10_000 + b"}", ""),
    "source_path a list": (write(older(source_path=[])), "source_path is not text"),
    "source_path endless": (write(older(source_path="x" * 70_000)), "source_path is longer"),
    "source_path a lone surrogate": (b'{"files":{},"source_path":"\\ud800 and more"}', ""),
    "name a lone surrogate": (b'{"files":{"\\ud800 and more":{}}}', ""),
    "duplicate key": (b'{"files":{},"files":{}}', "'files' stands twice"),
    "duplicate path": (b'{"files":{"evil":{},"evil":{}}}', "'evil' stands twice"),
    "duplicate field": (b'{"files":{"evil":{"sha256":"","sha256":""}}}', "'sha256' stands twice"),
    "duplicate in an unknown key": (b'{"files":{},"x":{"a":1,"a":2}}', "'a' stands twice"),
    "duplicate that breaks the line": (b'{"files":{},"\\n":1,"\\n":1}', "'\\n' stands twice"),
    "nesting bomb": (b'{"files":{},"x":' + b"[" * 200_000, "nested too deeply"),
    "nesting bomb of objects": (b'{"files":' + b'{"x":' * 200_000, "nested too deeply"),
    "byte order mark": (b"\xef\xbb\xbf" + write(older()), ""),
    "UTF-16": (write(older()).decode().encode("utf-16"), ""),
    "not UTF-8": (write(older({"evil": X})).replace(b"evil", b"\xff"), ""),
    "surrogates as UTF-8": (write(older({"evil": X})).replace(b"evil", b"\xed\xa0\x80"), ""),
    "trailing garbage": (write(older()) + b"x", ""),
    "cut short": (write(older())[:-5], ""),
    "a name of a megabyte": (with_file("n" * 1_000_000), "longer than 255 bytes"),
    "a duplicate key of a megabyte": (
        b'{"files":{},' + b",".join([b'"%s":1' % (b"k" * 1_000_000)] * 2) + b"}",
        "stands twice",
    ),
}


@pytest.mark.parametrize(("raw", "words"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("read", [parse_manifest, read_older], ids=["parse", "read"])
def test_refused(read: Any, raw: bytes, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(raw)
    message = str(caught.value)
    assert message.startswith("bad manifest: ")
    assert message.isprintable()  # so it is one line
    assert len(message) < 2000
    assert words in message


def test_a_format_of_null_is_no_format() -> None:
    assert len(parse_manifest(write(older(format=None))).tree.files) == 2
    with pytest.raises(ManifestError, match="runicorn"):
        parse_manifest(write(older(format="runicorn")))
