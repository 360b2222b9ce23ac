"""Random rules over random trees: the same files, and the same rules, as git's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ignore.walking import (
    GIT_STARS_FIXED,
    all_paths,
    git,
    git_files,
    git_rules,
    git_version,
    init,
    make,
    parent,
    walk,
)

# fmt: off
NAMES = st.sampled_from([
    b"a", b"b", b"ab", b"ba", b"aab", b"abb", b"a b", b" a", b"a ", b"-", b"a-b", b"!a", b"#", b"A",
    b"[", b"]", b"[a]", b"*", b"a*", b"?", b"\\", b"a\\", b"\\a", b"^", b"\xe9", b"a\nb", b"ab\r",
])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
PIECES = st.sampled_from([
    b"a", b"b", b"ab", b"*", b"*", b"**", b"/", b"/", b"**/", b"/**", b"/**/", b"?", b"[ab]",
    b"[!a]", b"[^b]", b"[a-c]", b"[", b"]", b"!", b"\\", b"\\ ", b" ", b"-", b"^", b"#", b"A",
    b"[[:alpha:]]", b"[]a]", b"[\\]a]", b"[/]", b"\\/", b"\\*", b"\xe9", b"\n", b"\r", b"***",
])
# fmt: on
PATTERNS = st.builds(
    lambda bang, pieces: bang + b"".join(pieces),
    st.sampled_from([b"", b"", b"!", b"/", b"!/"]),
    st.lists(PIECES, min_size=1, max_size=6),
)
#: What real rule files hold, so that matches and re-inclusions are common.
LIKELY = PATHS | st.sampled_from(
    [b"*", b"!*/", b"/*", b"!/a", b"a/", b"!a/", b"a/*", b"!a/b", b"*b", b"**/a", b"a/**", b"**/b/"]
)
RULES = st.lists(PATTERNS | LIKELY, max_size=5)

#: A component that begins with letters and ends in stars: `foo**/bar`.
STARS = re.compile(rb"!?/?[^*?\[\\]*[^*?\[\\/]\*\*+(?:\\?/|\Z)")


def without_stars(rules: list[bytes]) -> bytes:
    """A rule file of `rules`, without what this git gets wrong."""
    lines = b"\n".join(rules).split(b"\n")
    if git_version() < GIT_STARS_FIXED:
        lines = [line for line in lines if not STARS.match(line.rstrip(b" \r"))]
    return b"\n".join(lines)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init(tmp_path_factory.mktemp("differential") / "work")


def clear(root: Path) -> None:
    for path in root.iterdir():
        if path.name == ".git":
            (path / "index").unlink(missing_ok=True)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@settings(max_examples=150)
@given(
    paths=st.sets(PATHS, min_size=1, max_size=12),
    tracked=st.sets(st.integers(0, 11), max_size=3),
    rules=RULES,
    deeper=st.dictionaries(
        st.sampled_from([b"", b"a/", b"b/", b"ab/", b"a/b/"]), RULES, max_size=2
    ),
    excludes=RULES,
)
def test_as_git(
    repository: Path,
    paths: set[bytes],
    tracked: set[int],
    rules: list[bytes],
    deeper: dict[bytes, list[bytes]],
    excludes: list[bytes],
) -> None:
    clear(repository)
    directories = {parent(path[: end + 1]) for path in paths for end in range(len(path))}
    files = sorted(path for path in paths if path + b"/" not in directories)
    make(repository, *files)
    for place, lines in ({b"": rules} | deeper).items():
        if place in {b"", *directories}:
            make(repository, place + b".gitignore", content=without_stars(lines))
    (repository / ".git/info/exclude").write_bytes(without_stars(excludes))
    chosen = b"\0".join(files[i] for i in tracked if i < len(files))
    git(repository, "update-index", "--add", "-z", "--stdin", stdin=chosen)

    walked = walk(repository)

    assert walked.files == git_files(repository)
    decided = git_rules(repository, all_paths(repository))
    del walked.dropped[b".git/"]
    for path, ours in walked.dropped.items():
        assert decided[path.rstrip(b"/")] == (ours.origin, ours.pattern)
