"""Run by the Python of a real package: scans twice with the arguments of argv[1], and tells the
signatures of the functions that argv[2] names."""

# mypy: ignore-errors
# Another Python runs it, with their package installed.

import importlib
import inspect
import json
import sys
from pathlib import Path

from filelock import FileLock
from runicorn.assets.outputs_scan import scan_outputs_once

arguments, names = map(json.loads, sys.argv[1:])
for key, value in arguments.items():
    if key.endswith(("_dir", "_root", "_path")):
        arguments[key] = Path(value)
for kind in ("assets", "state"):
    arguments[f"{kind}_lock"] = FileLock(f"{kind}.lock")
signatures = {}
for name in names:
    module, _, function = name.partition(".")
    found = getattr(importlib.import_module(f"runicorn.assets.{module}"), function)
    signatures[name] = [
        [each.name, repr(each.default), each.kind.name]
        for each in inspect.signature(found).parameters.values()
    ]
results = [scan_outputs_once(**arguments) for _ in range(2)]
json.dump({"signatures": signatures, "results": results}, sys.stdout)
