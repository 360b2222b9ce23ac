"""Every Python example of Runicorn's three guides, run with only its import line changed.

Each runs in a process of its own, in a directory that has what the guides speak of (`prepare`).
Standing in: torch, yaml where it is not installed, the training step (`train_one_epoch`,
`train_model`, `evaluate_model`), and whatever an excerpt takes from its context: the `given` of its
row.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import typing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import castfs.compat.runicorn as rn
from castfs import settings
from tests.compat import older

DOCUMENTS = Path(__file__).parent / "documents"
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
RUN_ID = "20260115_100000_abc123"

Key = tuple[str, int]


@dataclass(frozen=True)
class Row:
    """An example. `given` defines what it takes from its context; `then` looks at what it made."""

    given: str = ""
    then: str = ""


RUN = "import castfs.compat.runicorn as rn; run = rn.init(project='context')\n"
ARTIFACT = RUN + "artifact = rn.Artifact('my-model', type='model')\n"
LOGGED = ARTIFACT + "artifact.add_file('model.pth'); artifact.add_metadata({'val_acc': 0.95})\n"
USED = LOGGED + "run.log_artifact(artifact)\n"

PROGRAMS: dict[Key, Row] = {
    ("assets-en", 0): Row(then="assert set(manifest['files']) == {'train.py', 'config.yaml'}"),
    ("assets-en", 1): Row(
        then="import hashlib, pathlib\n"
        "assert blob_id == hashlib.sha256(b'weights').hexdigest()\n"
        "assert pathlib.Path(blob_path).read_bytes() == b'weights'"
    ),
    ("assets-en", 2): Row(
        then="import pathlib\n"
        "assert 'train' in pathlib.Path('restored_workspace/train.py').read_text()\n"
        "assert pathlib.Path('restored_workspace/configs/base.yaml').is_file()"
    ),
    ("assets-en", 3): Row(
        then="assert 'train.py' in manifest['files'] and 'left_out.csv' not in manifest['files']"
    ),
    ("assets-en", 4): Row(
        given="def train_one_epoch(model): return 0.5",
        then="assert 'config.yaml' in pre_manifest['files']\n"
        "assert 'model.pth' in post_manifest['files']",
    ),
    ("assets-en", 5): Row(),
    ("assets-en", 6): Row(given=RUN + "def train_model(): pass\ndef evaluate_model(): pass"),
    ("assets-en", 11): Row(then="assert hash1 != hash2"),
    ("assets-en", 12): Row(then="assert os.path.exists(manifest_path)"),
    ("assets-en", 13): Row(
        given="import pathlib, castfs.compat.runicorn as rn\n"
        "made = rn.init\n"
        "def init(**words):\n"
        "    run = made(**words)\n"
        "    pathlib.Path('.runicorn/runs', run.id).mkdir(parents=True)  # the run of before\n"
        "    return run\n"
        "rn.init = init",
    ),
    ("assets-en", 14): Row(then="assert 'train.py' in manifest['files']"),
    ("assets-zh", 0): Row(
        then="import zipfile\nassert 'train.py' in zipfile.ZipFile(run.run_dir / "
        "'code_snapshot.zip').namelist()\nassert result['file_count'] > 3"
    ),
    ("assets-zh", 1): Row(
        then="assert blob_path.read_bytes() == b'weights'\n"
        "assert stats == {'blob_count': 4, 'total_size_bytes': stats['total_size_bytes']}"
    ),
    ("assets-zh", 2): Row(),
    ("assets-zh", 3): Row(
        then="import hashlib; assert fingerprint == hashlib.sha256(b'weights').hexdigest()"
    ),
    ("assets-zh", 4): Row(),
    ("assets-zh", 5): Row(
        then="import zipfile\n"
        "assert len(manifest['files']) == 2 == result['exported_count']\n"
        "assert sorted(zipfile.ZipFile('export.zip').namelist())[-1] == 'train.py'\n"
        "assert Path('restored_code/train.py').read_bytes() == blob_path.read_bytes()"
    ),
    ("assets-zh", 11): Row(
        then="assert result['blobs_deleted'] == 2 and result['bytes_freed'] > 0, result\n"
        "assert result['run_dir_deleted'] is True and result['errors'] == []"
    ),
    ("assets-zh", 12): Row(),
    ("assets-zh", 13): Row(
        then="assert result['success'] and result['orphaned_blobs'] == 0\n"
        "assert result['blobs_scanned'] == 3 and 'recent_blobs' not in result"
    ),
    ("assets-zh", 14): Row(),
    ("assets-zh", 15): Row(
        given=RUN + "from pathlib import Path",
        then="import zipfile\n"
        "zipfile.ZipFile(run.run_dir / 'code_snapshot.zip').getinfo('train.py')",
    ),
    ("assets-zh", 16): Row(
        given=RUN + "from pathlib import Path\n"
        "code = rn.Artifact('code', type='code')\n"
        "code.add_file('train.py')\nrun.log_artifact(code)",
        then="assert result['restored_count'] == 2",
    ),
    ("assets-zh", 17): Row(
        given="import castfs.compat.runicorn as rn\nfrom pathlib import Path\n"
        "from castfs.compat.runicorn import snapshot_workspace",
        then="assert (run.run_dir / 'code.zip').is_file()",
    ),
    ("assets-zh", 18): Row(then="assert stats['blob_count'] == 3"),
    ("assets-zh", 19): Row(
        given="from pathlib import Path\nstorage_root = Path.home() / '.runicorn'\n"
        "old_run_ids = ['20250115_103015_abc123']",
        then="assert not list(storage_root.glob('runs/*/*/20250115*'))",
    ),
    ("assets-zh", 20): Row(
        given="from pathlib import Path\nfrom castfs.compat.runicorn import snapshot_workspace\n"
        "out_path = Path('out.zip')",
        then="import zipfile; names = zipfile.ZipFile('out.zip').namelist()\n"
        "assert 'train.py' in names and 'data/a.bin' not in names and 'data/a.txt' in names",
    ),
    # Its one argument is `...`, literally: a manifest one of whose blobs is gone.
    ("assets-zh", 21): Row(
        given="from pathlib import Path\nfrom castfs.compat.runicorn.assets import restore\n"
        "next(Path('archive/blobs').glob('*/*')).unlink()\n"
        "def restore_from_manifest(_):\n"
        "    return restore.restore_from_manifest(\n"
        "        Path('archive/manifests/run_001.json'), Path('archive/blobs'), Path('restored'))",
        then="assert len(result['missing_blobs']) == 1",
    ),
    ("assets-zh", 22): Row(
        given="from pathlib import Path\nstorage_root = Path.home() / '.runicorn'\n"
        "from castfs.compat.runicorn.assets.cleanup import *\n"
        "from castfs.compat.runicorn.assets.cleanup import delete_run_completely\n"
        "runs_to_delete = ['20250115_103015_abc123']",
        then="assert not list(storage_root.glob('runs/*/*/20250115*'))",
    ),
    ("artifacts", 0): Row(then="assert version == 1"),
    ("artifacts", 1): Row(
        given="import castfs.compat.runicorn as rn; run = rn.init(project='before')\n"
        "model = rn.Artifact('resnet50-model', type='model'); model.add_file('model.pth')\n"
        "run.log_artifact(model); rn.finish()",
        then="assert (model_path / 'model.pth').read_bytes() == b'weights'",
    ),
    # As written it adds `model.pth` twice, and `checkpoints/` twice.
    ("artifacts", 2): Row(given=RUN, then="assert run.log_artifact(artifact) == 1"),
    ("artifacts", 3): Row(
        given=RUN,
        then="got = run.use_artifact('my-model:v1').get_metadata()\n"
        "assert got.metadata['optimizer'] == 'Adam' and 'imagenet' in got.tags",
    ),
    ("artifacts", 4): Row(
        given=RUN,
        then="got = run.use_artifact('imagenet-full:v1').get_metadata()\n"
        "assert got.metadata['num_classes'] == 1000",
    ),
    ("artifacts", 5): Row(
        given=RUN + "names = ['model.pth', 'train.py', 'config.yaml']\n"
        "for count in (1, 2, 3):\n"
        "    artifact = rn.Artifact('my-model', type='model')\n"
        "    for name in names[:count]: artifact.add_file(name)\n"
        "    run.log_artifact(artifact)\n"
        "castfs_alias('my-model:v2', 'production')",
        then="assert artifact.get_manifest().total_files == 2",
    ),
    ("artifacts", 6): Row(
        given=USED,
        then="assert model_file.read_bytes() == b'weights'\n"
        "import pathlib; assert pathlib.Path('models/model.pth').is_file()",
    ),
    ("artifacts", 7): Row(given=USED, then="assert manifest.files[0].path == 'model.pth'"),
    ("artifacts", 8): Row(
        given="import castfs.compat.runicorn as rn",
        then="assert run1.id != run2.id and dataset.get_manifest().total_files == 2",
    ),
    ("artifacts", 9): Row(given="import castfs.compat.runicorn as rn"),
    ("artifacts", 10): Row(
        given=RUN + "model = rn.Artifact('m', type='model'); dataset = rn.Artifact('d', "
        "type='dataset')",
    ),
    ("artifacts", 11): Row(given="import castfs.compat.runicorn as rn"),
    ("artifacts", 12): Row(given=RUN),
    ("artifacts", 13): Row(given=ARTIFACT, then="assert run.log_artifact(artifact) == 1"),
    ("artifacts", 14): Row(
        given="import castfs.compat.runicorn as rn",
        then="import pathlib\nassert (pathlib.Path(data_path) / 'rows.csv').is_file()",
    ),
}

#: Examples that are signatures, with the room of the function in `castfs.compat.runicorn`.
SIGNATURES: dict[Key, str] = {
    ("assets-en", 7): "",
    ("assets-en", 8): "",
    ("assets-en", 9): "",
    ("assets-en", 10): "",
    ("assets-zh", 6): "",
    ("assets-zh", 7): "assets.blob_store",
    ("assets-zh", 8): "assets.blob_store",
    ("assets-zh", 9): "assets.restore",
    ("assets-zh", 10): "assets.restore",
}


def read_blocks() -> dict[Key, str]:
    found = {}
    for path in sorted(DOCUMENTS.glob("runicorn-*.md")):
        name = path.stem.removeprefix("runicorn-")
        for number, match in enumerate(BLOCK.finditer(path.read_text())):
            found[name, number] = textwrap.dedent(match[2])
    return found


BLOCKS = read_blocks()


def change_import(block: str) -> str:
    block = re.sub(
        r"^import runicorn as rn$", "import castfs.compat.runicorn as rn", block, flags=re.M
    )
    return re.sub(r"^from runicorn\b", "from castfs.compat.runicorn", block, flags=re.M)


def test_every_example_has_a_row() -> None:
    assert PROGRAMS.keys() | SIGNATURES.keys() == BLOCKS.keys()
    assert not PROGRAMS.keys() & SIGNATURES.keys()
    assert len(BLOCKS) == 53
    fences = sum(path.read_text().count("```python") for path in DOCUMENTS.glob("runicorn-*.md"))
    assert len(BLOCKS) == fences


def test_guides_are_unchanged() -> None:
    """Formatters like to tidy the examples in them."""
    found = {path.name: older.sha256(path.read_bytes()) for path in DOCUMENTS.glob("runicorn-*")}
    assert found == {
        "runicorn-artifacts.md": "05259cdb87a68db7605114061095b8464ff99d629b24adec936cfa23e62a04d0",
        "runicorn-assets-en.md": "851424e6a0b9c0f86d46d34abfc0716afe414304641c0a44d822ea1f92802e12",
        "runicorn-assets-zh.md": "e1ac7423594ec5af3e7299a5cc68f75c6140c80a1c85da60e3d168b69f4f53c4",
    }


def test_only_import_lines_are_changed() -> None:
    for block in BLOCKS.values():
        before, after = block.splitlines(), change_import(block).splitlines()
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert all("import" in a and b.replace("castfs.compat.", "") == a for a, b in changed)
        assert not re.search(r"^(import|from) runicorn", change_import(block), re.M)


def prepare(where: Path) -> None:
    """What the guides speak of: a project, an archive beside it, a storage root in the home."""
    older.write_files(
        where,
        {
            "train.py": b"import this\n",
            "config.yaml": b"lr: 0.1\n",
            "model.pth": b"weights",
            "checkpoint.pth": b"weights of before",
            "checkpoints/one.pth": b"1",
            "checkpoints/one.log": b"log",
            "data/a.bin": b"a",
            "data/a.txt": b"a",
            "processed_data/rows.csv": b"1,2\n",
            "large_folder/b.txt": b"b",
            "file1.txt": b"1",
            "file2.txt": b"2",
            "left_out.csv": b"",
            ".rnignore": b"left_out.*\n.runicorn/\n",
        },
    )
    older.write_manifest(
        where / "archive/manifests/run_001.json", older.FILES, where / "archive/blobs"
    )
    run_dir = older.write_run(where / ".runicorn", RUN_ID, code=older.make_zip(older.FILES))
    run_dir.rename(where / ".runicorn/runs" / RUN_ID)
    home = Path.home() / ".runicorn"
    older.write_run(
        home,
        "20250115_103015_abc123",
        code=older.make_zip(older.FILES),
        datasets={"d": {"shared": b"shared", "own": b"its own"}},
    )
    older.write_run(home, "20250116_103015_abc124", pretrained={"p": b"shared"})
    # Three blobs are in the home after that: two of the first run, one of both.
    assert len(older.blobs_in(home / "archive/blobs")) == 3


def write_stand_ins(where: Path) -> None:
    """torch as far as one example uses it, yaml where it is not installed."""
    where.mkdir()
    (where / "torch.py").write_text(
        "class nn:\n"
        "    class Sequential:\n"
        "        def __init__(self, *layers): pass\n"
        "        def state_dict(self): return {}\n"
        "    def Linear(*sizes): pass\n"
        "    def ReLU(): pass\n"
        "def save(state, name):\n"
        "    with open(name, 'w') as file: file.write('trained')\n"
    )
    if find_spec("yaml") is None:
        (where / "yaml.py").write_text("import json\ndump = json.dump\n")


ALIAS = """
def castfs_alias(version, alias):  # as `castfs alias my-model:v2 production` does
    import subprocess, sys
    subprocess.run([sys.executable, "-m", "castfs", "alias", version, alias], check=True)
