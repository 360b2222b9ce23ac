"""The catalog with 200,000 versions: listing, resolving, lineage, new versions, a rebuild.

In one process: a program that starts takes 0.1 s more. Everything is in the page cache; the median
of several rounds, in milliseconds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from measuring import machine, write_json

import castfs
from castfs.catalog import NameFile, RunFile, Use, reading, rebuild
from castfs.catalog.files import write_name, write_run
from castfs.repository.lineage import build_lineage
from castfs.store.records import Record, encode_record, format_time

#: Versions that stand in one chain of runs, each using the one before.
_CHAIN = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=200_000)
    parser.add_argument("--names", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="castfs-bench-", dir=options.work))
    print(machine())
    try:
        store = castfs.open(work / "store", create=True)
        (work / "tree").mkdir()
        (work / "tree" / "file").write_text("x")
        manifest = store.ingest(work / "tree").manifest_id
        fill(store, manifest, options)
        begun = time.perf_counter()
        rebuild(store.depot)
        rebuilt = time.perf_counter() - begun
        print(f"{options.versions:,} versions of {options.names:,} names; rebuild {rebuilt:.1f} s")
        results = {
            what: measure(store, question, options.rounds)
            for what, question in questions(store, options).items()
        }
        results["a new version"] = measure(store, new_version(store, work / "tree"), options.rounds)
    finally:
        shutil.rmtree(work)
    for what, milliseconds in results.items():
        print(f"{what:40} {milliseconds:8.1f} ms")
    write_json(options.json, rebuild_seconds=rebuilt, milliseconds=results)


def fill(store: castfs.Store, manifest: str, options: argparse.Namespace) -> None:
    """As files, which is what a catalog is made from."""
    per_name = options.versions // options.names
    previous = ""
    for number in range(options.versions):
        name, version = f"team/name{number % options.names}", number // options.names + 1
        record_id = f"{0x19000000000 + number:012x}{number:012x}"
        in_chain = number < _CHAIN
        record = Record(
            id=record_id,
            manifest=manifest,
            created_at=format_time(1_700_000_000 + number),
            host="bench",
            source="bench",
            file_count=1,
            total_size_bytes=1,
            name=name,
            version=version,
            type="model",
            tags=("nightly",) if number % 100 == 0 else (),
            run=f"run{number}" if in_chain else None,
        )
        store.depot.record_path(record_id).write_bytes(encode_record(record))
        if in_chain:
            uses = (Use(id=previous, at=record.created_at),) if previous else ()
            run = RunFile(id=f"run{number}", created_at=record.created_at, uses=uses)
            write_run(store.depot, run)
            previous = record_id
    for number in range(options.names):
        name_file = NameFile(
            name=f"team/name{number}",
            type="model",
            last_version=per_name,
            aliases={"production": per_name // 2},
        )
        write_name(store.depot, name_file)


def questions(store: castfs.Store, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    last = options.versions // options.names
    names = [f"team/name{number}" for number in range(options.names)]
    any_name = names[len(names) // 2]

    def lineage() -> object:
        with reading(store.depot) as catalog:
            return build_lineage(catalog, f"{names[_CHAIN - 1]}:v1")

    return {
        "list, the newest 50": lambda: list(islice(store.iter_snapshots(), 50)),
        "list of one name": lambda: list(store.iter_snapshots(name=any_name)),
        "list of a tag, 2,000 versions": lambda: list(store.iter_snapshots(tags=["nightly"])),
        "versions of one name": lambda: list(store.iter_versions(any_name)),
        "the 2,000 names": lambda: list(store.iter_artifacts()),
        "log of one name": lambda: list(store.log(any_name)),
        "search for two words": lambda: list(store.search("name77", "model")),
        "resolve NAME:v7": lambda: store.resolve(f"{any_name}:v{min(7, last)}"),
        "resolve NAME:latest": lambda: store.resolve(f"{any_name}:latest"),
        "resolve NAME:ALIAS": lambda: store.resolve(f"{any_name}:production"),
        "resolve an id": lambda: store.resolve(f"{0x19000000000:012x}{0:012x}"),
        f"lineage through {_CHAIN} runs": lineage,
    }


def new_version(store: castfs.Store, tree: Path) -> Callable[[], object]:
    numbers = iter(range(1 << 30))

    def ingest() -> object:
        (tree / "file").write_text(f"new {next(numbers)}")
        return store.ingest(tree, name="team/name0")

    return ingest


def measure(store: castfs.Store, question: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        question()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
