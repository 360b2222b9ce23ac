"""Bundles as somebody else may have made them."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(bundle: Path) -> Members:
    found = []
    with tarfile.open(bundle) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found.append((member, file.read()))
    return found


def write_members(bundle: Path, members: Members) -> None:
    with tarfile.open(bundle, "w") as tar:
        for member, data in members:
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def change(kind: str, **values: object) -> Callable[[Members], Members]:
    def act(members: Members) -> Members:
        return [
            (m, json.dumps(json.loads(data) | values).encode() if m.name.startswith(kind) else data)
            for m, data in members
        ]

    return act


def without(kind: str) -> Callable[[Members], Members]:
    return lambda members: [each for each in members if not each[0].name.startswith(kind)]


def renamed(name: str, to: str) -> Callable[[Members], Members]:
    def act(members: Members) -> Members:
        for member, _ in members:
            if member.name.startswith(name):
                member.name = to
        return members

    return act


def flipped(kind: str) -> Callable[[Members], Members]:
    return lambda members: [
        (m, bytes([data[0] ^ 1]) + data[1:] if m.name.startswith(kind) else data)
        for m, data in members
    ]


def twice(members: Members) -> Members:
    return [*members, members[-1]]


def another_id(members: Members) -> Members:
    """Two records of one version."""
    _, data = members[-1]
    copy = tarfile.TarInfo("snapshots/" + "f" * 24)
    return [*members, (copy, json.dumps(json.loads(data) | {"id": "f" * 24}).encode())]


def other_size(members: Members) -> Members:
    """Of a content, in the tree."""
    return [
        (m, data.replace(b'"size_bytes":7', b'"size_bytes":9') if "manifests" in m.name else data)
        for m, data in members
    ]


def uses(values: dict[str, object]) -> Callable[[Members], Members]:
    """The first use of each run with other values."""

    def act(members: Members) -> Members:
        found = []
        for member, data in members:
            said = json.loads(data) if member.name.startswith("runs/") else {}
            if said.get("uses"):
                said["uses"][0] |= values
                data = json.dumps(said).encode()
            found.append((member, data))
        return found

    return act


def used_twice(members: Members) -> Members:
    run, data = next(each for each in members if b'"uses":[{' in each[1])
    said = json.loads(data)
    said["uses"] *= 2
    return [(m, json.dumps(said).encode() if m is run else d) for m, d in members]


def of_itself(members: Members) -> Members:
    """Two runs, each of which used what the other made."""
    records = [json.loads(data) for member, data in members if member.name.startswith("snapshots")]
    first, second = records[:2]
    for maker, used in ((first, second), (second, first)):
        given = [{"id": used["id"], "at": used["created_at"]}]
        members = change(f"runs/{maker['run']}", uses=given)(members)
    return members


def event(**values: object) -> Callable[[Members], Members]:
    def act(members: Members) -> Members:
        [data] = [data for member, data in members if member.name.startswith("names/")]
        return change("names", history=[json.loads(data)["history"][0] | values])(members)

    return act


def added(name: str, values: Mapping[str, object], members: Members) -> Members:
    """One more, and the description says so."""
    count = len(members)
    members = change("castfs-bundle", member_count=count)(members)
    return [*members[:-1], (tarfile.TarInfo(name), json.dumps(values).encode()), members[-1]]


def another_note(members: Members) -> Members:
    return added(f"notes/{'0' * 24}", {"id": "0" * 24, "tags": ["x"]}, members)


def another_run(members: Members) -> Members:
    run = {"id": "run-1", "created_at": "2026-01-01T00:00:00Z", "status": "finished"}
    return added("runs/run-1", run, members)


def linked(members: Members) -> Members:
    link = tarfile.TarInfo("blobs/" + "0" * 64)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [members[0], (link, b""), *members[1:]]


def nested(kind: str) -> Callable[[Members], Members]:
    """Metadata so deep that nothing can read it."""
    deep = b'"metadata":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"

    def act(members: Members) -> Members:
        return [
            (m, re.sub(rb'"metadata":\{[^}]*\}', lambda _: deep, data, count=1))
            if m.name.startswith(kind)
            else (m, data)
            for m, data in members
        ]

    return act
