"""What a bundle says, held to what castfs itself would have written. ValueError for anything else:
whatever comes in would be believed later, and shown, and exported again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Self

from castfs.catalog import MadeAgain, NameFile, Note, RunFile, Use
from castfs.catalog.files import RUN_FILE, Event
from castfs.catalog.words import check_alias, check_name, check_text, show_word
from castfs.errors import UsageError
from castfs.manifest import Tree, content_id
from castfs.paths import RelPath, unescape
from castfs.repository.publishing import check_metadata, check_type
from castfs.store import Record
from castfs.store.records import VERSION_MAX

#: Bytes of a record, a run, a name; of a tree.
WORDS_MAX = 64 << 20
MANIFEST_MAX = 4 << 30
#: Nothing counts to here, one by one, and a name that is believed to be here has numbers left.
COUNTED_MAX = 10**12
#: Events that say of a version that there is one or none, and no alias.
LIFE = frozenset(("version", "remove", "undelete", "delete"))

#: RFC 3339 in UTC, as `format_time` writes it; a coarser one says the same.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)",
    re.ASCII,
)
_RECORD_ID = re.compile("[0-9a-f]{24}")
_STORE_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class TreeFacts:
    """What records say of a tree. Trees themselves are large, and a bundle has many."""

    file_count: int
    total_size_bytes: int
    content: str

    @classmethod
    def of(cls, tree: Tree) -> Self:
        return cls(len(tree.files), tree.total_size_bytes, content_id(tree))


def check_record_alone(record: Record) -> None:
    """All that can be seen without its tree."""
    what = f"snapshot {record.id}"
    if record.name is None or record.version is None:
        raise ValueError(f"{what} is no version of a name")
    _check_counted(record.version, what)
    _check_name(record.name, what)
    _check_type(record.type, what)
    _check_time(record.created_at, what)
    said = (record.host, record.user or "", record.message or "")
    _check_text(what, *said, *record.tags, *record.metadata)
    _check_metadata(record.metadata, what)
    _check_path(record.source, what)
    for skipped in record.skipped:
        _check_path(skipped.path, what)
        _check_text(what, skipped.reason)
    for reference in record.references:
        _check_path(reference.path, what)
        _check_text(what, reference.uri, reference.checksum or "", *reference.metadata)
        _check_metadata(reference.metadata, what)
        if not reference.uri:
            raise ValueError(f"{what} has a reference to nothing")
    if record.run is not None:
        _check_run_id(record.run, what)


def check_record(record: Record, facts: TreeFacts, open_tree: Callable[[], Tree]) -> None:
    """What it says of its tree, which is opened only if it has references."""
    paths = {RelPath(unescape(reference.path)) for reference in record.references}
    files = open_tree().files if paths else {}
    if not paths <= files.keys() or len(paths) != len(record.references):
        raise ValueError(f"snapshot {record.id} has a reference without its file")
    size = facts.total_size_bytes - sum(files[path].size_bytes for path in paths)
    said = (record.file_count, record.total_size_bytes, record.content)
    if said != (facts.file_count - len(paths), size, facts.content):
        raise ValueError(f"snapshot {record.id} says something else than its tree")


def check_name_file(name: NameFile) -> None:
    what = f"the name {show_word(name.name)}"
    _check_name(name.name, what)
    _check_type(name.type, what)
    for alias in name.aliases:
        _check_alias(alias, what)
    for event in name.history:
        _check_event(event, what)


def _check_event(event: Event, what: str) -> None:
    _check_time(event.at, what)
    _check_text(what, event.by, event.message or "")
    if event.run is not None:
        _check_run_id(event.run, what)
    if event.store is not None and not _STORE_ID.fullmatch(event.store):
        raise ValueError(f"{what} has a history of no store")
    for version in (event.version, event.before):
        if version is not None:
            _check_counted(version, what)
    if event.kind in ("alias", "unalias"):
        _check_alias(event.alias or "", what)
    elif event.alias is not None or event.before is not None:
        raise ValueError(f"{what} has a history that cannot be")
    if event.kind != "version" and (event.run is not None or event.message is not None):
        raise ValueError(f"{what} has a history that cannot be")


def check_note(note: Note) -> None:
    what = f"the note {show_word(note.id)}"
    if not _RECORD_ID.fullmatch(note.id):
        raise ValueError(f"{what} is of no snapshot")
    _check_type(note.type, what)
    _check_text(what, *note.tags, *note.metadata)
    _check_metadata(note.metadata, what)


def check_run(run: RunFile) -> None:
    what = f"run {show_word(run.id)}"
    _check_run_id(run.id, what)
    _check_text(what, run.project or "", run.name or "", run.host, *run.metadata)
    _check_metadata(run.metadata, what)
    _check_path(run.directory, what)
    _check_time(run.created_at, what)
    if run.finished_at is not None:
        _check_time(run.finished_at, what)
        if run.status == "running":
            raise ValueError(f"{what} is running, and has an end")
    for entries, how in ((run.uses, "was given"), (run.made_again, "made again")):
        ids = [entry.id for entry in entries]
        if len(set(ids)) < len(ids):
            raise ValueError(f"{what} {how} one snapshot twice")
        for entry in entries:
            _check_entry(entry, f"{what} {how}")
    for again in run.made_again:
        _check_text(what, again.message or "", *again.metadata)
        _check_metadata(again.metadata, what)


def _check_entry(entry: Use | MadeAgain, what: str) -> None:
    if not _RECORD_ID.fullmatch(entry.id):
        raise ValueError(f"{what} {show_word(entry.id)}, which is no snapshot")
    _check_time(entry.at, what)
    if entry.name is not None:
        _check_name(entry.name, what)
    if entry.version is not None and not 1 <= entry.version <= VERSION_MAX:
        raise ValueError(f"{what} version {entry.version} of something")


def believed_last(name: NameFile, records: Iterable[Record]) -> int:
    """The highest number of a name that something in the bundle had: `last_version` alone could be
    any, and use up all that there are."""
    versions = [record.version or 0 for record in records if record.name == name.name]
    told = [event.version for event in name.history if event.kind in LIFE]
    return max((*versions, *told), default=0)


def check_together(
    said_names: Sequence[str],
    names: Sequence[NameFile],
    runs: Sequence[RunFile],
    notes: Sequence[Note],
    records: Sequence[Record],
) -> None:
    """What belongs together, each thing once."""
    for ids, what in (
        ([name.name for name in names], "name"),
        ([run.id for run in runs], "run"),
        ([note.id for note in notes], "note"),
        ([record.id for record in records], "snapshot"),
        ([(record.name, record.version) for record in records], "version"),
    ):
        if len(set(ids)) < len(ids):
            raise ValueError(f"it has one {what} twice")
    of_name: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        of_name[record.name or ""].append(record)
    if of_name.keys() != set(said_names) or not {name.name for name in names} <= of_name.keys():
        raise ValueError("its names are not those of its versions")
    if not {note.id for note in notes} <= {record.id for record in records}:
        raise ValueError("it has a note of another snapshot")
    for name in names:
        last = believed_last(name, of_name[name.name])
        if any(version > last for version in name.aliases.values()):
            raise ValueError(f"{show_word(name.name)} has an alias of what there never was")
        for record in of_name[name.name]:
            if None not in (record.type, name.type) and record.type != name.type:
                raise ValueError(f"snapshot {record.id} is of another type than its name")
    _check_lineage(runs, records)


def _check_lineage(runs: Sequence[RunFile], records: Sequence[Record]) -> None:
    """Each run belongs to something, and nothing comes from itself. What a run made and was given
    it has only kept."""
    known = {record.id for record in records}
    made_by: defaultdict[str | None, set[str]] = defaultdict(set)
    for record in records:
        made_by[record.run].add(record.id)
    leads_to: defaultdict[str, set[str]] = defaultdict(set)
    for run in runs:
        used = {use.id for use in run.uses}
        made = made_by[run.id] | {again.id for again in run.made_again}
        if not known & (used | made):
            raise ValueError(f"run {run.id} has nothing to do with it")
        leads_to[f"run {run.id}"] |= used
        for record_id in made - used:
            leads_to[record_id].add(f"run {run.id}")
    try:
        TopologicalSorter(leads_to).prepare()
    except CycleError:
        raise ValueError("something in it came of itself") from None


def _check_counted(version: int, what: str) -> None:
    if not 1 <= version <= COUNTED_MAX:
        raise ValueError(f"{what} has had no version {version}")


def _check_metadata(metadata: Mapping[str, object], what: str) -> None:
    if _refusal(check_metadata, metadata):
        raise ValueError(f"{what} has metadata that castfs does not take")


def _check_name(name: str, what: str) -> None:
    if _refusal(check_name, name) or check_name(name) != name:
        raise ValueError(f"{what} is called {show_word(name)}, which is no name")


def _check_alias(alias: str, what: str) -> None:
    if _refusal(check_alias, alias) or check_alias(alias) != alias:
        raise ValueError(f"{what} has an alias {show_word(alias)}, which is none")


def _check_type(word: str | None, what: str) -> None:
    if word is not None and _refusal(check_type, word):
        raise ValueError(f"{what} has the type {show_word(word)}, which is none")


def _check_text(what: str, *words: str) -> None:
    if _refusal(check_text, *words):
        raise ValueError(f"{what} has text that is none")


def _refusal(check: object, *words: object) -> bool:
    assert callable(check)
    try:
        check(*words)
    except UsageError:
        return True
    return False


def _check_time(text: str, what: str) -> None:
    if not _TIME.fullmatch(text):
        raise ValueError(f"{what} has a time {show_word(text)}, which is none")
    datetime.fromisoformat(text)


def _check_path(text: str, what: str) -> None:
    try:
        unescape(text)
    except ValueError:
        raise ValueError(f"{what} has a path {show_word(text)}, which is none") from None


def _check_run_id(run_id: str, what: str) -> None:
    if not RUN_FILE.fullmatch(f"{run_id}.json"):
        raise ValueError(f"{what} names the run {show_word(run_id)}, which is none")
