"""`castfs ingest` and `castfs import`: options arrive, the summary says what happened."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from castfs.cli.units import format_duration, format_size
from castfs.cli.words import parse_size
from tests.cli.conftest import HOSTILE_NAMES, REPOSITORY, Run, environment, one_line


def test_summary(castfs: Run, tree: Path, store: Path) -> None:
    (tree / "sub" / "again.txt").write_text("beta\n")
    (tree / ".castignore").write_text("*.o\n")
    (tree / "big.o").write_bytes(b"x" * 3000)
    result = castfs("ingest", tree)
    assert one_line(result.err) == f"created store at {store}"
    snapshot, manifest, entries, blobs, ignored = result.text.splitlines()
    assert re.fullmatch(r"snapshot [0-9a-f]{24}", snapshot)
    assert re.fullmatch(r"manifest [0-9a-f]{64}", manifest)
    assert re.fullmatch(r"6 files, 3 directories, 1 symlink, 41 B in \d+\.\d s", entries)
    assert blobs == "added 5 blobs, 36 B; deduplicated 1 file, 5 B (0 unchanged)"
    assert ignored == "ignored 1 entry, 2.93 KiB: `*.o` .castignore:1 (2.93 KiB, 1 entry)"
    again = castfs("ingest", tree)
    assert again.err == ""
    assert again.text.splitlines()[1] == f"{manifest} (as before)"


def test_quiet_id_can_be_used(program: Run, tree: Path) -> None:
    """As the help says: id=$(castfs ingest -q DIR)."""
    script = f'cd {REPOSITORY} && castfs() {{ python -W error -m castfs "$@"; }}; '
    script += f"castfs show $(castfs ingest -q {tree})"
    done = subprocess.run(
        ["bash", "-euc", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment(PATH=f"{REPOSITORY}/.venv/bin:{os.environ['PATH']}"),
    )
    assert re.search(rf"^source +{re.escape(str(tree))}$", done.stdout, re.MULTILINE)


def test_everything_is_recorded(castfs: Run, tree: Path) -> None:
    snapshot = castfs(
        "ingest", "-q", tree, "--name", "n", "--tag", "t1", "--tag", "t2",
        "--meta", "k=v=w", "--meta", "empty=", "--message", "mähr",
    ).text.strip()  # fmt: skip
    record = castfs("show", "--json", snapshot).json["record"]
    assert record["name"] == "n"
    assert record["tags"] == ["t1", "t2"]
    assert record["metadata"] == {"k": "v=w", "empty": ""}
    assert record["message"] == "mähr"
    text = castfs("show", snapshot).text
    assert re.search(r"^  k +v=w$", text, re.MULTILINE)
    assert re.search(r"^tags +t1, t2$", text, re.MULTILINE)


def test_options_reach_the_scan(castfs: Run, tree: Path) -> None:
    def names(*args: str) -> set[str]:
        snapshot = castfs("ingest", "-q", tree, *args).text.strip()
        return set(castfs("ls", "-R", snapshot).text.splitlines())

    rules = tree.parent / "rules"
    rules.write_text("run.sh\n")
    assert "run.sh" in names()
    assert "run.sh" not in names("--ignore-file", str(rules))
    assert "run.sh" not in names("--exclude", "*.sh")
    assert names("--include", "a.txt") & {"a.txt", "run.sh"} == {"a.txt"}
    (tree / ".gitignore").write_text("a.txt\n")
    assert "a.txt" in names()
    assert "a.txt" not in names("--gitignore")
    (tree / ".castignore").write_text("a.txt\n")
    assert "a.txt" not in names()
    assert "a.txt" in names("--no-ignore")


def test_owner_and_reproducible(castfs: Run, tree: Path) -> None:
    def entry(*args: str) -> dict[str, object]:
        snapshot = castfs("ingest", "-q", tree, *args).text.strip()
        [found] = castfs("ls", "--json", snapshot, "run.sh").json
        assert isinstance(found, dict)
        return found

    (tree / "run.sh").chmod(0o700)
    assert entry()["mode"] == 0o700
    assert "uid" not in entry()
    assert entry("--owner")["uid"] == os.getuid()
    assert entry("--reproducible")["mode"] == 0o755


def test_manifest_copy(castfs: Run, tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.json"
    snapshot = castfs("ingest", "-q", tree, "-o", copy).text.strip()
    assert castfs("show", "--manifest", snapshot).out == copy.read_bytes()
    shown = castfs("show", "--json", copy).json
    assert shown["file"] == str(copy)
    assert shown["record"]["id"] == snapshot


def test_json(castfs: Run, hostile: Path) -> None:
    result = castfs("ingest", "--json", hostile).json
    assert result["file_count"] == len(HOSTILE_NAMES)
    assert result["source"] == str(hostile)
    assert result["skipped"] == []


def test_import(castfs: Run, tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    copy = other / "m.json"
    castfs("ingest", tree, "--store", other, "-o", tmp_path / "m.json")
    shutil.copy(tmp_path / "m.json", copy)
    castfs("init")
    imported = castfs("import", "-q", copy).text.strip()
    assert castfs("cat", imported, "a.txt").text == "alpha\n"
    result = castfs("import", "--json", copy).json
    assert (result["new_manifest"], result["added_count"]) == (False, 0)
    assert castfs("import", copy).text.splitlines()[1].endswith(" (as before)")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1k", 1024),
        ("1K", 1024),
        ("1KiB", 1024),
        ("1kb", 1000),
        ("1.5G", 3 << 29),
        ("10 GiB", 10 << 30),
        ("2TB", 2 * 10**12),
        ("7B", 7),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("iB", None),
        ("1iB", None),
        ("1e3", None),
        ("12 parsecs", None),
    ],
)
def test_sizes_that_are_read(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (12 * 1024 + 300, "12.3 KiB"),
        (1023 * 1024 + 1000, "1.00 MiB"),
        (10 << 20, "10.0 MiB"),
        (512 << 20, "512 MiB"),
        (1 << 30, "1.00 GiB"),
        (5000 << 50, "5,000 PiB"),
    ],
)
def test_sizes_that_are_shown(size: int, text: str) -> None:
    assert format_size(size) == text


def test_durations() -> None:
    assert [format_duration(s) for s in (0.04, 59.94, 61, 3661)] == [
        "0.0 s", "59.9 s", "1 min 1 s", "1 h 1 min",
    ]  # fmt: skip
