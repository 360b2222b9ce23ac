"""Work trees of every kind: what git tracks is kept, and nested ones obey their own rules."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.errors import SourceError
from castfs.ignore import IgnoreOptions
from tests.ignore.walking import check_against_git, git, git_files, init, make, walk

AWKWARD = (b"caf\xe9.log", b"new\nline.log", b"-dash.log", b" space .log", b"\xff\xfe/\x80.log")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return init(tmp_path / "work")


def commit(root: Path, *paths: bytes | str) -> None:
    make(root, *paths)
    git(root, "add", "-f", "--", *(b":(literal)" + os.fsencode(path) for path in paths))
    git(root, "commit", "-qm", "x")


def fill(root: Path) -> None:
    """Tracked files that rules would drop, beside untracked ones that they do."""
    commit(root, "kept.log", "out/deep/kept.o", "out/other/kept", "src/a.c", "src/a.log", *AWKWARD)
    make(root, ".gitignore", content=b"*.log\nout/\n")
    make(root, "b.log", "out/x", "out/deep/y", "out/new/z", "src/b.log", "src/b.c", "out2/a")


def version_4(root: Path) -> None:
    git(root, "update-index", "--index-version", "4")


def intend_to_add(root: Path) -> None:
    make(root, "intended.log")
    git(root, "add", "-f", "-N", "intended.log")


def intend_to_add_4(root: Path) -> None:
    intend_to_add(root)
    version_4(root)


def conflict(root: Path) -> None:
    blob = git(root, "hash-object", "-w", "--stdin", stdin=b"x").strip()
    lines = b"".join(b"100644 %s %d\tboth.log\n" % (blob, stage) for stage in (1, 2, 3))
    git(root, "update-index", "--index-info", stdin=lines)
    make(root, "both.log")


def split_index(root: Path) -> None:
    git(root, "update-index", "--split-index")
    make(root, "after.log")
    git(root, "add", "-f", "after.log")


def sparse_index(root: Path) -> None:
    git(root, "add", ".gitignore")
    git(root, "commit", "-qm", "rules")
    git(root, "sparse-checkout", "set", "--cone", "--sparse-index", "src")


def skip_hash(root: Path) -> None:
    """What index.skipHash of git 2.40 writes."""
    index = root / ".git/index"
    size = 32 if b"sha256" in (root / ".git/config").read_bytes() else 20
    index.write_bytes(index.read_bytes()[:-size] + bytes(size))


def long_names(root: Path) -> None:
    """The index has 12 bits for the length of a name."""
    blob = git(root, "hash-object", "-w", "--stdin", stdin=b"x").decode().strip()
    for length in (4094, 4095, 4096, 4999):
        name = "/".join(["d" * 99] * 50)[:length]
        git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")


def long_names_4(root: Path) -> None:
    """How much of a name goes is a number of several bytes, too."""
    long_names(root)
    version_4(root)


INDEXES: dict[str, Callable[[Path], None]] = {
    "version 2": lambda root: None,
    "version 4": version_4,
    "version 3, intended": intend_to_add,
    "version 4, intended": intend_to_add_4,
    "conflict": conflict,
    "split": split_index,
    "sparse": sparse_index,
    "without a hash": skip_hash,
    "long names": long_names,
    "long names, version 4": long_names_4,
}


@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES)
@pytest.mark.parametrize("objects", ["sha1", "sha256"])
def test_tracked_files_are_kept(
    tmp_path: Path, objects: str, change: Callable[[Path], None]
) -> None:
    root = init(tmp_path / "work", f"--object-format={objects}")
    fill(root)
    change(root)

    walked = check_against_git(root)

    on_disk = {name for name in AWKWARD if os.path.lexists(os.path.join(os.fsencode(root), name))}
    assert len(on_disk) >= 4  # a sparse checkout leaves out one
    assert {b"kept.log", b"src/a.log", *on_disk} <= walked.files
    assert not {b"b.log", b"out/x", b"out/deep/y", b"src/b.log"} & walked.files
    assert {b"b.log", b"src/b.log"} <= walked.dropped.keys()


def test_an_index_that_only_git_reads_needs_git(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root)
    split_index(root)
    monkeypatch.setenv("GIT_INDEX_FILE", str(root / "elsewhere"))  # as in a hook of git
    assert b"after.log" in walk(root).files
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError, match=r"git tracks in .*work.*extension b'link'.*--no-ignore"):
        walk(root)


@pytest.mark.parametrize("at", [0, 4, 7, 11, 40, 60, 80, 200, -60, -30, -10, -1])
def test_a_damaged_index_is_an_error(root: Path, at: int) -> None:
    fill(root)
    index = root / ".git/index"
    data = bytearray(index.read_bytes())
    data[at] ^= 0xFF
    index.write_bytes(data)
    with pytest.raises(SourceError, match=r"git tracks in .*work cannot be read.*--no-ignore"):
        walk(root)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_short_index_is_an_error(root: Path, zeros: bool) -> None:
    """`git ls-files` lists what it finds, and that is less than what is tracked. With zeros for its
    checksum the entries themselves must tell."""
    fill(root)
    index = root / ".git/index"
    data = index.read_bytes()
    for length in range(0, len(data), 7):
        index.write_bytes(data[:length] + bytes(20 if zeros else 0))
        with pytest.raises(SourceError, match="git tracks in"):
            walk(root)


def test_an_unreadable_index_is_an_error(root: Path) -> None:
    make(root, ".gitignore", content=b"a\n")
    make(root, "a", ".git/index/x")
    with pytest.raises(SourceError, match="not a regular file"):
        walk(root)


def test_without_an_index_nothing_is_tracked(root: Path) -> None:
    make(root, ".gitignore", content=b"a\n")
    make(root, "a", "b")
    assert check_against_git(root).files == {b".gitignore", b"b"}


def test_the_index_is_read_for_what_would_be_dropped_only(root: Path) -> None:
    fill(root)
    (root / ".git/index").write_bytes(b"damaged")
    (root / ".gitignore").write_bytes(b"nothing\n")
    assert b"b.log" in walk(root).files


def test_what_replaced_a_tracked_file(root: Path) -> None:
    """Names in the index say nothing of a directory or of a file below what is no directory now."""
    commit(root, "file.o", "dir.o/file", "link.o/file", "other.o")
    make(root, ".gitignore", content=b"*.o\n")
    for name in ("file.o", "dir.o/file", "link.o/file", "other.o"):
        (root / name).unlink()
    (root / "dir.o").rmdir()
    (root / "link.o").rmdir()
    make(root, "file.o/untracked", "dir.o", "elsewhere/file")
    (root / "link.o").symlink_to("elsewhere")
    (root / "other.o").symlink_to("nowhere")

    walked = walk(root)

    assert walked.files == {b".gitignore", b"elsewhere/file", b"other.o"}
    gone = {b"file.o", b"link.o/file"}  # names that git lists: something is there
    assert walked.files == git_files(root) - gone


def test_symlinks(root: Path) -> None:
    """A symlink to a directory is no directory, and a symlinked .gitignore is not obeyed."""
    make(root, ".gitignore", content=b"dir/\n*.x\n")
    make(root, "rules", content=b"a\n")
    make(root, "sub/a", "real/a")
    (root / "dir").symlink_to("real")
    (root / "dead.x").symlink_to("nowhere")
    (root / "sub/.gitignore").symlink_to("../rules")
    walked = check_against_git(root)
    assert {b"dir", b"sub/a"} <= walked.files
    assert b"dead.x" in walked.dropped


def test_rule_files_that_are_none(root: Path) -> None:
    make(root, ".gitignore/a", "sub/a", "sub/.gitignore/b")
    assert check_against_git(root).files == {b".gitignore/a", b"sub/a", b"sub/.gitignore/b"}
    os.mkfifo(root / "sub/.castignore")
    assert b"sub/.castignore" in walk(root).files


def test_excludes_and_their_order(root: Path, tmp_path: Path) -> None:
    make(tmp_path, "global", content=b"a\nb\n!c\nd\n/sub/e\n")
    make(root, ".git/info/exclude", content=b"!b\nc\nd\n/sub/f\n")
    make(root, ".gitignore", content=b"!d\n")
    make(root, *"abcd", *(f"sub/{name}" for name in "abcdef"), "sub/sub/e")
    git(root, "config", "core.excludesFile", str(tmp_path / "global"))

    walked = walk(root, IgnoreOptions(global_excludes=tmp_path / "global"))

    assert walked.files == git_files(root)
    rules = {path: (rule.origin, rule.pattern) for path, rule in walked.dropped.items()}
    assert rules == {
        b".git/": ("built-in", ".git/"),
        b"a": (f"{tmp_path}/global:1", "a"),
        b"sub/a": (f"{tmp_path}/global:1", "a"),
        b"c": (".git/info/exclude:2", "c"),
        b"sub/c": (".git/info/exclude:2", "c"),
        b"sub/e": (f"{tmp_path}/global:5", "/sub/e"),
        b"sub/f": (".git/info/exclude:4", "/sub/f"),
    }


@pytest.mark.semantics("I31")
def test_nested_clone(root: Path) -> None:
    """The rules of git around it end at its door; its own begin there."""
    make(root, ".gitignore", content=b"*.o\n/ignored/\nsub/deep/x\n")
    make(root, ".git/info/exclude", content=b"*.outer\n")
    make(root, "a.o", "a.outer", "a.inner")
    nested = init(root / "sub/clone")
    make(nested, ".gitignore", content=b"*.c\n/deep\n")
    make(nested, ".git/info/exclude", content=b"*.inner\n")
    commit(nested, "tracked.c", "deep/tracked")
    make(nested, "a.o", "a.c", "a.outer", "a.inner", "deep/x", "x/deep/x")
    make(init(root / "ignored/clone"), "a")

    walked = check_against_git(root)

    below = {path.removeprefix(b"sub/clone/") for path in walked.files if b"clone" in path}
    assert below == {
        b".gitignore",
        b"tracked.c",
        b"deep/tracked",
        b"a.o",
        b"a.outer",
        b"x/deep/x",
    }
    assert walked.dropped[b"sub/clone/.git/"].origin == "built-in"
    assert walked.dropped[b"sub/clone/a.inner"].origin == "sub/clone/.git/info/exclude:1"
    assert b"ignored/" in walked.dropped


def test_global_rules_are_anchored_at_each_clone(root: Path, tmp_path: Path) -> None:
    make(tmp_path, "global", content=b"/a\nx/b\n")
    make(root, "a", "x/b", "clone/a", "clone/x/b", "clone/x/a")
    init(root / "clone")
    walked = walk(root, IgnoreOptions(global_excludes=tmp_path / "global"))
    assert walked.files == {b"clone/x/a"}


def test_a_directory_called_git_is_no_clone(root: Path) -> None:
    make(root, ".gitignore", content=b"*.o\n")
    make(root, "sub/.git/x", "sub/a.o", "sub/a", "file/a.o", "file/a", "gone/a.o", "gone/a")
    make(root, "file/.git", content=b"not a pointer")
    make(root, "gone/.git", content=b"gitdir: ../nowhere\n")
    walked = check_against_git(root)
    assert walked.files == {b".gitignore", b"sub/a", b"file/a", b"gone/a"}


def test_a_clone_with_files_that_the_tree_around_it_tracks(root: Path) -> None:
    """For git it is a directory like others."""
    commit(root, "sub/a")
    make(root, ".gitignore", content=b"*.o\n")
    nested = init(root / "sub")
    commit(nested, "b.o")
    make(root, "sub/c", "sub/d.o")
    walked = check_against_git(root)
    assert walked.files == {b".gitignore", b"sub/a", b"sub/c"}


@pytest.mark.semantics("I31")
@pytest.mark.parametrize("ignored", [b"", b"vendor/\n", b"lib\n", b"*\n"])
def test_submodule(root: Path, tmp_path: Path, ignored: bytes) -> None:
    """It is tracked, whatever the rules around it say."""
    library = init(tmp_path / "library")
    commit(library, "kept.o", "lib.c")
    make(library, ".gitignore", content=b"*.o\n")
    commit(library, ".gitignore2")
    git(library, "add", ".gitignore")
    git(library, "commit", "-qm", "x")
    git(root, "submodule", "--quiet", "add", str(library), "vendor/lib")
    make(root, ".gitignore", content=ignored)
    make(root, "vendor/lib/new.o", "vendor/lib/new.c", "vendor/other")

    walked = check_against_git(root)

    names = {b"kept.o", b"lib.c", b"new.c", b".gitignore", b".gitignore2"}
    below = {path for path in walked.files if path.startswith(b"vendor/lib/")}
    assert below == {b"vendor/lib/" + name for name in names}
    assert walked.dropped[b"vendor/lib/.git"].origin == "built-in"
    assert walked.dropped[b"vendor/lib/new.o"].origin == "vendor/lib/.gitignore:1"
    assert (b"vendor/other" in walked.files) == (ignored in (b"", b"lib\n"))


def test_submodule_that_is_not_checked_out(root: Path, tmp_path: Path) -> None:
    library = init(tmp_path / "library")
    commit(library, "a")
    git(root, "submodule", "--quiet", "add", str(library), "lib")
    git(root, "commit", "-qm", "x")
    git(root, "submodule", "--quiet", "deinit", "--force", "lib")
    make(root, ".gitignore", content=b"lib/\n")
    walked = check_against_git(root)
    assert b"lib/" in walked.kept


def test_linked_work_tree(root: Path) -> None:
    """It has an index of its own, and shares info/exclude."""
    commit(root, "main.o")
    git(root, "branch", "other")
    git(root, "worktree", "add", "-q", str(root / "linked"), "other")
    linked = root / "linked"
    commit(linked, "linked.o")
    make(root, ".git/info/exclude", content=b"*.o\n/linked/x\n/x\n")
    for place in (root, linked):
        make(place, "new.o", "x", "y")

    assert check_against_git(linked).files == {b"main.o", b"linked.o", b"y"}
    assert check_against_git(root).files == {
        b"main.o",
        b"y",
        b"linked/main.o",
        b"linked/linked.o",
        b"linked/y",
    }


def test_git_directory_elsewhere(tmp_path: Path) -> None:
    root = init(tmp_path / "work", "--separate-git-dir", str(tmp_path / "store\xe9.git"))
    commit(root, "a.o")
    make(root, ".gitignore", content=b"*.o\n")
    make(root, "b.o")
    assert check_against_git(root).files == {b".gitignore", b"a.o"}


@pytest.mark.parametrize("pointer", [b"gitdir: ../nowhere\n", b"gitdir: .\n", b"", b"nonsense"])
@pytest.mark.parametrize("gitignore", [None, True])
def test_a_pointer_to_nowhere_is_an_error(
    tmp_path: Path, pointer: bytes, gitignore: bool | None
) -> None:
    make(tmp_path, "work/a.o")
    make(tmp_path, "work/.git", content=pointer)
    with pytest.raises(SourceError, match=r"work/\.git points to no git directory; .*--no-ignore"):
        walk(tmp_path / "work", IgnoreOptions(gitignore=gitignore))
    assert walk(tmp_path / "work", IgnoreOptions(gitignore=False)).files == {b"a.o", b".git"}


def test_a_root_that_is_no_work_tree(tmp_path: Path) -> None:
    """Everything is taken, clones and their .git too."""
    root = tmp_path / "data"
    make(root, ".gitignore", content=b"*\n")
    make(root, "a", ".git/x")
    clone = init(root / "clone")
    make(clone, ".gitignore", content=b"*\n")
    walked = walk(root)
    assert not walked.dropped
    assert {b"a", b".git/x", b"clone/.git/HEAD"} <= walked.files


def test_gitignore_outside_of_a_work_tree(tmp_path: Path) -> None:
    """Its rules apply, and those of the user; no file is tracked."""
    make(tmp_path, "global", content=b"/x\n*.tmp\n")
    root = tmp_path / "data"
    make(root, ".gitignore", content=b"*.o\n")
    make(root, "a.o", "a.c", "a.tmp", "x", "sub/x", "sub/.git/a")
    clone = init(root / "clone")
    commit(clone, "a.tmp")
    options = IgnoreOptions(gitignore=True, global_excludes=tmp_path / "global")
    assert walk(root, options).files == {b".gitignore", b"a.c", b"sub/x", b"clone/a.tmp"}


def test_gitignore_inside_a_work_tree(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git does there: with the rules from above, and what is tracked."""
    commit(root, "deep/data/kept.o", "deep/data/out/kept")
    make(root, ".git/info/exclude", content=b"*.exclude\n")
    make(root, ".gitignore", content=b"*.o\n/a\nout/\n*.x\n")
    make(root, "deep/.gitignore", content=b"/data/b\n/b\n!*.x\n")
    make(root, "deep/data/.gitignore", content=b"/c\n")
    make(root, "rules", content=b"sub\n")
    for name in ("a", "b", "c", "a.o", "a.exclude", "out/x", "a.x", "sub/b", "sub/c", "sub/kept.o"):
        make(root, f"deep/data/{name}")
    data = root / "deep/data"

    walked = walk(data, IgnoreOptions(gitignore=True))

    assert walked.files == git_files(data)
    assert {b"kept.o", b"out/kept", b"a", b"a.x"} <= walked.files
    origins = {path: rule.origin for path, rule in walked.dropped.items()}
    assert origins == {
        b"a.o": "../../.gitignore:1",
        b"sub/kept.o": "../../.gitignore:1",
        b"out/x": "../../.gitignore:3",
        b"a.exclude": "../../.git/info/exclude:1",
        b"b": "../.gitignore:1",
        b"c": ".gitignore:1",
    }
    monkeypatch.chdir(root / "deep")
    assert walk(Path("data"), IgnoreOptions(gitignore=True)) == walked

    (root / "deep/.gitignore").unlink()
    make(root, "rules", content=b"*\n")
    (root / "deep/.gitignore").symlink_to("../rules")
    assert walk(data, IgnoreOptions(gitignore=True)).files == git_files(data)


def test_trees_deeper_than_a_path_may_be(root: Path) -> None:
    """A clone below PATH_MAX is found, and its index read."""
    make(root, ".gitignore", content=b"*.o\n")
    fd = os.open(root, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=fd)
        parent, fd = fd, os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(parent)
    clone = Path(f"/proc/self/fd/{fd}")
    source = init(root.parent / "source")
    commit(source, "a.o", "sub/b.o")
    make(source, ".git/info/exclude", content=b"sub/\n")
    make(source, "new.o", "sub/new")
    try:
        os.rename(source, clone / "clone")
    finally:
        os.close(fd)
    below = {path.rpartition(b"/clone/")[2] for path in walk(root).files if b"/clone/" in path}
    assert below == {b"a.o", b"sub/b.o", b"new.o"}
