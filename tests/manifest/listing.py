"""A tree as text, an entry a line: what a golden file is compared with, and people can read."""

from __future__ import annotations

from collections.abc import Iterator

from castfs.manifest import Directory, Entry, File, Manifest, Symlink


def describe(manifest: Manifest) -> str:
    lines = [
        f"id {manifest.id}",
        f"fingerprint {manifest.fingerprint}",
        f"created_at {manifest.created_at!r}",
        f"source_path {manifest.source_path!r}",
        describe_entry(b"", manifest.tree.root),
        *(describe_entry(path, entry) for path, entry in manifest.tree.iter_entries()),
    ]
    return "".join(f"{line}\n" for line in lines)


def describe_entry(path: bytes, entry: Entry) -> str:
    return " ".join([ascii(path), *_iter_words(entry)])


def _iter_words(entry: Entry) -> Iterator[str]:
    match entry:
        case File():
            yield f"file {entry.mode:04o} {entry.size_bytes} {entry.sha256[:12]}"
        case Directory():
            yield f"directory {entry.mode:04o}"
        case Symlink():
            yield f"symlink {entry.raw_target!a}"
    yield f"mtime {entry.mtime_ns}"
    if entry.uid is not None or entry.gid is not None:
        yield f"owner {entry.uid}:{entry.gid}"
    if not isinstance(entry, Directory) and entry.hardlink is not None:
        yield f"hardlink {entry.hardlink!a}"
    for name, value in entry.iter_xattrs():
        yield f"xattr {name!a}={value!a}"