"""


@pytest.mark.parametrize("key", PROGRAMS, ids=lambda key: f"{key[0]}-{key[1]}")
def test_example(key: Key, tmp_path: Path) -> None:
    where = tmp_path / "project"
    prepare(where)
    write_stand_ins(tmp_path / "stand-ins")
    row = PROGRAMS[key]
    program = "\n".join([ALIAS, row.given, change_import(BLOCKS[key]), row.then, "print('DONE')"])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=where,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "stand-ins"), *sys.path])},
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = result.stdout.decode() + result.stderr.decode()
    assert result.returncode == 0, said
    assert result.stdout.endswith(b"DONE\n"), said


def parse_signature(block: str) -> tuple[str, inspect.Signature]:
    """Name and signature from `def f(…) -> T` or `x = f(…: …, ) -> T`."""
    match = re.search(r"^(?:def|\w+ =) (\w+)(\(.*\) -> .*)\Z", block.strip(), re.M | re.S)
    assert match is not None
    namespace: dict[str, Any] = {}
    source = f"from __future__ import annotations\ndef {match[1]}{match[2]}: ..."
    exec(compile(ast.parse(source), "a guide", "exec"), namespace)
    return match[1], inspect.signature(namespace[match[1]])


def plain(annotation: object) -> str:
    text = re.sub(r"\bOptional\[(.*)\]$", r"\1", str(annotation))
    return text.replace("Dict", "dict").replace("List", "list").removesuffix(" | None")


def is_as_exact(found: object, documented: object) -> bool:
    """`dict[str, Any]` where `dict` is documented."""
    return plain(found) == plain(documented) or plain(found).startswith(f"{plain(documented)}[")


def describe(signature: inspect.Signature) -> list[tuple[object, ...]]:
    return [(p.name, p.kind, p.default, plain(p.annotation)) for p in signature.parameters.values()]


@pytest.mark.parametrize("key", SIGNATURES, ids=lambda key: f"{key[0]}-{key[1]}")
def test_signature(key: Key) -> None:
    """One of the function's spellings has these parameters, names, kinds, defaults and types; it
    may have more, by keyword alone."""
    name, documented = parse_signature(BLOCKS[key])
    room: Any = rn
    for part in filter(None, SIGNATURES[key].split(".")):
        room = getattr(room, part)
    function = getattr(room, name)
    spellings = [*typing.get_overloads(function), function]
    wanted = describe(documented)
    for spelling in map(inspect.signature, spellings):
        found = describe(spelling)
        extra = [word for word in found if word not in wanted]
        if (
            [word for word in found if word in wanted] == wanted
            and is_as_exact(spelling.return_annotation, documented.return_annotation)
            and all(word[1] is inspect.Parameter.KEYWORD_ONLY for word in extra)
            and all(word[2] is not inspect.Parameter.empty for word in extra)
        ):
            return
    pytest.fail(f"no spelling of {name} is {documented}: {spellings}")


def documented_keys(key: Key) -> set[str]:
    return set(ast.literal_eval(BLOCKS[key].strip()))


def test_result_of_a_snapshot(tmp_path: Path) -> None:
    prepare(tmp_path / "project")
    result = rn.snapshot_workspace(tmp_path / "project", tmp_path / "out.zip")
    assert result.keys() == documented_keys(("assets-zh", 2))
    assert result["format"] == ast.literal_eval(BLOCKS["assets-zh", 2].strip())["format"]
    json.dumps(result)


@pytest.mark.parametrize("dry_run", [True, False])
def test_result_of_deleting(tmp_path: Path, dry_run: bool) -> None:
    older.write_run(tmp_path, RUN_ID, code=b"zip")
    result = rn.delete_run_completely(RUN_ID, tmp_path, dry_run=dry_run)
    documented = ast.literal_eval(BLOCKS["assets-zh", 12].strip())
    assert result.keys() == documented.keys()
    assert {name: type(value) for name, value in result.items()} == {
        name: type(value) for name, value in documented.items()
    }
    json.dumps(result)


def test_documented_defaults_are_the_settings_store(tmp_path: Path) -> None:
    """The isolation of the tests holds for the examples' processes too."""
    assert settings.default_store().is_relative_to(tmp_path)
