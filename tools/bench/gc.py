"""Collecting, verifying, and both beside others. Everything is in the page cache unless said.

collect   a store with a million small blobs, a tenth of them garbage, and a thousand manifests of
          10,000 files; beside it, what walking the same blobs and removing as many files takes
verify    `castfs verify --data` beside `sha256sum` of the same blobs by two processes
beside    eight ingests beside a collector that never rests: how long they wait for the store
prune     `castfs rm` and `gc` beside `restic forget --prune`, of a tree whose tenth file changed
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Series, machine, print_table, run_timed, warm, write_json

import castfs
from castfs.manifest import Directory, File, Tree, encode_manifest, make_manifest
from castfs.paths import RelPath
from castfs.store.records import Record, encode_record, format_time, new_record_id

Options = argparse.Namespace
_CASTFS = [sys.executable, "-m", "castfs"]
_GC = [*_CASTFS, "gc", "--grace", "0s", "--trash-age", "0s", "--json"]
_PARTS = ("collect", "verify", "beside", "prune")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--tree", type=Path, default=Path(sys.base_prefix) / "lib")
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--manifests", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="castfs-bench-", dir=options.work))
    os.environ["CASTFS_STORE"] = str(work / "store")
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        os.environ[variable] = str(work / variable)
    print(machine())
    results: dict[str, object] = {}
    try:
        for part in options.parts or _PARTS:
            results[part] = globals()[f"bench_{part}"](options, work)
            shutil.rmtree(work / "store", ignore_errors=True)
    finally:
        shutil.rmtree(work)
    write_json(options.json, **results)


# Collect ---------------------------------------------------------------------------------------


def bench_collect(options: Options, work: Path) -> list[Series]:
    store = castfs.open(work / "store", create=True)
    kept = [_write_blob(store.path, b"kept %d" % n) for n in range(options.blobs * 9 // 10)]
    for number in range(options.manifests):
        _write_snapshot(store, kept, number, options)
    series = [Series("castfs gc"), Series("find, then rm")]
    for number in range(options.rounds):
        for which in series:
            garbage = [
                _write_blob(store.path, b"garbage %d %d" % (number, n))
                for n in range(options.blobs // 10)
            ]
            _wait_for_tick(store.path)
            if which is series[0]:
                seconds, rss = run_timed(_GC)
            else:
                seconds, rss = _find_then_rm(store.path, garbage, work)
            which.seconds.append(seconds)
            which.rss_kib = max(which.rss_kib, rss)
            assert not any(_blob_path(store.path, name).exists() for name in garbage)
    shards = (store.path / "blobs").iterdir()
    assert sum(len(os.listdir(shard)) for shard in shards) == len(kept)
    print_table(
        f"{options.blobs:,} blobs, a tenth garbage; {options.manifests:,} manifests of "
        f"{options.entries:,} files",
        series,
        ["find, then rm"],
    )
    return series


def _write_blob(store: Path, data: bytes) -> str:
    name = hashlib.sha256(data).hexdigest()
    path = _blob_path(store, name)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o444)
    except FileNotFoundError:
        path.parent.mkdir()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o444)
    os.write(fd, data)
    os.close(fd)
    return name


def _blob_path(store: Path, name: str) -> Path:
    return store / "blobs" / name[:2] / name


def _write_snapshot(store: castfs.Store, names: list[str], number: int, options: Options) -> None:
    """A window over all blobs: most of it is shared with its neighbours, each blob is in some."""
    entries = options.entries
    start = number * len(names) // options.manifests
    files = {
        RelPath(b"dir%03d/file-with-a-usual-name-%05d.py" % (index // 100, index)): File(
            mode=0o644,
            mtime_ns=1_700_000_000_000_000_000 + index,
            sha256=names[(start + index) % len(names)],
            size_bytes=9,
        )
        for index in range(entries)
    }
    count = (entries + 99) // 100
    dirs = {RelPath(b"dir%03d" % n): Directory(mode=0o755, mtime_ns=0) for n in range(count)}
    tree = Tree(root=Directory(mode=0o755, mtime_ns=0), dirs=dirs, files=files, symlinks={})
    manifest = make_manifest(tree, created_at=0.0, source_path="/bench")
    path = store.depot.manifest_path(manifest.id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(encode_manifest(manifest)))
    record = Record(
        id=new_record_id(),
        manifest=manifest.id,
        created_at=format_time(time.time()),
        host="bench",
        source="/bench",
        file_count=len(files),
        total_size_bytes=tree.total_size_bytes,
    )
    store.depot.record_path(record.id).write_bytes(encode_record(record))


def _wait_for_tick(store: Path) -> None:
    """Only what is older than the collector's stamp goes, and stamps move by ticks."""
    last = max(
        (store / "blobs" / shard).stat().st_mtime_ns for shard in os.listdir(store / "blobs")
    )
    probe = store / "gc.lock"
    while probe.stat().st_mtime_ns <= last:
        os.utime(probe)


def _find_then_rm(store: Path, garbage: list[str], work: Path) -> tuple[float, int]:
    """The least that any collector of such a store has to do: look at each file, remove some."""
    names = work / "garbage"
    names.write_text("".join(f"{name[:2]}/{name}\n" for name in garbage))
    blobs = shlex.quote(str(store / "blobs"))
    script = f"cd {blobs} && find . -type f -printf '%s %T@\\n' >/dev/null && xargs rm < {names}"
    return run_timed(["sh", "-c", script])


