"""What a run takes in as its input, and what of its output is kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import reading
from castfs.errors import LimitError, SourceError, UsageError
from tests.runs.conftest import names_of


def test_inputs(run: Run, store: Store, data: Path) -> None:
    saved = run.log_dataset("digits", data, save=True, description="all of them")
    assert {file.path for file in saved.get_manifest().files} == {
        ".gitignore", "a.csv", "sub/b.log",
    }  # fmt: skip
    remote = run.log_dataset("imagenet", "s3://bucket/imagenet", context="val")
    [reference] = remote.get_references()
    assert (reference.uri, remote.get_metadata().metadata) == (
        "s3://bucket/imagenet", {"context": "val"},
    )  # fmt: skip
    local = run.log_dataset("by place", data)
    [reference] = local.get_references()
    assert (reference.uri, reference.size) == (data.as_uri(), 4 + 6 + 6)
    model = run.log_pretrained("bert", "bert-base-uncased")
    assert (model.type, model.metadata) == ("model", {"source_type": "remote"})
    config = run.log_config({"lr": 0.1}, {"note": "x"}, [data / "a.csv"])
    assert config.name == "vision/resnet/config"
    assert json.loads(config.get_file_path("config.json").read_bytes()) == {
        "args": {"lr": 0.1}, "extra": {"note": "x"},
    }  # fmt: skip
    with reading(store.depot) as catalog:
        known = catalog.run(run.id)
    assert known is not None
    assert [use.name for use in known.uses] == [
        "digits", "imagenet", "by place", "bert", "vision/resnet/config",
    ]  # fmt: skip


def test_inputs_that_are_too_large(run: Run, store: Store, data: Path) -> None:
    with pytest.raises(LimitError):
        run.log_dataset("digits", data, save=True, max_archive_files=2)
    with pytest.raises(LimitError):
        run.log_dataset("digits", data, save=True, max_archive_bytes=10)
    with pytest.raises(SourceError):
        run.log_dataset("digits", data / "nothing", save=True)
    assert names_of(store) == []
    run.log_dataset("digits", data, force_save=True, max_archive_bytes=10)
    assert names_of(store) == ["digits:v1"]


def test_directories_without_a_file(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "hollow" / "a" / "b").mkdir(parents=True)
    for name in ("nothing", "hollow"):
        run.log_dataset(name, tmp_path / name, save=True)
        run.log_artifact(Artifact(f"{name}-below").add_dir(tmp_path / name, "sub"))
        store.resolve(name).restore(tmp_path / f"back-{name}")
        store.resolve(f"{name}-below").restore(tmp_path / f"below-{name}")
        for back in (tmp_path / f"back-{name}", tmp_path / f"below-{name}" / "sub"):
            found = sorted(path.relative_to(back) for path in back.rglob("*"))
            assert found == sorted(
                path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")
            )
    with pytest.raises(UsageError, match="nothing in it"):
        run.log_artifact(Artifact("nothing-at-all"))


def test_configurations_that_cannot_be(run: Run) -> None:
    circular: dict[str, object] = {}
    circular["a"] = circular
    for args in ({1: 3, "1": 4}, {(1, 2): 3}, circular, 5, object()):
        with pytest.raises(UsageError):
            run.log_config(args)


def test_files_of_one_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("cA/c.yaml", "cB/c.yaml", "x/cA", "y/cB/c.yaml", "d.yaml"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text(place)
    given: list[str | Path] = ["cA/c.yaml", Path("cB/c.yaml"), "d.yaml", tmp_path / "x/../d.yaml"]
    config = run.log_config({"lr": 1}, config_files=given)
    found = {
        file.path: Path(config.get_file_path(file.path)) for file in config.get_manifest().files
    }
    del found["config.json"]
    assert {path: file.read_text() for path, file in found.items()} == {
        "files/cA/c.yaml": "cA/c.yaml", "files/cB/c.yaml": "cB/c.yaml", "files/d.yaml": "d.yaml",
    }  # fmt: skip
    # A file where another one's directory would be; one name three times.
    odd = run.log_config(config_files=["cA/c.yaml", "x/cA", "cB/c.yaml", "y/cB/c.yaml"])
    texts = {Path(odd.get_file_path(file.path)).read_text() for file in odd.get_manifest().files}
    assert texts > {"cA/c.yaml", "cB/c.yaml", "x/cA", "y/cB/c.yaml"}


@pytest.mark.parametrize(
    ("call", "warns"),
    [
        (lambda run: run.log_dataset("d", "missing"), True),
        (lambda run: run.log_dataset("d", "/no/such/place"), True),
        (lambda run: run.log_dataset("d", "s3://bucket/missing"), False),
        (lambda run: run.log_dataset("d", "there"), False),
        (lambda run: run.log_pretrained("m", "missing"), True),
        (lambda run: run.log_pretrained("m", "bert-base", source_type="hub"), False),
        (lambda run: run.log_pretrained("bert-base"), False),
    ],
)
def test_what_looks_local_and_is_not_there(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: Callable[[Run], Artifact],
    warns: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("x")
    with caplog.at_level(logging.WARNING, "castfs.runs"):
        [reference] = call(run).get_references()
    assert reference.uri
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns
    if warns:
        assert reference.uri in caplog.text


def test_outputs_become_versions(run: Run, store: Store, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "deep").mkdir(parents=True)
    (outputs / "deep" / "last.pt").write_bytes(b"1")
    (outputs / "notes.md").write_bytes(b"no")

    def scan() -> int:
        return len(run.scan_outputs_once(outputs, min_age_sec=0, root=tmp_path).taken)

    assert [scan(), scan(), scan()] == [0, 1, 0]
    (outputs / "deep" / "last.pt").write_bytes(b"22")
    assert [scan(), scan()] == [0, 1]
    name = "vision/resnet/outputs/outputs/deep/last.pt"
    assert names_of(store) == [f"{name}:v1", f"{name}:v2"]
    assert run.use_artifact(f"{name}:v1").get_file_path("last.pt").read_bytes() == b"1"


def test_no_two_outputs_share_a_name(run: Run, store: Store, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    odd = ["a b.pt", "a?b.pt", "a_b.pt", "a:b.pt", "x" * 120 + "1.pt", "y" + "x" * 119 + "1.pt"]
    odd += ["m.json", "m.json_", "m.json__", "m.json_/m.json", "m.jsonx"]
    # Two spellings of one letter, which are one name.
    odd += ["\u212b.pt", "\u00c5.pt", "A\u030a.pt", "-a.pt", "~a.pt", "a.pt"]
    for number, name in enumerate(odd):
        name = name.replace("m.json_/", "sub/m.json_/")
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        (outputs / name).write_text(str(number))
    for _ in range(2):
        run.scan_outputs_once(outputs, ["*.pt", "*.json*"], min_age_sec=0, root=outputs)
    names = [record.name for record in store.iter_snapshots(type="output")]
    assert len(set(names)) == len(names) == len(odd)


def test_watching_ends_with_the_run(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    with castfs.init("p", store=store) as run:
        run.watch_outputs("outputs", interval_sec=3600, root=tmp_path, min_age_sec=0)
        (tmp_path / "outputs" / "a.ckpt").write_bytes(b"x")
    assert names_of(store) == ["p/outputs/outputs/a.ckpt:v1"]
