"""The layout of Runicorn 0.5.3: named, numbered versions (see `castfs.older.artifacts`)."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castfs.errors import TargetError, UsageError
from castfs.older.destination import IMPORTED
from castfs.older.export_writing import ExportRun, ExportVersion, ExportWriter, Loss, write_json
from castfs.older.naming import TYPES
from castfs.older.run_sending import write_run_documents
from castfs.paths import display

#: What 0.5.3 refuses in a name.
_REFUSED = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


def write_artifacts(
    writer: ExportWriter, versions: list[ExportVersion], runs: list[ExportRun]
) -> list[Path]:
    names = _Names(writer)
    by_artifact: dict[tuple[str, str], list[ExportVersion]] = {}
    for version in versions:
        if version.name is None:
            raise UsageError("only named versions can become artifacts", hint="use assets")
        by_artifact.setdefault(names.find(version.name, version.type), []).append(version)
    top = writer.target / "artifacts"
    for type, name in by_artifact:
        if os.path.lexists(top / type / name):
            raise TargetError(
                f"{display(os.fsencode(top / type / name))} exists already",
                hint="export into another directory",
            )
    written: list[Path] = []
    links: list[_Link] = []
    for (type, name), group in by_artifact.items():
        infos = _write_artifact(writer, top, type, name, group)
        written += [top / type / name / f"v{number}" for number in sorted(infos)]
        links += [_Link(version, type, name, infos[version.version]) for version in group]
    for run in runs:
        _write_run(writer.target, run, links)
    return written


@dataclass(frozen=True)
class _Link:
    """A version that runs may name, as it is called there, and what the index says of it."""

    version: ExportVersion
    type: str
    name: str
    info: dict[str, Any]


class _Names:
    """Their names: no namespaces, and few characters."""

    def __init__(self, writer: ExportWriter) -> None:
        self._writer = writer
        self._found: dict[str, tuple[str, str]] = {}

    def find(self, name: str, type: str | None) -> tuple[str, str]:
        """(type, name) as directories."""
        if name in self._found:
            return self._found[name]
        kind = type if type in TYPES else "custom"
        wanted = safe = make_directory_name(name)
        count = 2
        while (kind, safe) in self._found.values():
            safe, count = f"{wanted}-{count}", count + 1
        if safe != name:
            self._writer.losses.append(Loss(name, b"", f"the name is {safe} there"))
        if kind != type and type is not None:
            self._writer.losses.append(Loss(name, b"", f"the type is {kind} there"))
        self._found[name] = kind, safe
        return kind, safe


def make_directory_name(name: str) -> str:
    text = _REFUSED.sub("-", name)
    text = "_" * len(text) if text.strip(".") == "" else text
    while len(text.encode()) > 255:
        text = text[:-1]
    return text


def _write_artifact(
    writer: ExportWriter, top: Path, type: str, name: str, group: list[ExportVersion]
) -> dict[int, dict[str, Any]]:
    """All versions of one artifact, under another name until they are whole. Returns their entries
    in the index."""
    final = top / type / name
    final.parent.mkdir(parents=True, exist_ok=True)
    temp = final.parent / f".castfs-{secrets.token_hex(8)}.tmp"
    temp.mkdir()
    try:
        infos: dict[int, dict[str, Any]] = {}
        aliases: dict[str, int] = {}
        for version in sorted(group, key=lambda each: each.version):
            if version.version in infos:
                raise UsageError(f"{name}:v{version.version} is there twice", hint="export one")
            directory = temp / f"v{version.version}"
            infos[version.version] = _write_version(writer, top, directory, type, name, version)
            aliases |= dict.fromkeys(version.aliases, version.version)
        kept = [each.version for each in group if not each.deleted]
        aliases["latest"] = max(kept or infos)
        write_json(temp / "versions.json", _make_index(type, name, infos, aliases))
        temp.rename(final)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise
    return infos


def _make_index(
    type: str, name: str, infos: dict[int, dict[str, Any]], aliases: dict[str, int]
) -> dict[str, Any]:
    """Their next number is one more than the count of versions, so a gap would make every later
    version fail: what is not there any more is listed as deleted."""
    times = [info["created_at"] for info in infos.values()]
    gone = {
        number: {
            "version": number,
            "created_at": times[0],
            "created_by_run": "",
            "size_bytes": 0,
            "num_files": 0,
            "status": "deleted",
            "aliases": [],
        }
        for number in range(1, max(infos))
        if number not in infos
    }
    return {
        "artifact_name": name,
        "artifact_type": type,
        "versions": [{**gone, **infos}[number] for number in sorted({*gone, *infos})],
        "aliases": aliases,
        "created_at": min(times),
        "updated_at": max(times),
    }


def _write_version(
    writer: ExportWriter, top: Path, directory: Path, type: str, name: str, version: ExportVersion
) -> dict[str, Any]:
    """Returns its entry in the index."""
    files: list[dict[str, Any]] = []
    (directory / "files").mkdir(parents=True)
    for path, text, file in writer.files_of(version):
        pooled = top / ".dedup" / file.sha256[:2] / file.sha256
        writer.write_blob(path, file, pooled)
        _link(pooled, directory / "files" / os.fsdecode(path))
        files.append(
            {
                "path": text,
                "size": file.size_bytes,
                "digest": f"sha256:{file.sha256}",
                "modified_at": file.mtime_ns / 10**9,
            }
        )
    references = [
        {
            "uri": reference.uri,
            "checksum": reference.checksum,
            "size": reference.size_bytes,
            "metadata": dict(reference.metadata),
        }
        for reference in version.references
    ]
    size = sum(entry["size"] for entry in files)
    total = size + sum(reference.size_bytes or 0 for reference in version.references)
    manifest_digest = write_json(
        directory / "manifest.json",
        {
            "files": files,
            "references": references,
            "total_size": total,
            "total_files": len(files),
            "total_references": len(references),
            "created_at": version.created_at,
        },
    )
    shared = {
        "version": version.version,
        "created_at": version.created_at,
        "created_by_run": version.run or "",
        "size_bytes": total,
        "num_files": len(files),
        "status": "ready",
        "aliases": list(version.aliases),
    }
    metadata = {key: value for key, value in version.metadata.items() if key != IMPORTED}
    write_json(
        directory / "metadata.json",
        {
            "name": name,
            "type": type,
            **shared,
            "updated_at": version.created_at,
            "created_by_user": None,
            "num_references": len(references),
            "metadata": metadata,
            "description": version.description or "",
            "tags": list(version.tags),
            "parent_artifacts": [],
            "manifest_digest": manifest_digest,
        },
    )
    if version.deleted:
        marker = {
            "deleted_at": version.created_at,
            "deleted_by": "user",
            "version": version.version,
            "artifact_name": name,
        }
        write_json(directory / ".deleted", marker)
    return shared


def _link(pooled: Path, place: Path) -> None:
    """As theirs: a hard link, or a copy where there are none."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(pooled, place)
    except OSError:
        shutil.copy2(pooled, place)


def _write_run(target: Path, run: ExportRun, links: list[_Link]) -> None:
    """What their lineage reads: who made what, and who used it."""
    project, name = (make_directory_name(word) or "default" for word in (run.project, run.name))
    directory = target / project / name / "runs" / make_directory_name(run.id)
    write_run_documents(directory, run, {"project": project, "name": name})
    wanted = set(run.uses)
    created = [link for link in links if link.version.run == run.id]
    used = [link for link in links if (link.version.name, link.version.version) in wanted]
    _write_links(directory / "artifacts_created.json", created, "created_at", run)
    _write_links(directory / "artifacts_used.json", used, "used_at", run)


def _write_links(place: Path, links: list[_Link], when: str, run: ExportRun) -> None:
    entries = [
        {
            "name": link.name,
            "type": link.type,
            "version": link.version.version,
            when: run.created_at,
            "size_bytes": link.info["size_bytes"],
            "num_files": link.info["num_files"],
        }
        for link in links
    ]
    if entries:
        write_json(place, {"artifacts": entries})
