"""Run by the Python of the real 0.5.3: downloads from the storage root argv[1] into argv[2] each
"name:version" that follows, and tells what it says of them."""

# mypy: ignore-errors
# Another Python runs it, with their package installed.

import json
import sys
from pathlib import Path

import runicorn as rn

root, target, *specs = sys.argv[1:]
run = rn.init(project="reading", storage=root, capture_env=False)
said = {}
for spec in specs:
    artifact = run.use_artifact(spec)
    artifact.download(Path(target) / spec)
    metadata, manifest = artifact.get_metadata(), artifact.get_manifest()
    said[spec] = {
        "version": artifact.version,
        "type": artifact.type,
        "description": metadata.description,
        "metadata": metadata.metadata,
        "tags": metadata.tags,
        "run": metadata.created_by_run,
        "files": {file.path: file.size for file in manifest.files},
        "modified": {file.path: file.modified_at for file in manifest.files},
        "references": [reference.to_dict() for reference in artifact.get_references()],
    }
run.finish()
json.dump(said, sys.stdout)
