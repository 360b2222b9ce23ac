"""`python -m castfs`: the command line, where the program itself is not on the path."""

from __future__ import annotations

from castfs.cli import program

if __name__ == "__main__":
    program()
