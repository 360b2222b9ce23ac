"""Bundles: names with all that is known of them, as one file that another store takes in.

`exporting` writes one, `importing` reads it; `checks` is what both ask of it, `merging` what
becomes of what the store has already. docs/FORMAT.md owns the format.
"""
