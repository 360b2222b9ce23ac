"""The user's own excludes are found where git finds them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.ignore.walking import git, init, make, walk


@pytest.mark.parametrize("where", ["default", "configured", "of the repository"])
def test_global_excludes_are_those_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    root = init(tmp_path / "repository")
    make(root, "a.txt", "b.secret")
    rules = tmp_path / "own rules"
    if where == "default":
        rules = Path(os.environ["XDG_CONFIG_HOME"]) / "git" / "ignore"
        rules.parent.mkdir(parents=True, exist_ok=True)
    elif where == "configured":
        config = tmp_path / "gitconfig"
        config.write_text(f'[core]\n\texcludesFile = "{rules}"\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    else:
        git(root, "config", "core.excludesFile", str(rules))
    rules.write_text("*.secret\n")
    command = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert listed == b"a.txt\0"
    assert walk(root).files == {b"a.txt"}


def test_a_nested_clone_has_its_own(tmp_path: Path) -> None:
    outer = init(tmp_path / "repository")
    inner = init(outer / "inner")
    make(outer, "k.in", "k.out")
    make(inner, "k.in", "k.out")
    for repository, name in ((outer, "out"), (inner, "in")):
        (tmp_path / name).write_text(f"*.{name}\n")
        git(repository, "config", "core.excludesFile", str(tmp_path / name))
    assert walk(outer).files == {b"k.in", b"inner/k.out"}


def test_the_environment_leads_to_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook of another repository."""
    other, root = init(tmp_path / "other"), init(tmp_path / "repository")
    make(root, "a.txt")
    (tmp_path / "rules").write_text("*.txt\n")
    git(other, "config", "core.excludesFile", str(tmp_path / "rules"))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert walk(root).files == {b"a.txt"}
