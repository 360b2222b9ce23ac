"""Is a store whole? Looked at from outside: sha256sum and json, then castfs's own strict reader."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from castfs.manifest import decode_manifest


def check_store(store: Path) -> list[str]:
    """Every record leads to a manifest that decodes, every manifest to blobs that are there, and
    no blob has other content than its name says. Returns the ids of the manifests."""
    contents = hash_blobs(store)
    for name, actual in contents.items():
        assert name == actual, f"blob {name} holds {actual}"
    sizes = {path.name: path.stat().st_size for path in (store / "blobs").glob("??/*")}
    ids = []
    for path in sorted((store / "manifests").glob("??/*.json")):
        raw = path.read_bytes()
        manifest = decode_manifest(raw)
        assert f"{manifest.id}.json" == path.name
        ids.append(str(manifest.id))
        for where, file in json.loads(raw)["files"].items():
            assert sizes.get(file["sha256"]) == file["size_bytes"], f"{where} of {path}"
    for record in read_records(store):
        assert record["manifest"] in ids, f"record {record['id']} leads to no manifest"
    return ids


def hash_blobs(store: Path) -> dict[str, str]:
    """What sha256sum says of every file with the name of a blob, under its final name."""
    found = subprocess.run(
        ["find", ".", "-type", "f", "-path", "./??/*", "-exec", "sha256sum", "{}", "+"],
        cwd=store / "blobs",
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    lines = re.findall(r"^([0-9a-f]{64})  \./../(.*)$", found, re.MULTILINE)
    return {name: digest for digest, name in lines}


def read_records(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((store / "snapshots").iterdir())]


def assert_idle(store: Path) -> None:
    """No lease, nothing staged, no temporary file anywhere."""
    left = [*(store / "leases").iterdir(), *(store / "staging").iterdir()]
    left += store.rglob("tmp-*")
    left += [path for path in (store / "blobs").iterdir() if len(path.name) != 2]
    assert left == []
