"""Run by the Python of a real package: a run with metrics at argv[1]; argv[2] is the release."""

# mypy: ignore-errors
# Another Python runs it, with their package installed.

import json
import sys

import runicorn as rn

root, version = sys.argv[1:]
where = {"project": "vision", "name": "resnet"} if version < "0.6" else {"path": "vision/resnet"}
run = rn.init(storage=root, **where)
for step, loss in enumerate([1.0, 0.5, float("nan")]):
    run.log({"loss": loss}, step=step)
run.log_text("hello")
run.log_image("picture", b"\x89PNG", step=1)
run.summary({"accuracy": 0.5})
run.finish()
json.dump(run.id, sys.stdout)
