"""Awkward patterns, each in a directory of its own of one repository, and git's word on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ignore.walking import (
    GIT_STARS_FIXED,
    Walk,
    all_paths,
    git_files,
    git_rules,
    git_version,
    init,
    make,
    walk,
)

#: Names in every case, beside its own.
COMMON = (b"a", b"b", b"ab", b"foo", b"dir/a", b"dir/sub/a", b"dir/sub/b", b"dir/foo", b"x/y/z/foo")

# name of the case: (.gitignore, files; directories end in '/')
CASES: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    "literal": (b"foo\n", (b"foobar", b"barfoo")),
    "no newline at the end": (b"foo", ()),
    "empty lines": (b"\n\n   \nfoo\n\n", (b"   ", b" ")),
    "comment": (b"#foo\nb\n", (b"#foo",)),
    "escaped hash": (b"\\#foo\n", (b"#foo",)),
    "space before hash": (b" #foo\n", (b" #foo", b"#foo")),
    "hash behind": (b"foo # no comment\n", (b"foo # no comment",)),
    "negation": (b"*\n!foo\n!dir\n", ()),
    "escaped bang": (b"\\!foo\n", (b"!foo",)),
    "two bangs": (b"*foo\n!!foo\n", (b"!foo",)),
    "bang alone": (b"foo\n!\n", (b"!",)),
    "bang slash": (b"foo\n!/\n", (b"!",)),
    "bang and hash": (b"*\n!#foo\n", (b"#foo",)),
    "last match wins": (b"foo\n!foo\nfoo\n!foo\n", ()),
    "last match drops": (b"!foo\nfoo\n", ()),
    "below a dropped directory": (b"dir/\n!dir/a\n!a\n", ()),
    "below its content": (b"dir/*\n!dir/a\n!dir/sub\n", ()),
    "trailing spaces": (b"foo   \n", (b"foo   ", b"foo ")),
    "escaped trailing space": (b"foo\\ \n", (b"foo ", b"foo\\ ", b"foo\\")),
    "escaped space, then spaces": (b"foo\\   \n", (b"foo ", b"foo   ")),
    "space, then escaped space": (b"foo \\ \n", (b"foo  ", b"foo ")),
    "escaped backslash, then space": (b"foo\\\\ \n", (b"foo\\", b"foo\\ ")),
    "escaped space inside": (b"f\\ oo\n", (b"f oo", b"f\\ oo")),
    "space inside": (b"f oo\n", (b"f oo",)),
    "leading space": (b" foo\n", (b" foo",)),
    "escaped space alone": (b"\\ \n", (b" ",)),
    "tab behind": (b"foo\t\n", (b"foo\t",)),
    "CRLF": (b"foo\r\nb\r\n", (b"foo\r",)),
    "CR at the end of file": (b"foo\r", (b"foo\r",)),
    "two CR": (b"foo\r\r\n", (b"foo\r", b"foo\r\r")),
    "CR inside": (b"fo\ro\n", (b"fo\ro",)),
    "spaces before CRLF": (b"foo  \r\n", (b"foo  ",)),
    "CR alone": (b"\r\nfoo\n", (b"\r",)),
    "BOM": (b"\xef\xbb\xbffoo\n", (b"\xef\xbb\xbffoo",)),
    "BOM before a comment": (b"\xef\xbb\xbf#foo\n", (b"#foo", b"\xef\xbb\xbf#foo")),
    "BOM in the second line": (b"b\n\xef\xbb\xbffoo\n", (b"\xef\xbb\xbffoo",)),
    "two BOMs": (b"\xef\xbb\xbf\xef\xbb\xbffoo\n", (b"\xef\xbb\xbffoo",)),
    "NUL in a line": (b"foo\0bar\nb\n", (b"foobar",)),
    "NUL behind spaces": (b"foo  \0\n", (b"foo  ",)),
    "not UTF-8": (b"\xff\n*\xe9\n", (b"\xff", b"caf\xe9", b"caf\xc3\xa9")),
    "UTF-8": ("café\n".encode(), ("café".encode(), b"caf\xe9", b"cafe")),
    "question mark takes a byte": (b"caf?\n", ("café".encode(), b"caf\xe9", b"cafe")),
    "name with a newline": (b"*bar\n?\n", (b"foo\nbar", b"\n", b"a\n", b"bar\n")),
    "newline in a class": (b"a[!x]b\n", (b"a\nb", b"axb")),
    "case": (b"FOO\n[A-Z]\n", (b"FOO", b"Foo", b"Z", b"z")),
    "slash alone": (b"/\n", ()),
    "two slashes": (b"//\n", ()),
    "two slashes before": (b"//foo\n", ()),
    "two slashes inside": (b"dir//a\n", ()),
    "two slashes behind": (b"dir//\n", ()),
    "leading slash": (b"/foo\n", ()),
    "leading slash and star": (b"/*\n", ()),
    "slash in the middle anchors": (b"dir/foo\n", (b"x/dir/foo", b"dir/foo2")),
    "slash at the end does not": (b"sub/\n", (b"sub",)),
    "directories only": (b"foo/\n", (b"x/foo2/foo/a",)),
    "anchored directories only": (b"/foo/\n/dir/\n/di/\n", ()),
    "escaped slash": (b"dir\\/foo\n", (b"x/dir/foo",)),
    "escaped slash at the end": (b"dir\\/\n", (b"dir\\",)),
    "escaped leading slash": (b"\\/foo\n", ()),
    "dot": (b".\n./foo\n", ()),
    "dot dot": (b"dir/../foo\n", ()),
    "star": (b"*\n", ()),
    "star and suffix": (b"*oo\n", (b"oo", b".oo", b"ooo")),
    "star in the middle": (b"f*o\n", (b"fo", b"fxo", b"f*o")),
    "many stars": (b"*a*b*c\n", (b"abc", b"xaxbxc", b"acb", b"abcab", b"aabbcc")),
    "star stays in its component": (b"dir/*a\n", (b"dir/xa",)),
    "star for a directory": (b"dir/*/a\n*/foo\n", ()),
    "star of nothing": (b"x/*y/z\n", ()),
    "dotfiles": (b"*\n!.*\n", (b".hidden",)),
    "escaped star": (b"\\*\nf\\*o\n", (b"*", b"f*o", b"fxo")),
    "escaped letter": (b"f\\oo\n", ()),
    "escaped question mark": (b"\\?\n", (b"?",)),
    "escaped bracket": (b"\\[a]\n", (b"[a]",)),
    "trailing backslash": (b"foo\\\n", (b"foo\\",)),
    "two trailing backslashes": (b"foo\\\\\n", (b"foo\\",)),
    "backslash alone": (b"\\\n", (b"\\",)),
    "tree before": (b"**/foo\n", ()),
    "tree before a path": (b"**/sub/a\n", ()),
    "tree behind": (b"dir/**\n", ()),
    "tree behind a star": (b"*/**\n", ()),
    "tree within": (b"dir/**/a\n", (b"dir/p/q/a",)),
    "tree of nothing": (b"x/**/y/z\n", ()),
    "two trees": (b"x/**/**/foo\n", ()),
    "trees around": (b"**/y/**\n", ()),
    "trees and stars": (b"**/*o/**/b*\n", (b"foo2/bar", b"oo/x/y/bar", b"p/oo/bar/x")),
    "tree alone": (b"**\n!dir\n", ()),
    "tree slash": (b"**/\n", ()),
    "slash tree": (b"/**\n", ()),
    "slash tree slash": (b"/**/\n", ()),
    "three stars": (b"dir/***/a\n***/foo\n", ()),
    "two stars are one": (b"a**b\nf**\n", (b"axb", b"a/b", b"axyb")),
    "two stars at the end of a component": (b"?ir**/a\n", (b"dir2/a", b"dir/q/a")),
    "two stars at its beginning": (b"dir/**o\n", (b"dir/s/foo",)),
    "tree and escaped slash": (b"**\\/a\n", (b"p/a",)),
    "tree behind an escaped slash": (b"dir\\/**\n", ()),
    "tree after an escaped star": (b"\\***/a\n", (b"*/a", b"*x/a", b"*x/y/a")),
    "keep only a kind": (b"*\n!*/\n!*.c\n", (b"x.c", b"dir/x.c", b"dir/sub/x.c")),
    "keep one path": (b"/*\n!/dir\n/dir/*\n!/dir/sub\n", ()),
    "class": (b"[ab]\n", (b"c",)),
    "range": (b"[b-d]\n", (b"c", b"d", b"e", b"-")),
    "range that is empty": (b"[d-b]\n", (b"c", b"d")),
    "bang negates a class": (b"[!a]\n", (b"!",)),
    "caret negates a class": (b"[^a]\n", (b"^",)),
    "bang later is a bang": (b"[a!]\n", (b"!",)),
    "caret later is a caret": (b"[b^]\n", (b"^",)),
    "bracket in a class": (b"[]x]\n", (b"]", b"x")),
    "bracket in a negated class": (b"[!]a]\n", (b"]",)),
    "open bracket in a class": (b"[[]\n", (b"[",)),
    "escaped bracket in a class": (b"[\\]]\n[x\\]y]\n", (b"]", b"x", b"\\")),
    "escaped letter in a class": (b"[\\a\\-z]\n", (b"-", b"z", b"m", b"\\")),
    "escaped backslash in a class": (b"[\\\\]\n", (b"\\",)),
    "range to an escaped byte": (b"[a-\\d]\n", (b"c", b"d", b"\\")),
    "dash at the end": (b"[x-]\n", (b"-", b"x", b"y")),
    "dash at the beginning": (b"[-x]\n", (b"-", b"x", b"a")),
    "range of dashes": (b"[--0]\n[+--]\n", (b"-", b"0", b"+", b",")),
    "dash behind a range": (b"[a-c-e]\n", (b"-", b"d", b"e")),
    "dash behind a named class": (b"[[:digit:]-z]\n", (b"-", b"5", b"q", b"z")),
    "range to an open bracket": (b"[Z-[:x]\n", (b"[", b":", b"Z", b"x")),
    "class without a slash": (b"dir[/]foo\ndir[!x]foo\n", ()),
    "class with a slash": (b"a[/b]\n", ()),
    "class with a slash for directories": (b"**/dir[/x]sub/a\n**/dir[!x]sub/b\n", ()),
    "range over the slash": (b"dir[.-0]foo\n", ()),
    "bytes above 0x7f": (b"[\xe8-\xea]\n", (b"\xe9", "é".encode())),
    "unclosed bracket": (b"[ab\nfoo[\n", (b"[ab", b"foo[")),
    "unclosed with a slash": (b"dir[/foo\n", (b"dir[/foo",)),
    "unclosed behind a star": (b"*[\n", (b"x[",)),
    "bracket that is empty": (b"[]\n[!]\n", (b"[]", b"[!]")),
    "named class": (b"[[:alpha:]]\n", (b"Q", b"5", b"\xe9")),
    "two named classes": (b"[[:digit:][:upper:]_]\n", (b"Q", b"5", b"_", b"q")),
    "negated named class": (b"[^[:alnum:]]\n", (b"Q", b"5", b"_", b"\x0b")),
    "unknown named class": (b"[[:word:]]\n", (b"w",)),
    "named class in capitals": (b"[[:ALPHA:]]\n", ()),
    "named class that is empty": (b"[[::]]\n", (b":",)),
    "unfinished named class": (b"[[:alpha]\n", (b":", b"[", b"l")),
    "unfinished, then a class": (b"[[:]\n[[:a]]\n", (b":", b"[", b"a]", b":]")),
    "named class without brackets": (b"[:alpha:]\n", (b":", b"l", b"q")),
    "closing bracket alone": (b"]\na]\n", (b"]", b"a]")),
    "braces are plain": (b"{a,b}\n", (b"{a,b}",)),
    "regex bytes are plain": (b"a.b\n(a|b)\n$\n^a\na+\n", (b"axb", b"a.b", b"(a|b)", b"^a", b"aa")),
    "directory and file of a name": (b"n/\n", (b"dir/n", b"x/n/a")),
    "rule file drops itself": (b".gitignore\n", ()),
    "git's own file is plain": (b"!.git\n*.git\n", (b"x.git", b".github/a")),
    "long name": (b"*" + b"l" * 200 + b"\n", (b"l" * 255, b"k" + b"l" * 200)),
}
STARS = {
    "stars behind letters": (b"foo**/bar\n", (b"foobar", b"foo/bar", b"foox/bar", b"foox/y/bar")),
    "stars behind letters at the end": (b"!y\nx/b**\n!x/bb\n", (b"x/bb/c", b"x/b/c")),
}
ALL = CASES | STARS
#: What they keep beside COMMON's names, as documented; older versions of git drop more.
STARS_KEPT = {
    "stars behind letters": {b"foobar", b"foox/y/bar"},
    "stars behind letters at the end": {b"x/bb/c"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = init(tmp_path_factory.mktemp("patterns"))
    for number, (rules, own) in enumerate(ALL.values()):
        paths = COMMON + own
        for path in paths:
            if not any(other.startswith(path + b"/") for other in paths):
                make(root / str(number), path)
        make(root / str(number), ".gitignore", content=rules)
    return root


@pytest.fixture(scope="module")
def walked(root: Path) -> Walk:
    return walk(root)


@pytest.fixture(scope="module")
def listed(root: Path) -> set[bytes]:
    return git_files(root)


@pytest.fixture(scope="module")
def decided(root: Path) -> dict[bytes, tuple[str, str]]:
    return git_rules(root, all_paths(root))


def known_to_git(name: str) -> bool:
    return name not in STARS or git_version() >= GIT_STARS_FIXED


@pytest.mark.parametrize(("number", "name"), list(enumerate(ALL)), ids=str)
def test_as_git(
    number: int,
    name: str,
    root: Path,
    walked: Walk,
    listed: set[bytes],
    decided: dict[bytes, tuple[str, str]],
) -> None:
    """The same files are kept, and the same line drops the others."""
    below = b"%d/" % number
    kept = {path for path in walked.files if path.startswith(below)}
    if not known_to_git(name):
        own = {below + path for path in ALL[name][1]}
        assert kept & own == {below + path for path in STARS_KEPT[name]}
        return
    assert kept == {path for path in listed if path.startswith(below)}
    for path in sorted(path for path in all_paths(root) if path.startswith(below)):
        ours = walked.rule(path)
        origin, pattern = decided.get(path.rstrip(b"/"), ("", "!"))
        expected = None if pattern.startswith("!") else (origin, pattern)
        assert (ours and (ours.origin, ours.pattern)) == expected, path
