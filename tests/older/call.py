"""Run by the Python of a real package: a list of [function, args, kwargs] on stdin of argv[1]."""

# mypy: ignore-errors
# Another Python runs it, with their package installed.

import importlib
import json
import sys
from pathlib import Path


def unwrap(value):
    return Path(value["path"]) if isinstance(value, dict) else value


results = []
for name, args, kwargs in json.loads(sys.argv[1]):
    module, _, function = name.rpartition(".")
    call = getattr(importlib.import_module(module), function)
    given = {key: unwrap(value) for key, value in kwargs.items()}
    results.append(call(*map(unwrap, args), **given))
json.dump(results, sys.stdout, default=str)
