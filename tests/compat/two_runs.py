"""An archive with two runs that share some of what they have."""

from __future__ import annotations

from pathlib import Path

from tests.compat import older

ONE, TWO = "20250115_103015_abc123", "20250116_103015_abc124"
#: Two datasets that differ and share a file.
FIRST = {"shared": b"shared content", "first": b"of the first alone"}
SECOND = {"shared": b"shared content", "second": b"of the second"}


def write_two_runs(storage: Path) -> tuple[Path, Path]:
    """Two runs: a code zip and a dataset each, and a model that both have."""
    model = {"model": b"the model of both"}
    return (
        older.write_run(storage, ONE, code=b"zip one", datasets={"d": FIRST}, pretrained=model),
        older.write_run(storage, TWO, code=b"zip two", datasets={"d": SECOND}, pretrained=model),
    )


def state(root: Path) -> list[tuple[str, int, int, int]]:
    stats = [(str(path), path.lstat()) for path in sorted(root.rglob("*"))]
    return [(name, st.st_mtime_ns, st.st_mode, st.st_ino) for name, st in stats]


def all_but_locks(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in older.read_files(root).items() if ".castfs-" not in name}


def contents(blobs: Path) -> set[bytes]:
    return set(older.blobs_in(blobs).values())


def manifest_of(storage: Path, files: dict[str, bytes]) -> Path:
    digest = older.fingerprint(files)
    return storage / "archive/manifests/datasets" / digest[:2] / f"{digest}.json"
