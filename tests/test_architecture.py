"""The direction of imports and the rooms of what is confined, read from the source.

Every `import` counts: at the top, inside a function, under TYPE_CHECKING, and
`importlib.import_module("castfs.x")` with a constant name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

ROOMS_BY_RANK = (
    ("errors", "digest", "paths", "atomic", "regular", "settings", "syscalls", "progress", "fuse"),
    ("manifest", "ignore"),
    ("store",),
    ("tree",),
    ("ingest", "restore", "archive", "diff", "retention", "verify", "gc", "catalog", "transfer"),
    ("view",),
    ("lane",),
    ("mount",),
    ("repository", "bundles", "runs", "older", "code"),
    ("cli", "web", "compat", "__main__"),
    ("__init__",),
)
RANKS = {room: rank for rank, rooms in enumerate(ROOMS_BY_RANK) for room in rooms}
SEPARATE_RANK = 4  # one verb each: what two of them share belongs further down

# What may be used only in the rooms (or files) beside it.
CONFINED_IMPORTS = {
    "pyfuse3": ("mount",),  # costs 170 ms, so only the mount process pays it
    "trio": ("mount", "web"),
    "sqlite3": ("ingest.statcache", "catalog"),
    "obstore": ("transfer",),
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
ENVIRONMENT_ROOMS = ("settings", "cli")
PRINT_ROOMS = ("cli",)
NAMES_THAT_SAY_NOTHING = {"utils", "common", "helpers", "core"}


@dataclass(frozen=True)
class Module:
    """One source file; `name` is dotted and relative to castfs ("" for castfs/__init__.py)."""

    name: str
    path: str
    tree: ast.Module
    is_package: bool

    @property
    def room(self) -> str:
        return self.name.partition(".")[0] or "__init__"

    def is_in(self, rooms: Iterable[str]) -> bool:
        return any(self.name == room or self.name.startswith(room + ".") for room in rooms)

    def at(self, node: ast.AST, message: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {message}"


@dataclass(frozen=True)
class Import:
    """An absolute dotted name that a module imports; `attribute` is what it takes from there."""

    node: ast.AST
    name: str
    attribute: str = ""


def read_modules(package: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        shown = path.relative_to(package.parent).as_posix()
        modules[name] = Module(name, shown, ast.parse(path.read_bytes(), shown), is_package)
    return modules


def iter_imports(module: Module) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(module, node.level, node.module)
            yield from (Import(node, base, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in {"import_module", "__import__"}:
            match node.args:
                case [ast.Constant(value=str(name)), *_]:
                    yield Import(node, name)


def absolute_name(module: Module, level: int, name: str | None) -> str:
    if level == 0:
        return name or ""
    package = ["castfs", *filter(None, module.name.split("."))]
    if not module.is_package:
        package.pop()
    package = package[: len(package) - level + 1]
    return ".".join([*package, *filter(None, [name])])


def called_name(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def find_target(modules: dict[str, Module], imported: Import) -> Module | None:
    """The module that is imported: for `from castfs.x import y`, castfs.x.y if that is one."""
    if imported.name.partition(".")[0] != "castfs":
        return None
    name = imported.name.partition(".")[2]
    inner = ".".join(filter(None, [name, imported.attribute]))
    return modules.get(inner) or modules.get(name)


def check(package: Path) -> list[str]:
    """Every breach in the tree of `package`, each as "file:line: what is wrong"."""
    modules = read_modules(package)
    breaches: list[str] = []
    edges: dict[str, dict[str, str]] = {name: {} for name in modules}
    for module in modules.values():
        breaches += check_names(module)
        breaches += check_uses(module)
        for imported in iter_imports(module):
            breaches += check_confined(module, imported)
            target = find_target(modules, imported)
            if target is not None and target is not module:
                where = module.at(imported.node, "")
                edges[module.name].setdefault(target.name, where)
                breaches += check_direction(module, target, imported)
    return [*breaches, *check_cycles(edges), *check_cycles(between_rooms(modules, edges))]


def check_names(module: Module) -> Iterator[str]:
    if module.room not in RANKS:
        yield f"{module.path}:1: {module.room} has no rank: give it one in {Path(__file__).name}"
    for part in NAMES_THAT_SAY_NOTHING.intersection(module.name.split(".")):
        yield f"{module.path}:1: the name {part!r} says nothing: name it for what it holds"


def check_direction(module: Module, target: Module, imported: Import) -> Iterator[str]:
    here, there = RANKS.get(module.room), RANKS.get(target.room)
    if here is None or there is None or module.room == target.room:
        return
    if there > here:
        yield module.at(
            imported.node,
            f"{module.room} (rank {here}) imports upward from {target.room} (rank {there})",
        )
    elif here == there == SEPARATE_RANK:
        yield module.at(imported.node, f"{module.room} imports its sibling {target.room}")


def check_confined(module: Module, imported: Import) -> Iterator[str]:
    top = imported.name.partition(".")[0]
    if top in CONFINED_IMPORTS and not module.is_in(CONFINED_IMPORTS[top]):
        yield module.at(imported.node, f"{top} belongs to {', '.join(CONFINED_IMPORTS[top])}")
    if top == "os" and imported.attribute in ENVIRONMENT and not module.is_in(ENVIRONMENT_ROOMS):
        yield module.at(imported.node, environment_message(imported.attribute))


def check_uses(module: Module) -> Iterator[str]:
    os_names = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "os"
    }
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id="print")) if not module.is_in(PRINT_ROOMS):
                yield module.at(node, f"print() belongs to {', '.join(PRINT_ROOMS)}")
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if (
                name in os_names
                and attribute in ENVIRONMENT
                and not module.is_in(ENVIRONMENT_ROOMS)
            ):
                yield module.at(node, environment_message(attribute))


def environment_message(attribute: str) -> str:
    return f"os.{attribute} belongs to {', '.join(ENVIRONMENT_ROOMS)}"


def between_rooms(
    modules: dict[str, Module], edges: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """The edges between top-level names: two packages may depend on each other without a cycle of
    modules, and still neither can be read first."""
    rooms: dict[str, dict[str, str]] = {module.room: {} for module in modules.values()}
    for name, targets in edges.items():
        for target, where in targets.items():
            here, there = modules[name].room, modules[target].room
            if here != there:
                rooms[here].setdefault(there, where)
    return rooms


def check_cycles(edges: dict[str, dict[str, str]]) -> Iterator[str]:
    """One breach for each group of names that reach each other, with one way round it."""
    reported: set[str] = set()
    for start in edges:
        cycle = [] if start in reported else shortest_cycle(edges, start)
        if cycle:
            reported.update(cycle)
            shown = " -> ".join(name or "__init__" for name in [*cycle, start])
            yield f"{edges[start][[*cycle, start][1]]}import cycle: {shown}"


def shortest_cycle(edges: dict[str, dict[str, str]], start: str) -> list[str]:
    paths = [[start]]
    seen = set()
    for path in paths:
        for target in edges[path[-1]]:
            if target == start:
                return path
            if target not in seen:
                seen.add(target)
                paths.append([*path, target])
    return []


def test_castfs_keeps_its_layers() -> None:
    assert (REPOSITORY / "castfs/__init__.py").is_file()
    assert check(REPOSITORY / "castfs") == []


def write_tree(directory: Path, files: dict[str, str]) -> Path:
    package = directory / "castfs"
    for name, source in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return package


BREACHES = {
    "upward": (
        {"errors.py": "", "store/__init__.py": "import castfs.mount", "mount/__init__.py": ""},
        ["castfs/store/__init__.py:1: store (rank 2) imports upward from mount (rank 7)"],
    ),
    "upward, inside a function": (
        {"paths.py": "def f():\n    from castfs import store\n", "store.py": ""},
        ["castfs/paths.py:2: paths (rank 0) imports upward from store (rank 2)"],
    ),
    "upward, for types alone": (
        {
            "paths.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from castfs.store.blobs import Blobs\n",
            "store/__init__.py": "",
            "store/blobs.py": "",
        },
        ["castfs/paths.py:3: paths (rank 0) imports upward from store (rank 2)"],
    ),
    "upward, relative": (
        {"store/__init__.py": "", "store/blobs.py": "\nfrom ..view import x", "view.py": ""},
        ["castfs/store/blobs.py:2: store (rank 2) imports upward from view (rank 5)"],
    ),
    "upward, by import_module": (
        {"tree.py": "import importlib\nimportlib.import_module('castfs.view')", "view.py": ""},
        ["castfs/tree.py:2: tree (rank 3) imports upward from view (rank 5)"],
    ),
    "upward, an attribute of castfs itself": (
        {"cli/__init__.py": "from castfs import __version__"},
        ["castfs/cli/__init__.py:1: cli (rank 9) imports upward from __init__ (rank 10)"],
    ),
    "siblings of one rank": (
        {"diff.py": "from castfs import restore", "restore.py": ""},
        ["castfs/diff.py:1: diff imports its sibling restore"],
    ),
    "cycle in a package": (
        {
            "store/__init__.py": "",
            "store/a.py": "from castfs.store import b",
            "store/b.py": "\nfrom .c import x",
            "store/c.py": "def f():\n    from castfs.store.a import y",
        },
        ["castfs/store/a.py:1: import cycle: store.a -> store.b -> store.c -> store.a"],
    ),
    "cycle through a package's __init__": (
        {"store/__init__.py": "from .a import x", "store/a.py": "from castfs.store import x"},
        ["castfs/store/__init__.py:1: import cycle: store -> store.a -> store"],
    ),
    "cycle of packages without one of modules": (
        {
            "manifest/__init__.py": "",
            "manifest/a.py": "import castfs.ignore.b",
            "manifest/d.py": "",
            "ignore/__init__.py": "",
            "ignore/b.py": "",
            "ignore/c.py": "import castfs.manifest.d",
        },
        ["castfs/ignore/c.py:1: import cycle: ignore -> manifest -> ignore"],
    ),
    "pyfuse3": (
        {"view.py": "import pyfuse3"},
        ["castfs/view.py:1: pyfuse3 belongs to mount"],
    ),
    "trio": (
        {"view.py": "def f():\n    from trio.lowlevel import TrioToken"},
        ["castfs/view.py:2: trio belongs to mount, web"],
    ),
    "sqlite3 beside the stat cache": (
        {
            "ingest/__init__.py": "import sqlite3",
            "ingest/statcache.py": "import sqlite3",
            "ingest/statcache_rows.py": "import sqlite3",
        },
        [
            "castfs/ingest/__init__.py:1: sqlite3 belongs to ingest.statcache, catalog",
            "castfs/ingest/statcache_rows.py:1: sqlite3 belongs to ingest.statcache, catalog",
        ],
    ),
    "obstore": (
        {"store.py": "from obstore.store import S3Store"},
        ["castfs/store.py:1: obstore belongs to transfer"],
    ),
    "os.environ": (
        {"store.py": "import os\nHOME = os.environ['HOME']"},
        ["castfs/store.py:2: os.environ belongs to settings, cli"],
    ),
    "os.getenv under another name": (
        {"store.py": "import os as system\nHOME = system.getenv('HOME')"},
        ["castfs/store.py:2: os.getenv belongs to settings, cli"],
    ),
    "environ taken from os": (
        {"store.py": "from os import environ"},
        ["castfs/store.py:1: os.environ belongs to settings, cli"],
    ),
    "print": (
        {"store.py": "def f():\n    print('x')"},
        ["castfs/store.py:2: print() belongs to cli"],
    ),
    "a name that says nothing": (
        {"store/__init__.py": "", "store/helpers.py": ""},
        ["castfs/store/helpers.py:1: the name 'helpers' says nothing: name it for what it holds"],
    ),
    "a room without a rank": (
        {"cellar.py": ""},
        ["castfs/cellar.py:1: cellar has no rank: give it one in test_architecture.py"],
    ),
}


@pytest.mark.parametrize(("files", "breaches"), BREACHES.values(), ids=BREACHES.keys())
def test_breach_is_found(tmp_path: Path, files: dict[str, str], breaches: list[str]) -> None:
    assert check(write_tree(tmp_path, files)) == breaches


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    package = write_tree(
        tmp_path,
        {
            "__init__.py": "def __getattr__(name):\n    from castfs import repository, mount\n",
            "__main__.py": "from castfs.cli import main",
            "catalog/__init__.py": "",
            "catalog/rows.py": "import sqlite3",
            "cli/__init__.py": "import os\nprint(os.environ)\nfrom castfs import repository",
            "digest.py": "from castfs.errors import CastfsError",
            "errors.py": "",
            "ingest/__init__.py": "from .statcache import x\nfrom castfs.store import blobs",
            "ingest/statcache.py": "import sqlite3",
            "mount/__init__.py": "import pyfuse3, trio\nfrom castfs import view",
            "repository.py": "import castfs.ingest\nfrom castfs import mount",
            "settings.py": "from os import environ",
            "store/__init__.py": "from castfs.store.blobs import x",
            "store/blobs.py": "from castfs import digest, errors\nimport os\nos.open",
            "transfer/__init__.py": "import obstore",
            "view.py": "pprint = None\npprint('x')\nself.print()",
            "web/__init__.py": "import trio",
        },
    )
    assert check(package) == []
