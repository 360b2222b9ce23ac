"""Run by the Python of the real 0.5.3: makes a storage root at argv[1]."""

# mypy: ignore-errors
# Another Python runs it, with their package installed.

import json
import sys
from pathlib import Path

import runicorn as rn

root = Path(sys.argv[1])
here = Path.cwd()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


runs = {}

prepare = rn.init(project="vision", name="data_prep", storage=str(root), capture_env=False)
runs["prepare"] = prepare.id
write(here / "data" / "a.csv", b"1,2\n")
write(here / "data" / "deep" / "b.csv", b"3,4\n")
write(here / "data" / "skip.log", b"not this")
dataset = rn.Artifact("cifar", type="dataset", description="the small one")
dataset.add_dir(here / "data", exclude_patterns=["*.log"])
dataset.add_metadata({"num_samples": 4, "mean": float("nan"), "nested": {"a": [1, "ü", None]}})
dataset.add_tags("small", "csv")
prepare.log_artifact(dataset)
prepare.finish()

train = rn.init(project="vision", name="train", storage=str(root), capture_env=False)
runs["train"] = train.id
train.use_artifact("cifar:v1")
for number in (1, 2, 3):
    model = rn.Artifact("resnet50", type="model", description=f"number {number}")
    model.add_file(write(here / "model.pth", b"weights %d" % number * 1000))
    model.add_file(write(here / "config.yaml", b"lr: 0.1\n"), name="conf/config.yaml")
    model.add_metadata({"val_acc": 0.9 + number / 100, "dataset": "cifar:v1"})
    train.log_artifact(model)
far = rn.Artifact("imagenet-full", type="dataset")
far.add_reference(
    "s3://bucket/imagenet", checksum="sha256:" + "ab" * 32, size=150_000_000_000, split="train"
)
train.log_artifact(far)
# The same name in another type, and a type that was left out.
same = rn.Artifact("resnet50", type="code")
same.add_file(write(here / "train.py", b"print(1)\n"))
train.log_artifact(same)
default = rn.Artifact("without-type")
default.add_file(write(here / "plain.bin", b"plain"))
train.log_artifact(default)
hexadecimal = rn.Artifact("deadbeef", type="custom")
hexadecimal.add_file(write(here / "x", b"x"))
train.log_artifact(hexadecimal)
train.summary({"accuracy": 0.93})
train.finish()

evaluate = rn.init(project="vision", name="eval", storage=str(root), capture_env=False)
runs["evaluate"] = evaluate.id
evaluate.use_artifact("resnet50:latest")
evaluate.finish("failed")

storage = train.artifact_storage
storage.delete_artifact_version("resnet50", "model", 1, soft_delete=True)
# No verb of theirs sets an alias; their documents show one, and their reader takes it.
index = root / "artifacts" / "model" / "resnet50" / "versions.json"
document = json.loads(index.read_text())
document["aliases"]["production"] = 2
index.write_text(json.dumps(document))

json.dump(runs, sys.stdout)
