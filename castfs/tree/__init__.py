"""A manifest compiled for look-ups by inode number and name: what every engine serves from."""

from castfs.tree.compiler import compile_tree
from castfs.tree.index import ROOT_INO, Attributes, TreeIndex
from castfs.tree.presentation import Presentation

__all__ = ["ROOT_INO", "Attributes", "Presentation", "TreeIndex", "compile_tree"]
