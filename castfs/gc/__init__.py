"""The collector: frees what no snapshot, reader or writer needs. docs/CONCURRENCY.md has the rules.

    roots → marks → plan → sweep

`collect` makes a plan under the store's protocol and, unless that is all that was asked for,
executes it.
"""

from castfs.gc.collector import collect
from castfs.gc.plan import Amount, GcOptions, GcResult

__all__ = ["Amount", "GcOptions", "GcResult", "collect"]
