"""A manifest compiled into a file of ready replies: what every engine serves from."""

from castfs.tree.building import ManifestFile
from castfs.tree.cache import (
    find_index,
    index_directories,
    keep_index,
    open_index,
    remove_orphans,
)
from castfs.tree.compiler import compile_tree
from castfs.tree.entries import IndexedEntries, ListedEntry, NotIndexedError
from castfs.tree.index import ROOT_INO, Attributes, BadIndexError, IndexEntry, TreeIndex
from castfs.tree.presentation import Presentation

__all__ = [
    "ROOT_INO", "Attributes", "BadIndexError", "IndexEntry", "IndexedEntries", "ListedEntry",
    "ManifestFile", "NotIndexedError", "Presentation", "TreeIndex", "compile_tree", "find_index",
    "index_directories", "keep_index", "open_index", "remove_orphans",
]  # fmt: skip
