"""Archives and runs in Runicorn's layout, made and looked at without castfs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = {"train.py": b"print('train')\n", "configs/base.yaml": b"lr: 0.1\n"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put_blob(blob_root: Path, data: bytes) -> Path:
    path = blob_path(blob_root, sha256(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def blob_path(blob_root: Path, digest: str) -> Path:
    return blob_root / digest[:2] / digest


def blobs_in(blob_root: Path) -> dict[str, bytes]:
    """digest → content, of everything that is named as a blob."""
    return {path.name: path.read_bytes() for path in blob_root.glob("[0-9a-f]" * 2 + "/*")}


def fingerprint(files: Mapping[str, bytes]) -> str:
    return sha256(b"".join(f"{n}\0{sha256(files[n])}\0".encode() for n in sorted(files)))


def write_manifest(path: Path, files: Mapping[str, bytes], blob_root: Path) -> Path:
    """The manifest of `files` as Runicorn writes it, and their blobs."""
    for data in files.values():
        put_blob(blob_root, data)
    entries = {n: {"sha256": sha256(d), "size_bytes": len(d)} for n, d in files.items()}
    document = {
        "created_at": 1700000000.25,
        "source_path": "/somewhere",
        "fingerprint": fingerprint(files),
        "total_size_bytes": sum(map(len, files.values())),
        "file_count": len(files),
        "files": entries,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2))
    return path


def make_zip(files: Mapping[str, bytes]) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10)), data)
    return output.getvalue()


def write_run(
    storage_root: Path,
    run_id: str,
    *,
    code: bytes | None = None,
    datasets: Mapping[str, Mapping[str, bytes]] | None = None,
    pretrained: Mapping[str, bytes] | None = None,
    under: str = "demo/x",
) -> Path:
    """A finished run and what it archived: a code zip, directories, single files. Its directory."""
    blob_root = storage_root / "archive" / "blobs"
    document: dict[str, Any] = {
        "code": {}, "config": {}, "datasets": [], "pretrained": [], "outputs": [],
    }  # fmt: skip
    run_dir = storage_root / "runs" / under / run_id
    run_dir.mkdir(parents=True)
    if code is not None:
        (run_dir / "code_snapshot.zip").write_bytes(code)
        document["code"]["snapshot"] = {
            "saved": True,
            "workspace_root": "/somewhere",
            "format": "zip",
            "created_at": 1700000000,
            "archive_path": str(put_blob(blob_root, code)),
            "fingerprint_kind": "sha256",
            "fingerprint": sha256(code),
        }
    for name, files in (datasets or {}).items():
        digest = fingerprint(files)
        path = storage_root / "archive/manifests/datasets" / digest[:2] / f"{digest}.json"
        if not path.exists():
            write_manifest(path, files, blob_root)
        document["datasets"].append(
            {
                "name": name,
                "context": "train",
                "uri": "/somewhere/data",
                "description": None,
                "saved": True,
                "fingerprint": digest,
                "fingerprint_kind": "sha256_manifest",
                "archive_path": str(path),
                "manifest_path": str(path),
                "file_count": len(files),
                "total_size_bytes": sum(map(len, files.values())),
            }
        )
    for name, data in (pretrained or {}).items():
        document["pretrained"].append(
            {
                "name": name,
                "path_or_uri": "/somewhere/weights",
                "saved": True,
                "fingerprint": sha256(data),
                "fingerprint_kind": "sha256",
                "archive_path": str(put_blob(blob_root, data)),
            }
        )
    (run_dir / "meta.json").write_text(json.dumps({"id": run_id}))
    (run_dir / "assets.json").write_text(json.dumps(document, indent=2))
    settle(storage_root)
    return run_dir


def settle(storage_root: Path) -> None:
    """Make every run younger than all blobs, as if nobody had stored anything since."""
    for path in storage_root.rglob("assets.json"):
        os.utime(path)


def wait_for_later(storage_root: Path) -> None:
    """Until what is written now is stamped later than all runs: stamps lag by a tick."""
    newest = max(path.stat().st_ctime_ns for path in storage_root.rglob("assets.json"))
    probe = storage_root / "probe"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        probe.touch()
        if probe.stat().st_mtime_ns > newest:
            break
    probe.unlink()


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def read_files(root: Path) -> dict[str, bytes]:
    """Path → content of all that is no directory; a symlink's target."""
    found = {}
    for parent, dirs, names in os.walk(root):
        for name in [
            *names,
            *(name for name in dirs if os.path.islink(os.path.join(parent, name))),
        ]:
            path = Path(parent, name)
            key = path.relative_to(root).as_posix()
            found[key] = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found
