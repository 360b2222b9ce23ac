"""Which rule wins, as castfs.ignore documents it, and the options."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from castfs.errors import UsageError
from castfs.ignore import IgnoreOptions, Rule, open_root_scope
from castfs.ignore.pattern import parse_pattern
from castfs.ignore.rules import RuleList, Verdict
from tests.ignore.walking import git, init, make, walk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return init(tmp_path / "work")


def files(root: Path, options: IgnoreOptions | None = None) -> set[str]:
    """What is kept, without rule files."""
    kept = {os.fsdecode(path) for path in walk(root, options).files}
    return {path for path in kept if not path.endswith("ignore")}


def test_each_level_wins_over_those_behind_it(root: Path, tmp_path: Path) -> None:
    """Level by level: every level drops all that the one before it has not spoken of."""
    make(root, *"abcdefgh")
    options = IgnoreOptions(global_excludes=tmp_path / "global")
    make(tmp_path, "global", content=b"*\n")
    make(root, ".git/info/exclude", content=b"!g\n*\n!h\n!.*ignore\n")
    make(root, ".gitignore", content=b"*\n!g\n!.*ignore\n!h\n")
    assert files(root, options) == {"g", "h"}
    make(root, ".castignore", content=b"*\n!f\n!.*ignore\n!h\n")
    assert files(root, options) == {"f", "h"}
    make(root, ".rnignore", content=b"*\n!e\n!.*ignore\n!h\n")
    assert files(root, options) == {"e", "h"}
    make(tmp_path, "first", content=b"*\n!d\n!.*ignore\n!h\n")
    options = replace(options, ignore_files=(tmp_path / "first",))
    assert files(root, options) == {"d", "h"}
    make(tmp_path, "second", content=b"*\n!c\n!.*ignore\n!h\n")
    options = replace(options, ignore_files=(tmp_path / "first", tmp_path / "second"))
    assert files(root, options) == {"c", "h"}
    options = replace(options, include=("b", "a", "*ignore", "h"))
    assert files(root, options) == {"a", "b", "h"}
    options = replace(options, exclude=("a", "h", "!h"))
    assert files(root, options) == {"b", "h"}


def test_exclude(root: Path) -> None:
    make(root, "a.log", "keep.log", "sub/a.log", "data/x", "sub/data/x", "build/x", "build/y")
    make(root, ".gitignore", content=b"build/\n")
    options = IgnoreOptions(exclude=("*.log", "!keep.log", "/data/", "!build", "build/x"))
    walked = walk(root, options)
    assert walked.files == {b".gitignore", b"keep.log", b"sub/data/x", b"build/y"}
    assert walked.dropped[b"sub/a.log"] == Rule("*.log", "--exclude")
    assert walked.dropped[b"data/"] == Rule("/data/", "--exclude")


def test_excluding_a_tracked_file(root: Path) -> None:
    """Only rules of git yield to what is tracked."""
    make(root, "a", "b", "c", "d", "e", "out/a", "out/b")
    git(root, "add", ".")
    make(root, ".gitignore", content=b"*\n")
    make(root, ".castignore", content=b"a\n")
    make(root, ".rnignore", content=b"b\n")
    make(root.parent, "rules", content=b"c\n")
    options = IgnoreOptions(exclude=("d",), ignore_files=(root.parent / "rules",))
    assert files(root, options) == {"e"}
    assert files(root) == {"c", "d", "e"}


def test_in_a_directory_that_git_ignores(root: Path) -> None:
    """What is tracked in it is all that is left of it, and other rules may drop that too."""
    make(root, "out/tracked.c", "out/tracked.o", "out/sub/tracked.c", "out/sub/drop/tracked.c")
    git(root, "add", ".")
    make(root, "out/new.c", "out/wanted", "out/sub/new.c", "out/empty/new.c")
    make(root, ".gitignore", content=b"out/\n")
    make(root, ".castignore", content=b"*.o\n!wanted\n")
    make(root, "out/sub/.castignore", content=b"drop/\n")
    make(root, "out/.gitignore", content=b"!*\nnew.c\n")
    walked = walk(root)
    kept = {path for path in walked.files if path.startswith(b"out")}
    assert kept == {b"out/tracked.c", b"out/sub/tracked.c"}
    assert walked.dropped[b"out/empty/"] == Rule("out/", ".gitignore:1")
    assert walked.dropped[b"out/new.c"] == Rule("out/", ".gitignore:1")
    assert walked.dropped[b"out/new.c"] == Rule("out/", ".gitignore:1")
    assert walked.dropped[b"out/sub/new.c"] == Rule("out/", ".gitignore:1")
    assert walked.dropped[b"out/tracked.o"] == Rule("*.o", ".castignore:1")
    assert walked.dropped[b"out/sub/drop/"] == Rule("drop/", "out/sub/.castignore:1")


def test_own_rules_bring_back_what_git_ignores(root: Path) -> None:
    make(root, "model.bin", "other.bin", "cache/a", "cache/b.o", "lost/keep", "all/x", "all/y.o")
    make(root, ".gitignore", content=b"*.bin\n*.o\ncache/\nlost/\nall/\n")
    make(root, "all/.gitignore", content=b"*\n")
    make(root, ".castignore", content=b"!model.bin\n!cache/\n!lost/keep\n!all/\n!all/**\n")
    assert files(root) == {"model.bin", "cache/a", "all/x", "all/y.o"}


def test_deeper_over_higher_and_later_over_earlier(tmp_path: Path) -> None:
    make(tmp_path, "d/a", "d/b", "d/c", "a", "b", "c")
    make(tmp_path, ".rnignore", content=b"a\n!b\n")
    make(tmp_path, ".castignore", content=b"b\nc\n")
    make(tmp_path, "d/.castignore", content=b"!a\nb\n")
    make(tmp_path, "d/.rnignore", content=b"b\n!b\n")
    assert files(tmp_path / "d", IgnoreOptions(own_files=())) == {"a", "b", "c"}
    kept = {path for path in files(tmp_path) if not path.startswith(".user")}
    assert kept == {"b", "d/a", "d/b"}
    swapped = IgnoreOptions(own_files=(".rnignore", ".castignore"))
    kept = {path for path in files(tmp_path, swapped) if not path.startswith(".user")}
    assert kept == {"d/a"}


def test_own_rules_apply_inside_clones(root: Path, tmp_path: Path) -> None:
    make(root, ".castignore", content=b"*.own\n")
    make(tmp_path, "rules", content=b"*.given\n")
    clone = init(root / "clone")
    make(clone, ".castignore", content=b"*.inner\n")
    for suffix in ("own", "given", "inner", "excluded", "c"):
        make(clone, f"a.{suffix}", f"sub/a.{suffix}")
    git(clone, "add", ".")
    options = IgnoreOptions(ignore_files=(tmp_path / "rules",), exclude=("*.excluded",))
    assert files(root, options) == {"clone/a.c", "clone/sub/a.c"}


def test_own_rules_outside_of_git(tmp_path: Path) -> None:
    make(tmp_path, "data/.castignore", content=b"*.tmp\n!keep.tmp\n")
    make(tmp_path, "data/sub/.rnignore", content=b"/x\n.git\n")
    make(tmp_path, "data/sub/.gitignore", content=b"*\n")
    make(tmp_path, "data/a.tmp", "data/keep.tmp", "data/sub/x", "data/sub/y", "data/sub/.git/x")
    make(tmp_path, "data/.git/x")
    assert files(tmp_path / "data") == {"keep.tmp", "sub/y", ".git/x"}


def test_include(root: Path) -> None:
    """Files that match, and what is below directories that do; ignored ones only by themselves."""
    make(root, "a.py", "a.txt", "src/b.py", "src/b.txt", "config/x", "config/sub/y", "config/z.o")
    make(root, "a.log", "wanted.log", "dist/p", "dist/q.o", "venv/lib.py", "deep/config/x")
    make(root, ".gitignore", content=b"*.log\n*.o\ndist/\nvenv/\n")
    options = IgnoreOptions(include=("*.py", "./config/", "wanted.log", "dist/"))
    walked = walk(root, options)
    assert walked.files == {
        b"a.py",
        b"src/b.py",
        b"config/x",
        b"config/sub/y",
        b"wanted.log",
        b"dist/p",
    }
    assert {b"src/", b"deep/", b"deep/config/"} <= walked.kept
    assert walked.dropped[b"venv/"] == Rule("venv/", ".gitignore:4")
    assert walked.dropped[b"config/z.o"] == Rule("*.o", ".gitignore:2")
    assert walked.dropped[b"a.txt"] == Rule("*.py, ./config/, wanted.log, dist/", "--include")

    everything = IgnoreOptions(include=("dist/**",), exclude=("p",))
    assert files(root, everything) == {"dist/q.o"}


@pytest.mark.parametrize("rules", [".gitignore", ".castignore", "../rules"])
def test_reaching_into_dropped_directories(root: Path, rules: str) -> None:
    make(root, "data/raw/a.csv", "data/raw/a.o", "data/raw/sub/b.csv", "data/x", "data/other/c.csv")
    make(root, "data/raw/p/q/z", "data/raw/p/r", "data/kept.c", "log/a", "log/b", "a.csv", "a.o")
    if rules == ".gitignore":
        git(root, "add", "data/kept.c")
    make(root, rules, content=b"data/\nlog/\n*.o\n")
    given: tuple[Path, ...] = (root.parent / "rules",) if "/" in rules else ()

    include = ("/data/raw/*.csv", "data/raw/p/", "*.o", "*.c")
    walked = walk(root, IgnoreOptions(include=include, ignore_files=given))
    wanted = {"data/raw/a.csv", "data/raw/p/q/z", "data/raw/p/r", "a.o"}
    tracked = {"data/kept.c"} if rules == ".gitignore" else set()
    assert {os.fsdecode(path) for path in walked.files} == wanted | tracked
    assert {b"data/other/", b"data/raw/sub/", b"data/raw/a.o", b"log/"} <= walked.dropped.keys()

    exclude = ("!data/raw/*.csv", "!log/*", "log/b", "!c.csv")
    kept = files(root, IgnoreOptions(exclude=exclude, ignore_files=given))
    assert kept == {"data/raw/a.csv", "log/a", "a.csv"} | tracked
    last = IgnoreOptions(exclude=(*exclude, "data"), ignore_files=given)
    assert files(root, last) == {"log/a", "a.csv"}


def test_reaching_into_an_ignored_clone(root: Path) -> None:
    """Takes what is asked for, not the clone."""
    clone = init(root / "lib/clone")
    make(clone, "a", "b", "sub/c")
    git(clone, "add", ".")
    make(root, ".gitignore", content=b"lib/\n")
    walked = walk(root, IgnoreOptions(exclude=("!lib/clone/a",)))
    assert {path for path in walked.files if path.startswith(b"lib")} == {b"lib/clone/a"}
    assert b"lib/clone/.git/" in walked.dropped


def test_no_ignore(root: Path, tmp_path: Path) -> None:
    make(root, "a.o", "b", "sub/.git/x")
    make(root, ".gitignore", content=b"*\n")
    make(root, ".castignore", content=b"*\n")
    make(root, ".git/index", content=b"damaged")
    make(tmp_path, "global", content=b"*\n")
    options = IgnoreOptions(no_ignore=True, gitignore=True, global_excludes=tmp_path / "global")
    walked = walk(root, options)
    assert not walked.dropped
    assert {b"a.o", b"b", b".git/HEAD", b".git/index", b"sub/.git/x"} <= walked.files
    assert b".git/HEAD" not in walk(root, IgnoreOptions(no_ignore=True, exclude=("/.git",))).files


def test_gitignore_off_in_a_work_tree(root: Path) -> None:
    make(root, "a.o", "b.o")
    make(root, ".gitignore", content=b"*\n")
    make(root, ".castignore", content=b"b.o\n")
    walked = walk(root, IgnoreOptions(gitignore=False))
    assert walked.dropped.keys() == {b"b.o"}


def test_never_is_git_itself_taken(root: Path) -> None:
    make(root, "sub/.git/x", "sub/.github/x")
    make(root, ".castignore", content=b"!.git\n!**\n")
    walked = walk(root, IgnoreOptions(include=(".git", "x"), exclude=("!.git",)))
    assert walked.files == {b"sub/.github/x"}
    assert walked.dropped[b".git/"] == Rule(".git/", "built-in")


def test_unreadable_rule_files(tmp_path: Path) -> None:
    """Those in the tree count for nothing: as files of the tree they are reported by the walk."""
    make(tmp_path, "data/a")
    (tmp_path / "data/.castignore").symlink_to("rules")
    make(tmp_path, "data/rules", content=b"a\n")
    make(tmp_path, "data/.rnignore/x")
    assert files(tmp_path / "data") == {"a", "rules", ".rnignore/x"}


@pytest.mark.parametrize("name", ["missing", "directory", "a\0b"])
def test_ignore_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    make(tmp_path, "directory/x", "data/a")
    with pytest.raises(UsageError, match=r"--ignore-file '.*' cannot be read: .*; name a"):
        walk(tmp_path / "data", IgnoreOptions(ignore_files=(tmp_path / name,)))


def test_global_excludes_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    """As for git, that is no error."""
    make(root, "a")
    assert files(root, IgnoreOptions(global_excludes=tmp_path / "missing")) == {"a"}


@pytest.mark.parametrize("pattern", ["", "/", "./", "!", "a[b", "[[:word:]]", "a\\", "../a", "."])
def test_patterns_that_match_nothing(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match=r"--include '.*' matches no name; patterns are"):
        walk(tmp_path, IgnoreOptions(include=(pattern,)))
    with pytest.raises(UsageError, match=r"--exclude '.*' matches no name; patterns are"):
        walk(tmp_path, IgnoreOptions(exclude=(pattern,)))


def test_negated_include(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--include '!a' begins with '!'; use --exclude"):
        walk(tmp_path, IgnoreOptions(include=("!a",)))


def test_options_are_patterns_as_they_stand(tmp_path: Path) -> None:
    """No comments, and no spaces trimmed: those belong to rule files."""
    make(tmp_path, "data/#a", "data/b ", "data/b", "data/caf\udce9", "data/sub/here", "data/here")
    patterns = ("#a", "b ", "caf\udce9", "./here")
    assert files(tmp_path / "data", IgnoreOptions(exclude=patterns)) == {"b", "sub/here"}


def test_origins_of_odd_names(tmp_path: Path) -> None:
    make(tmp_path, "data/caf\udce9/.castignore", content=b"#\n\nx\xff  \n")
    make(tmp_path, "data/caf\udce9/x\udcff")
    walked = walk(tmp_path / "data")
    assert list(walked.dropped.values()) == [Rule("x\udcff", "caf\udce9/.castignore:3")]


def test_what_a_walk_need_not_ask(tmp_path: Path) -> None:
    def scope(options: IgnoreOptions, entries: set[bytes]) -> tuple[bool, bool, bool]:
        rules = {b".castignore": b"a\n"}
        root = open_root_scope(fd, os.fsencode(tmp_path), options, entries, rules.get)
        child = root.enter(b"d", {b"x"}, lambda name: None) if root.needs_enter else root
        return root.keeps_all, root.needs_enter, child.keeps_all

    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        plain, rules = {b"a"}, {b"a", b".castignore", b".git"}
        assert scope(IgnoreOptions(), plain) == (True, True, True)
        assert scope(IgnoreOptions(), rules) == (False, True, False)
        assert scope(IgnoreOptions(own_files=()), rules) == (True, False, True)
        assert scope(IgnoreOptions(no_ignore=True), rules) == (True, False, True)
        assert scope(IgnoreOptions(gitignore=True, own_files=()), plain) == (True, True, True)
        nothing = IgnoreOptions(no_ignore=True)
        assert scope(replace(nothing, include=("a",)), plain) == (False, True, False)
        assert scope(replace(nothing, include=("d/",)), plain) == (False, True, False)
        assert scope(replace(nothing, exclude=("/a",)), plain) == (False, True, True)
        assert scope(replace(nothing, exclude=("/d/a",)), plain) == (True, True, False)
    finally:
        os.close(fd)


@pytest.mark.parametrize("pattern", [b"*a" * 60 + b"b", b"**/a/" * 60 + b"b", b"a*/" * 60 + b"b"])
def test_no_pattern_takes_long(pattern: bytes) -> None:
    """Hostile rule files cannot stall an ingest: a backtracking matcher needs years for these."""
    parsed = parse_pattern(pattern)
    assert parsed is not None
    begin = time.monotonic()
    rules = RuleList([(parsed, Verdict(Rule("", "")))])
    for path in (b"", b"a/" * 500, b"a/" * 500 + b"c/"):
        for table in rules.tables(path):
            assert table is None or table.find(b"a" * 250 + b"c") is None
    assert time.monotonic() - begin < 5
