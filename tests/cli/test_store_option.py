"""Which store is meant, and making one."""

from __future__ import annotations

import grp
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run, one_line


def test_before_and_after_the_verb(castfs: Run, tree: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    castfs("--store", here, "ingest", tree)
    castfs("ingest", tree, "--store", there)
    castfs("ingest", "--store", there, tree)
    assert len(castfs("list", "-q", "--store", here).text.split()) == 1
    assert len(castfs("--store", there, "list", "-q").text.split()) == 2
    assert len(castfs("--store", here, "list", "-q", "--store", there).text.split()) == 2


def test_environment_and_option(
    castfs: Run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTFS_STORE", str(tmp_path / "env"))
    castfs("ingest", tree)
    assert (tmp_path / "env" / "castfs.json").is_file()
    castfs("list", "--store", tmp_path / "other", code=10)


def test_init(castfs: Run, store: Path, tmp_path: Path) -> None:
    assert castfs("init").text == f"created store at {store}\n"
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert castfs("init").text == f"there is a store at {store} already\n"
    result = castfs("init", tmp_path / "x", "--json").json
    assert (result["store"], result["created"], result["group"]) == (
        str(tmp_path / "x"),
        True,
        None,
    )
    assert castfs("init", "--store", tmp_path / "x", "--json").json == {**result, "created": False}
    castfs("init", tmp_path / "x", "--store", tmp_path / "y", code=2)


def test_shared_store(castfs: Run, tmp_path: Path) -> None:
    group = grp.getgrgid(tmp_path.stat().st_gid).gr_name
    result = castfs("init", tmp_path / "x", "--shared", group)
    assert group in one_line(result.err)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o2770
    castfs("init", tmp_path / "x", "--shared", group)
    castfs("init")
    assert "private" in one_line(castfs("init", "--shared", group, code=1).err)
    assert "no group" in one_line(
        castfs("init", tmp_path / "z", "--shared", "nobody-s", code=1).err
    )
