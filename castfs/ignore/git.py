"""How git itself is asked, where its files alone do not tell."""

from __future__ import annotations

#: git sets these for its hooks and aliases, and they would lead to another repository.
_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
_SETTINGS = (
    # It may name a program, and a repository's configuration is not to be trusted.
    "core.fsmonitor=false",
    # Whoever may read a repository may freeze it. Nothing that is asked here runs its programs.
    "safe.directory=*",
)


def git_command(directory: str, *arguments: str) -> list[str]:
    """The words of a command that runs git in `directory`, whatever the environment says."""
    unset = [f"--unset={name}" for name in _LOCATIONS]
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    return ["env", *unset, "git", *settings, "-C", directory, *arguments]
