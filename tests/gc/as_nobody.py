"""A store of another user, and a collection that is theirs. For root."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.store.processes import run_python

#: nobody, on every Linux.
NOBODY = 65534

_COLLECT = """
import json, os, sys
from pathlib import Path
import castfs.gc, castfs.manifest
from castfs.store import open_depot
os.setgroups([]); os.setgid(65534); os.setuid(65534)
result = castfs.gc.collect(open_depot(Path(sys.argv[1])))
print(json.dumps({"left": [str(path) for path in result.left], "deleted": result.deleted.count}))
"""


def give_to_nobody(store: Path) -> None:
    """The store is theirs alone, and they can reach it."""
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", store], check=True)
    let_nobody_pass(store)


def let_nobody_pass(path: Path) -> None:
    """Through all the directories above: another pytest that is started closes its own again."""
    for parent in path.parents:
        if parent == Path("/tmp"):
            break
        if not parent.stat().st_mode & 0o1:
            parent.chmod(0o711)


def collect_as_nobody(store: Path) -> dict[str, Any]:
    """What their collection leaves (paths) and how many blobs it deletes."""
    found: dict[str, Any] = json.loads(run_python(_COLLECT, store))
    return found
