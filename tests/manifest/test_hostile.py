"""Manifests that somebody made to do harm: each is refused in one line that names the entry.

Every one of them is right in all but one respect: ids, counts and order are made to fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from castfs.errors import ManifestError
from castfs.manifest import decode_manifest, parse_manifest
from tests.manifest.documents import (
    ESCAPE,
    Document,
    directory,
    encode,
    file,
    make_document,
    sample,
    sha256,
    sign,
    symlink,
)

#: name → (the file, what its error says besides "bad manifest").
Case = tuple[bytes, str]
CASES: dict[str, Case] = {}


def signed(document: Document) -> bytes:
    return encode(sign(document))


def at(path: str, entry: Document, kind: str = "files", **others: Any) -> bytes:
    """A document with an entry, and directories above it where the path allows."""
    dirs = dict(others.pop("dirs", {}))
    return encode(make_document(**{"dirs": dirs, kind: {path: entry}, **others}))


def with_fields(entry: Document, **fields: Any) -> Document:
    return dict(sorted({**entry, **fields}.items()))


def without(entry: Document, key: str) -> Document:
    return {name: value for name, value in entry.items() if name != key}


def header(**fields: Any) -> bytes:
    return encode({**make_document(files={"f": file(b"x")}), **fields})


def replaced(old: bytes, new: bytes) -> bytes:
    raw = encode(make_document(files={"f": file(b"x")}))
    assert raw.count(old) == 1, raw
    return raw.replace(old, new)


# Names and places.
D = {"d": directory()}
for name, path, words in [
    ("absolute path", "/etc/passwd", "absolute path: /etc/passwd"),
    ("absolute path, doubled", "//etc/passwd", "absolute path: //etc/passwd"),
    ("a slash alone", "/", "absolute path: /"),
    ("dot-dot", "..", "not a name: '..'"),
    ("dot-dot at the end", "d/..", "'..' in 'd/..'"),
    ("dot-dot inside", "d/../x", "'..' in 'd/../x'"),
    ("dot", ".", "not a name: '.'"),
    ("dot inside", "d/./x", "'.' in 'd/./x'"),
    ("empty path", "", "not a name: ''"),
    ("empty component", "d//x", "'' in 'd//x'"),
    ("trailing slash", "d/", "'' in 'd/'"),
    ("NUL in a name", "d/a\0b", "slash or NUL: 'a\\x00b' in 'd/a\\x00b'"),
    ("name of 256 bytes", "n" * 256, "longer than 255 bytes: nnnn"),
    ("name of 256 bytes, fewer characters", "ü" * 128, "longer than 255 bytes: üüü"),
    ("missing parent", "nowhere/x", "nowhere/x has no directory entry for its parent"),
    ("escape of an ASCII byte", f"{ESCAPE}41", f"canonical way: '{ESCAPE}41'"),
    ("escape of a slash", f"d{ESCAPE}2fx", "canonical way"),
    ("escape of NUL", f"a{ESCAPE}00", "canonical way"),
    ("escape of what is UTF-8", f"{ESCAPE}c3{ESCAPE}bc", "canonical way"),
    ("escape in upper case", f"{ESCAPE}FF", f"bad escape in '{ESCAPE}FF'"),
    ("escape cut short", f"{ESCAPE}f", f"bad escape in '{ESCAPE}f'"),
    ("escape at the end", f"a{ESCAPE}", f"bad escape in 'a{ESCAPE}'"),
    ("escape character unescaped", f"a{ESCAPE}xyz", f"bad escape in 'a{ESCAPE}xyz'"),
]:
    CASES[f"{name} (file)"] = at(path, file(b"x"), dirs=D), words
    CASES[f"{name} (symlink)"] = at(path, symlink("x"), "symlinks", dirs=D), words
    if path != "d/..":
        CASES[f"{name} (directory)"] = encode(make_document(dirs={**D, path: directory()})), words
CASES |= {
    "parent is a file": (
        encode(make_document(files={"f": file(), "f/x": file()})),
        "f/x has no directory entry for its parent",
    ),
    "parent is a symlink": (
        encode(make_document(symlinks={"l": symlink("/etc")}, files={"l/passwd": file()})),
        "l/passwd has no directory entry for its parent",
    ),
    "file and directory": (
        encode(make_document(files={"both": file()}, dirs={"both": directory()})),
        "both is of two kinds",
    ),
    "file and symlink": (
        encode(make_document(files={"both": file()}, symlinks={"both": symlink("/etc")})),
        "both is of two kinds",
    ),
    "directory and symlink": (
        encode(make_document(dirs={"both": directory()}, symlinks={"both": symlink("/")})),
        "both is of two kinds",
    ),
    "file over a directory with something in it": (
        encode(make_document(files={"d": file(), "d/x": file()}, dirs=D)),
        "d is of two kinds",
    ),
}

# Fields of files.
X = file(b"x")
for name, entry, words in [
    ("digest in upper case", with_fields(X, sha256=sha256(b"x").upper()), "64 lower-case hex"),
    ("digest not hex", with_fields(X, sha256="g" * 64), "64 lower-case hex"),
    ("digest of other letters", with_fields(X, sha256="ü" * 64), "64 lower-case hex"),
    ("digest that is a path", with_fields(X, sha256="../../" + "a" * 58), "64 lower-case hex"),
    ("digest ending in a newline", with_fields(X, sha256="a" * 63 + "\n"), "64 lower-case hex"),
    ("digest short", with_fields(X, sha256="a" * 63), "length >= 64"),
    ("digest long", with_fields(X, sha256="a" * 65), "length <= 64"),
    ("digest empty", with_fields(X, sha256=""), "length >= 64"),
    ("digest null", with_fields(X, sha256=None), "got `null`"),
    ("digest missing", without(X, "sha256"), "`sha256`"),
    ("size negative", with_fields(X, size_bytes=-1), "$.size_bytes"),
    ("size 2**63", with_fields(X, size_bytes=2**63), "$.size_bytes"),
    ("size beyond 64 bits", with_fields(X, size_bytes=10**30), "$.size_bytes"),
    ("size a float", with_fields(X, size_bytes=1.5), "$.size_bytes"),
    ("size a whole float", with_fields(X, size_bytes=1.0), "$.size_bytes"),
    ("size text", with_fields(X, size_bytes="1"), "$.size_bytes"),
    ("size true", with_fields(X, size_bytes=True), "$.size_bytes"),
    ("size missing", without(X, "size_bytes"), "`size_bytes`"),
    ("mode with a type bit", with_fields(X, mode=0o10000), "$.mode"),
    ("mode of a device", with_fields(X, mode=0o60644), "$.mode"),
    ("mode negative", with_fields(X, mode=-1), "$.mode"),
    ("mode missing", without(X, "mode"), "`mode`"),
    ("mtime 2**63", with_fields(X, mtime_ns=2**63), "$.mtime_ns"),
    ("mtime below -2**63", with_fields(X, mtime_ns=-(2**63) - 1), "$.mtime_ns"),
    ("mtime a float", with_fields(X, mtime_ns=1.5e9), "$.mtime_ns"),
    ("uid -1", with_fields(X, uid=-1), "$.uid"),
    ("uid 2**32-1", with_fields(X, uid=2**32 - 1), "$.uid"),
    ("gid 2**32-1", with_fields(X, gid=2**32 - 1), "$.gid"),
    ("unknown field", with_fields(X, device=5), "`device`"),
    ("target of a file", with_fields(X, target="x"), "`target`"),
    ("not an object", None, "got `null`"),
    ("a list", [1], "got `array`"),
]:
    CASES[f"file: {name}"] = at("d/evil", entry, dirs=D), words  # type: ignore[arg-type]

# Symlinks.
L = symlink("x")
for name, entry, words in [
    ("empty target", with_fields(L, target=""), "impossible target"),
    ("NUL in the target", with_fields(L, target="a\0b"), "impossible target"),
    ("target of 4,096 bytes", with_fields(L, target="t" * 4096), "impossible target"),
    ("target of 4,096 bytes, escaped", with_fields(L, target=f"{ESCAPE}ff" * 4096), "impossible"),
    ("target badly escaped", with_fields(L, target=f"{ESCAPE}41"), "canonical way"),
    ("target a number", with_fields(L, target=5), "$.target"),
    ("target missing", without(L, "target"), "`target`"),
    ("with a mode", with_fields(L, mode=0o777), "`mode`"),
    ("with a digest", with_fields(L, sha256="a" * 64), "`sha256`"),
]:
    CASES[f"symlink: {name}"] = at("d/evil", entry, "symlinks", dirs=D), words

# Directories and the root.
for name, entry, words in [
    ("with a size", directory(size_bytes=1), "`size_bytes`"),
    ("with a hard link", directory(hardlink="d"), "`hardlink`"),
    ("mode 2**70", directory(mode=2**70), "$.mode"),
]:
    CASES[f"directory: {name}"] = encode(make_document(dirs={"evil": entry})), words
    CASES[f"root: {name}"] = encode(make_document(root=entry)), words.replace("$", "$.root")

# Hard links.
for name, files, words in [
    ("a group of one", {"evil": file(hardlink="evil")}, "evil is alone in its group"),
    ("pointing nowhere", {"evil": file(hardlink="gone")}, "evil names gone, which is not"),
    (
        "pointing to one that is in no group",
        {"a": file(), "evil": file(hardlink="a")},
        "evil names a, which is not",
    ),
    (
        "members of two sizes",
        {"a": file(b"1", hardlink="a"), "evil": file(b"22", hardlink="a")},
        "evil and a are one hard-linked file with two descriptions",
    ),
    (
        "members of two modes",
        {"a": file(hardlink="a"), "evil": file(hardlink="a", mode=0o600)},
        "evil and a are one hard-linked file with two descriptions",
    ),
    (
        "not named by its smallest member",
        {"a": file(hardlink="evil"), "evil": file(hardlink="evil")},
        "a names evil, which is not the first",
    ),
    (
        "a chain",
        {"a": file(hardlink="a"), "b": file(hardlink="a"), "evil": file(hardlink="b")},
        "evil names b, which is not the first",
    ),
    (
        "a circle",
        {"a": file(hardlink="evil"), "evil": file(hardlink="a")},
        "which is not the first",
    ),
    (
        "badly escaped",
        {f"{ESCAPE}ff": file(hardlink=f"{ESCAPE}FF"), "evil": file(hardlink=f"{ESCAPE}FF")},
        "hard link evil: bad escape",
    ),
    ("outside", {"evil": file(hardlink="../evil")}, "evil names ../evil, which is not"),
    ("a number", {"evil": file(hardlink=1)}, "file evil: Expected `str | null`"),
]:
    CASES[f"hard link: {name}"] = encode(make_document(files=files)), words
CASES["hard link: of a symlink to a file"] = (
    encode(
        make_document(
            files={"evil": file(hardlink="evil")}, symlinks={"l": symlink("x", hardlink="evil")}
        )
    ),
    "is alone in its group",
)
CASES["hard link: symlinks with two targets"] = (
    encode(
        make_document(
            symlinks={"a": symlink("1", hardlink="a"), "evil": symlink("2", hardlink="a")}
        )
    ),
    "evil and a are one hard-linked file",
)

# Extended attributes.
for name, xattrs, words in [
    ("none", {}, "empty or unsorted"),
    ("unsorted", {"user.b": "", "user.a": ""}, "empty or unsorted"),
    ("not base64", {"user.a": "@@@@"}, "attribute 'user.a'"),
    ("base64 without padding", {"user.a": "QQ"}, "attribute 'user.a'"),
    ("base64 with a newline", {"user.a": "QQ==\n"}, "attribute 'user.a'"),
    ("base64 with other unused bits", {"user.a": "QR=="}, "not canonical base64"),
    ("base64 that is not ASCII", {"user.a": "üüüü"}, "attribute 'user.a'"),
    ("too big", {"user.a": "A" * 87_384}, "impossible extended attribute 'user.a'"),
    ("no name", {"": ""}, "impossible extended attribute ''"),
    ("a name of 256 bytes", {"n" * 256: ""}, "impossible extended attribute 'nnn"),
    ("NUL in a name", {"user.\0": ""}, "impossible extended attribute 'user.\\x00'"),
    ("a name badly escaped", {f"{ESCAPE}41": ""}, "canonical way"),
    ("a number", {"user.a": 5}, "xattrs"),
    ("a list", [], "xattrs"),
]:
    CASES[f"xattrs: {name}"] = at("d/evil", file(xattrs=xattrs), dirs=D), words
CASES["xattrs: of the root"] = (
    encode(make_document(root=directory(xattrs={"user.a": "QR=="}))),
    "the root: extended attribute 'user.a'",
)

# Files that cannot be together.
CASES |= {
    "sizes whose sum is too big": (
        encode(
            make_document(
                files={
                    "a": with_fields(file(b"a"), size_bytes=2**62),
                    "b": with_fields(file(b"b"), size_bytes=2**62),
                }
            )
            | {"total_size_bytes": 2**63 - 1}
        ),
        "absurd total size",
    ),
    "one digest with two sizes": (
        encode(make_document(files={"a": X, "evil": with_fields(X, size_bytes=2)})),
        "file evil: another file of this sha256 has another size",
    ),
}

# The header.
CASES |= {
    "wrong format": (header(format="castfs-snapshot"), 'format is "castfs-snapshot", version 1'),
    "format a number": (header(format=1), "format is 1, version 1;"),
    "version 2": (header(version=2), "version 2; this castfs reads castfs-manifest, version 1"),
    "version 2 with other fields": (
        encode({**make_document(), "version": 2, "files": [], "new": 1}),
        "version 2; this castfs reads castfs-manifest, version 1",
    ),
    "version text": (header(version="1"), 'version "1"'),
    "version missing": (encode(without(make_document(), "version")), "version missing"),
    "id of another tree": (header(id="0" * 64), "its id 00000"),
    "id in upper case": (header(id=make_document()["id"].upper()), "not the one that its id"),
    "id a path": (header(id="../" * 21 + "x"), "not the one that its id"),
    "id that breaks the line": (header(id="\n" * 64), "not the one that its id \\n\\n"),
    "id missing": (encode(without(make_document(), "id")), "`id`"),
    "fingerprint of another tree": (header(fingerprint="0" * 64), "fingerprint does not match"),
    "fingerprint short": (header(fingerprint=""), "$.fingerprint"),
    "file_count too small": (header(file_count=0), "file_count is 0, not 1"),
    "file_count huge": (header(file_count=2**62), "file_count is 4611686018427387904, not 1"),
    "file_count negative": (header(file_count=-1), "$.file_count"),
    "total too big": (header(total_size_bytes=2), "total_size_bytes is 2, the files have 1"),
    "created_at text": (header(created_at="now"), "$.created_at"),
    "created_at null": (header(created_at=None), "$.created_at"),
    "created_at of the year 10**300": (header(created_at=1e300), "$.created_at"),
    "created_at before everything": (header(created_at=-1e300), "$.created_at"),
    "created_at 1e999": (replaced(b"1700000000.5", b"1e999"), "$.created_at"),
    "created_at NaN": (replaced(b"1700000000.5", b"NaN"), "malformed"),
    "created_at Infinity": (replaced(b"1700000000.5", b"Infinity"), "malformed"),
    "created_at with too many digits": (replaced(b"1700000000.5", b"9" * 5000), "$.created_at"),
    "source_path a number": (header(source_path=1), "$.source_path"),
    "source_path endless": (header(source_path="x" * 70_000), "$.source_path"),
    "unknown key": (header(extra=1), "`extra`"),
    "no files": (encode(without(make_document(), "files")), "`files`"),
    "no root": (encode(without(make_document(), "root")), "`root`"),
    "root a list": (encode({**make_document(), "root": []}), "$.root"),
    "files a list": (encode({**make_document(), "files": []}), "$.files"),
    "dirs null": (encode({**make_document(), "dirs": None}), "$.dirs"),
}

# Another spelling of the same document.
CASES |= {
    "keys of the header unsorted": (
        encode(dict(reversed(make_document().items()))),
        "canonical form",
    ),
    "keys of an entry unsorted": (
        at("evil", dict(reversed(file(b"x").items()))),
        "canonical form",
    ),
    "files unsorted": (
        signed({**make_document(), "files": {"b": X, "a": X}}),
        "b is not where its key sorts",
    ),
    "directories unsorted": (
        signed(
            {**make_document(), "dirs": {"a": directory(), "a/b": directory(), "a ": directory()}}
        ),
        "a/b is not where its key sorts",
    ),
    "symlinks in the order of their real bytes": (
        signed({**make_document(), "symlinks": {f"{ESCAPE}80": L, "\u0430": L}}),
        f"{ESCAPE}80 is not where its key sorts",
    ),
    "white space": (json.dumps(sample()).encode() + b"\n", "canonical form"),
    "indented": (json.dumps(sample(), indent=1).encode() + b"\n", "canonical form"),
    "ASCII only": (
        json.dumps(sample(), separators=(",", ":")).encode() + b"\n",
        "canonical form",
    ),
    "a letter as \\u": (replaced(b'"f":', b'"\\u0066":'), "canonical form"),
    "an escaped slash": (replaced(b'"/data/run"', b'"\\/data\\/run"'), "canonical form"),
    "an integer as a float": (replaced(b'"mode":420', b'"mode":420.0'), "$.mode"),
    "an integer with an exponent": (replaced(b'"mode":420', b'"mode":42e1'), "$.mode"),
    "minus zero": (
        at("evil", file()).replace(b'"size_bytes":0}', b'"size_bytes":-0}'),
        "canonical form",
    ),
    "a leading zero": (replaced(b'"mode":420', b'"mode":0420'), "malformed"),
    "an absent owner as null": (at("evil", with_fields(X, uid=None)), "canonical form"),
    "byte order mark": (b"\xef\xbb\xbf" + encode(sample()), "malformed"),
    "UTF-16": (encode(sample()).decode().encode("utf-16"), "malformed"),
    "no newline": (encode(sample())[:-1], "canonical form"),
    "two newlines": (encode(sample()) + b"\n", "canonical form"),
    "CRLF": (encode(sample())[:-1] + b"\r\n", "canonical form"),
    "trailing garbage": (encode(sample()) + b"x", "trailing"),
    "two documents": (encode(sample()) * 2, "trailing"),
    "trailing NUL": (encode(sample()) + b"\0", "trailing"),
    "a comment": (replaced(b'"dirs":{}', b'"dirs":{/**/}'), "malformed"),
    "not UTF-8": (replaced(b'"f":', b'"\xff":'), "utf-8"),
    "a digest that is not UTF-8": (replaced(b'"sha256":"2', b'"sha256":"\xff'), "file f: "),
    "a lone surrogate": (replaced(b'"f":', b'"\\ud800":'), "malformed"),
    "a lone low surrogate": (replaced(b'"f":', b'"\\udcff":'), "malformed"),
    "surrogates as UTF-8": (replaced(b'"f":', b'"\xed\xa0\x80":'), "utf-8"),
    "overlong UTF-8": (replaced(b'"f":', b'"\xc0\xaf":'), "utf-8"),
}

# Duplicate keys, at each level. JSON parsers take the last one.
for name, old, new in [
    ("header", b'"source_path":', b'"source_path":"/","source_path":'),
    ("version", b'"version":1', b'"version":1,"version":1'),
    ("files", b'"files":{', b'"files":{},"files":{'),
    ("dirs", b'"dirs":{}', b'"dirs":{},"dirs":{}'),
    ("root", b'"root":{"mode":493', b'"root":{"mode":511,"mode":493'),
    ("file", b'"mode":420', b'"mode":511,"mode":420'),
]:
    CASES[f"duplicate key: {name}"] = replaced(old, new), "canonical form"
CASES["duplicate key: path"] = (
    replaced(b'"files":{', b'"files":{' + encode({"f": file(b"evil")})[1:-2] + b","),
    "canonical form",
)

# Not even close.
CASES |= {
    "empty file": (b"", "truncated"),
    "a newline": (b"\n", "truncated"),
    "a list": (b"[]", "got `array`"),
    "text": (b'"castfs-manifest"', "got `str`"),
    "a number": (b"1", "got `int`"),
    "null": (b"null", "got `null`"),
    "a word": (b"hello", "malformed"),
    "NULs": (b"\0" * 1000, "malformed"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "malformed"),
    "half a manifest": (encode(sample())[:700], "truncated"),
    "nesting bomb": (b"[" * 200_000, "got `array`"),
    "nesting bomb in a known key": (
        replaced(b'"dirs":{', b'"dirs":{"x":' + b"[" * 200_000),
        "",  # decoding meets the type first, probing for the format the depth
    ),
    "nesting bomb in an unknown key": (
        replaced(b'"dirs":{},', b'"dirs":{},"evil":' + b'{"y":' * 200_000),
        "",
    ),
    "depth bomb": (at("/".join(["d"] * 100_000), file()), "deeper than 20000 levels: d/d/d"),
    "depth bomb of directories": (
        encode(make_document(dirs={"/".join(["d"] * 100_000): directory()})),
        "deeper than 20000 levels: d/d/d",
    ),
    "a name of a megabyte": (at("n" * 1_000_000, file()), "longer than 255 bytes: nnn"),
    "an unknown key of a megabyte": (header(**{"k" * 1_000_000: 1}), "unknown field `kkk"),
    "a format of a megabyte": (header(format="\x1b" * 1_000_000), 'format is "\\u001b\\u001b'),
    "an unknown field that breaks the line": (
        at("evil", with_fields(X, **{"a\nb\x1b[31m": 1})),
        "file evil: Object contains unknown field `a\\nb\\x1b[31m`",
    ),
}


def test_cases_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(("raw", "words"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("read", [decode_manifest, parse_manifest], ids=["decode", "parse"])
def test_refused(read: Callable[[bytes], object], raw: bytes, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(raw)
    message = str(caught.value)
    assert message.startswith("bad manifest: ")
    assert message.isprintable()  # so it is one line
    assert len(message) < 2000
    assert words in message
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("entry", ["file", "symlink", "hard link", "xattrs"])
def test_entry_is_named(entry: str) -> None:
    """Whatever is wrong with an entry, its name is in the message."""
    for name, (raw, _) in CASES.items():
        if name.startswith(f"{entry}: ") and b"evil" in raw:
            with pytest.raises(ManifestError, match="evil"):
                decode_manifest(raw)


def test_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain as long as the real limit would take 400 MB."""
    dirs = {"/".join(["d"] * levels): directory() for levels in range(1, 8)}
    raw = encode(make_document(dirs=dirs))
    decode_manifest(raw)
    monkeypatch.setattr("castfs.manifest.checks.DEPTH_MAX", 6)
    monkeypatch.setattr("castfs.paths.DEPTH_MAX", 6)
    with pytest.raises(ManifestError, match=r"deeper than 6 levels: d/d/d/d/d/d/d$"):
        decode_manifest(raw)


def test_the_cases_are_wrong_in_one_way_only() -> None:
    """The documents that the cases start from are accepted."""
    for document in (
        make_document(),
        make_document(files={"f": file(b"x")}),
        make_document(files={"d/evil": X}, dirs=D),
        make_document(symlinks={"d/evil": L}, dirs=D),
        make_document(files={"a": file(hardlink="a"), "evil": file(hardlink="a")}),
        make_document(files={"evil": file(xattrs={"user.a": "QQ=="})}),
        make_document(files={"n" * 255: X, "ü" * 127: X, f"{ESCAPE}ff" * 255: X}),
        make_document(symlinks={"l": symlink("t" * 4095), "m": symlink(f"{ESCAPE}ff" * 4095)}),
        make_document(files={"f": file(xattrs={"user.a": "AAAA" * 21_845 + "AA=="})}),
        make_document(files={"f": with_fields(X, size_bytes=2**63 - 1)}),
        make_document(root=directory(mode=0o7777, uid=2**32 - 2)),
    ):
        decode_manifest(encode(document))
