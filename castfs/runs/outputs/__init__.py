"""Rolling outputs: what a program writes is taken while it runs, each time that it is complete.

The rules, for each file below the output directories that a pattern matches:

- A file is taken once its size and mtime have been the same in `stable_required` scans, and it was
  last changed `min_age_sec` ago or more. One whose mtime lies in the future is old enough when it
  has been seen unchanged for so long.
- A log (.log .txt .jsonl .csv, or tfevents in the name) grows all the time, so it need not be
  stable: it is taken when it has changed, at most once in `log_snapshot_interval_sec`.
- What is unchanged since it was taken is not taken again.
- A pattern that ends in `/` takes whole directories, each as one output: it is judged by
  everything in it, and what is in it is not taken file by file. One without any file waits.

Patterns are those of gitignore(5), relative to the output directory: `*.pt` matches at any depth,
`best/*.pt` only there; the last one that matches decides, and `!` before a pattern takes it back.

Symlinks are not followed, except that an output directory itself may be one. FIFOs, sockets and
devices are ignored. Nothing here opens a file, and so nothing waits for one.
"""

from castfs.runs.outputs.patterns import DEFAULT_PATTERNS
from castfs.runs.outputs.report import Failed, Kind, Output, ScanReport, Taken, Waiting
from castfs.runs.outputs.scanner import OutputScanner
from castfs.runs.outputs.watcher import OutputWatcher

__all__ = [
    "DEFAULT_PATTERNS", "Failed", "Kind", "Output", "OutputScanner", "OutputWatcher", "ScanReport",
    "Taken", "Waiting",
]  # fmt: skip