# Verify ----------------------------------------------------------------------------------------


def bench_verify(options: Options, work: Path) -> list[Series]:
    subprocess.run([*_CASTFS, "ingest", "-q", options.tree], check=True, stdout=subprocess.DEVNULL)
    count, size = warm(work / "store" / "blobs")
    series = [Series("castfs verify --data"), Series("castfs verify"), Series("sha256sum, two")]
    blobs = shlex.quote(str(work / "store" / "blobs"))
    sums = ["sh", "-c", f"find {blobs} -type f -print0 | xargs -0 -P 2 -n 256 sha256sum"]
    for _ in range(options.rounds):
        _add(series[0], [*_CASTFS, "verify", "--data"])
        _add(series[2], sums)
        _add(series[1], [*_CASTFS, "verify"])
    print_table(f"{count:,} blobs, {size / 2**30:.2f} GiB", series, ["sha256sum, two"])
    return series


def _add(series: Series, command: list[str]) -> None:
    seconds, rss = run_timed(command)
    series.seconds.append(seconds)
    series.rss_kib = max(series.rss_kib, rss)


# Beside ----------------------------------------------------------------------------------------

_INGESTS = """
import json, sys, time
from castfs.store.locks import StoreLocks
import castfs
waits = []
shared = StoreLocks.shared
class Timed:
    def __init__(self, inner): self._inner = inner
    def __enter__(self):
        start = time.perf_counter()
        self._inner.__enter__()
        waits.append(time.perf_counter() - start)
    def __exit__(self, *args): return self._inner.__exit__(*args)
StoreLocks.shared = lambda self: Timed(shared(self))
store = castfs.open(sys.argv[1])
for number in range(int(sys.argv[3])):
    with open(sys.argv[2] + "/changing", "w") as file: file.write(str(time.time_ns()))
    taken = store.ingest(sys.argv[2])
    store.remove_for_good(taken.id)
print(json.dumps(waits))
"""


def bench_beside(options: Options, work: Path) -> dict[str, object]:
    """Each ingest takes 2,000 files into the store and gives them up again at once."""
    os.environ["CASTFS_THREADS"] = "1"
    castfs.open(work / "store", create=True)
    for number in range(8):
        tree = work / f"tree{number}"
        tree.mkdir()
        for index in range(2000):
            (tree / str(index)).write_bytes(b"%d %d" % (number % 4, index))
    found: dict[str, object] = {}
    for with_collector in (False, True):
        seconds, waits, rounds = _run_beside(work, with_collector=with_collector)
        name = "beside a collector" if with_collector else "alone"
        found[name] = {
            "seconds": round(seconds, 2),
            "lock_waits": len(waits),
            "p50_ms": round(1000 * waits[len(waits) // 2], 3),
            "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 3),
            "longest_ms": round(1000 * waits[-1], 3),
            "collections": rounds,
        }
        print(f"eight ingests {name}: {found[name]}")
    return found


def _run_beside(work: Path, *, with_collector: bool) -> tuple[float, list[float], int]:
    start = time.perf_counter()
    ingests = [
        subprocess.Popen(
            [sys.executable, "-c", _INGESTS, work / "store", work / f"tree{number}", "5"],
            stdout=subprocess.PIPE,
        )
        for number in range(8)
    ]
    rounds = 0
    while with_collector and any(process.poll() is None for process in ingests):
        subprocess.run([*_GC, "--force"], check=True, stdout=subprocess.DEVNULL)
        rounds += 1
    waits = sorted(wait for process in ingests for wait in json.loads(process.communicate()[0]))
    assert not any(process.returncode for process in ingests)
    return time.perf_counter() - start, waits, rounds


# Prune -----------------------------------------------------------------------------------------


def bench_prune(options: Options, work: Path) -> list[Series]:
    os.environ |= {"RESTIC_REPOSITORY": str(work / "restic"), "RESTIC_PASSWORD": "x"}
    series = [Series("castfs rm, gc"), Series("restic forget --prune")]
    for _ in range(options.rounds):
        tree = work / "tree"
        shutil.copytree(options.tree, tree, symlinks=True)
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        subprocess.run(["restic", "-q", "init"], **quiet)
        first = subprocess.run(
            [*_CASTFS, "ingest", "-q", tree], check=True, capture_output=True, text=True
        ).stdout.strip()
        subprocess.run(["restic", "-q", "backup", tree], **quiet)
        _change_every_tenth(tree)
        subprocess.run([*_CASTFS, "ingest", "-q", tree], **quiet)
        subprocess.run(["restic", "-q", "backup", tree], **quiet)
        castfs_gc = f"castfs rm --permanent --yes {first} && {shlex.join(_GC)}"
        _add(series[0], ["sh", "-ec", castfs_gc.replace("castfs rm", shlex.join(_CASTFS) + " rm")])
        _add(series[1], ["restic", "-q", "forget", "--keep-last", "1", "--prune"])
        for name in ("tree", "restic", "store"):
            shutil.rmtree(work / name)
    print_table(f"{options.tree}, two snapshots, the older one removed", series, [series[1].name])
    return series


def _change_every_tenth(tree: Path) -> None:
    number = 0
    for directory, _, names in os.walk(tree):
        for name in sorted(names):
            path = Path(directory, name)
            number += 1
            if number % 10 == 0 and not path.is_symlink():
                path.chmod(0o644)
                with path.open("ab") as file:
                    file.write(b"changed")


if __name__ == "__main__":
    main()
