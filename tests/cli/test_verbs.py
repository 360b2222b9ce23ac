"""The table of verbs, what is typed by mistake, and help."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from castfs.cli.verbs import VERBS, WORDS_OF_OTHERS, castfs
from tests.cli.conftest import REPOSITORY, Run, one_line


@pytest.mark.parametrize("verb", VERBS)
def test_verb_has_help_with_examples(castfs: Run, verb: str) -> None:
    text = castfs(verb, "--help").text
    assert text.startswith(f"Usage: castfs {verb}")
    examples = re.findall(rf"^    .*castfs .*\b{verb}\b", text.split("Examples:")[1], re.MULTILINE)
    assert len(examples) >= 2
    assert castfs(verb, "-h").text == castfs("help", verb).text == text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_store(verb: str) -> None:
    context = click.Context(castfs)
    command = castfs.get_command(context, verb)
    assert command is not None
    assert "--store" in {word for parameter in command.params for word in parameter.opts}


def test_overview_names_every_verb(castfs: Run) -> None:
    text = castfs("--help").text
    for verb, entry in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(entry.summary)}$", text, re.MULTILINE)
    assert castfs("help").text == text


def test_no_verb_shows_the_overview(castfs: Run) -> None:
    result = castfs(code=2)
    assert result.out == b""
    assert result.err == castfs("--help").text


def test_version(castfs: Run) -> None:
    assert re.fullmatch(r"castfs \d+\.\d+\.\d+\n", castfs("--version").text)


@pytest.mark.parametrize(("word", "ours"), WORDS_OF_OTHERS.items())
def test_word_of_another_tool(castfs: Run, word: str, ours: str) -> None:
    line = one_line(castfs(word, "x", code=2).err)
    assert line.startswith(f"castfs: castfs has no verb `{word}`; it ")
    assert f"`castfs {ours}`" in line


@pytest.mark.parametrize(
    ("typed", "meant"), [("ingset", "ingest"), ("mout", "mount"), ("snapshot", "list")]
)
def test_misspelt_verb(castfs: Run, typed: str, meant: str) -> None:
    line = one_line(castfs(typed, code=2).err)
    assert line == f"castfs: castfs has no verb `{typed}`; did you mean `castfs {meant}`?"


def test_unknown_word(castfs: Run) -> None:
    assert one_line(castfs("xyzzy", code=2).err).endswith("; see `castfs --help`")
    assert one_line(castfs("help", "xyzzy", code=2).err).endswith("; see `castfs --help`")


@pytest.mark.parametrize("topic", ["exit-codes", "snapshots", "environment"])
def test_topic(castfs: Run, topic: str) -> None:
    assert castfs("help", topic).text


#: Loaded by the process that serves a mount, or for a terminal, and by nothing else.
HEAVY = {"rich", "trio", "pyfuse3", "asyncio", "sqlite3", "zstandard"}


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    return set(done.stderr.splitlines())


@pytest.mark.parametrize(
    "code",
    [
        "import castfs.cli",
        "from castfs.cli import main; main(['--help'])",
        "from castfs.cli import main; main(['mounts', '--json'])",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_overview_loads_no_verb() -> None:
    loaded = loaded_by("from castfs.cli import main; main(['--help'])")
    assert not {f"castfs.cli.{entry.module}" for entry in VERBS.values()} & loaded
    assert "castfs.repository" not in loaded


def test_ingest_loads_no_other_verb() -> None:
    loaded = loaded_by("from castfs.cli import main; assert main(['ingest', 'castfs/cli']) == 0")
    assert not loaded & (HEAVY - {"sqlite3"})
    others = {f"castfs.cli.{e.module}" for e in VERBS.values() if e.module != "ingest"}
    assert not others & loaded
    rooms = {"castfs.mount", "castfs.restore", "castfs.archive", "castfs.diff", "castfs.tree"}
    assert not rooms & loaded
