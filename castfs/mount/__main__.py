"""Run by path as the background process of a mount: `__main__.py REQUEST_FD READY_FD MOUNTPOINT`.

By path and not by `-m`, so that `ps` shows what it is and nothing is imported from the caller's
directory. The mount point is there for `ps` only.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    # The launcher waits for its child only; this one belongs to init, which reaps it.
    if os.fork() != 0:
        os._exit(0)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if root not in sys.path:
        sys.path.insert(0, root)
    from castfs.mount.daemon import main as run

    return run(int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(main())
