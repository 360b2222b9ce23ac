"""Run by the Python of a real package (0.6.0 or newer): makes an archive at argv[1]."""

# mypy: ignore-errors
# Another Python runs it, with their package installed.

import json
import os
import sys
from pathlib import Path

import runicorn as rn

root = Path(sys.argv[1])
here = Path.cwd()


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


workspace = here / "workspace"
write(workspace / "train.py", b"print('train')\n", 0o755)
write(workspace / "package" / "model.py", b"class Model: ...\n")
write(workspace / "package" / "ünïcode 目录.txt", "ü".encode())
write(workspace / "empty", b"")
write(workspace / ".rnignore", b"*.pyc\n")  # 0.6.0 writes its own where there is none
write(workspace / "zeros", bytes(3 << 20))

data = here / "data"
write(data / "a.csv", b"1,2\n")
write(data / "deep" / "er" / "b.csv", b"3,4\n")
write(data / "copy of a.csv", b"1,2\n")
write(data / "big.bin", bytes(range(256)) * 9000)
write(here / "single.bin", b"a single file")

outputs = workspace / "outputs"

first = rn.init(
    path="training/resnet", storage=str(root), snapshot_code=True, workspace_root=str(workspace)
)
first.log_dataset("cifar", str(data), save=True, description="the small one")
first.log_dataset("single", str(here / "single.bin"), save=True)
first.log_dataset("far away", "s3://bucket/imagenet")
first.log_pretrained("resnet-base", path_or_uri=str(data), save=True, source_type="local")
first.log_config(args={"lr": 0.1, "loss": float("nan")}, extra={"note": "ü"})
write(outputs / "model.pth", b"weights" * 1000)
write(outputs / "train.log", b"epoch 1\n")
write(outputs / "checkpoint" / "w.bin", b"w")
for _ in range(2):
    first.scan_outputs_once(
        output_dirs=[outputs], patterns=["*.pth", "*.log", "checkpoint/"], min_age_sec=0
    )
for content in (b"one", b"two!"):
    write(outputs / "versioned.ckpt", content)
    for _ in range(2):
        first.scan_outputs_once(
            output_dirs=[outputs],
            patterns=["versioned.ckpt"],
            min_age_sec=0,
            mode="overwrite_versions",
        )
first.summary({"accuracy": 0.5})
first.finish()

# The next run: the same data, other code.
write(workspace / "train.py", b"print('train better')\n", 0o755)
os.remove(workspace / "empty")
second = rn.init(
    path="training/resnet", storage=str(root), snapshot_code=True, workspace_root=str(workspace)
)
second.log_dataset("cifar", str(data), save=True, context="validation")
write(data / "more.csv", b"5,6\n")
second.log_dataset("cifar", str(data), save=True)
second.finish()

third = rn.init(storage=str(root), workspace_root=str(workspace))
rn.snapshot_workspace(workspace / "package", third.run_dir / "code_snapshot.zip")
third.finish("failed")

# What no run names.
from runicorn.assets.archive import archive_dir  # noqa: E402
from runicorn.assets.blob_store import store_blob  # noqa: E402

write(here / "alone" / "x", b"only in a manifest")
archive_dir(here / "alone", root / "archive", category="datasets")
write(here / "loose.yaml", b"loose: true\n")
loose = store_blob(here / "loose.yaml", root / "archive" / "blobs")

json.dump(
    {
        "runs": [first.id, second.id, third.id],
        "directories": [str(run.run_dir.relative_to(root)) for run in (first, second, third)],
        "loose": loose,
    },
    sys.stdout,
)
