"""verify: the store itself, and what its snapshots say that lies elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from castfs.catalog import reading
from castfs.progress import SILENT, Progress
from castfs.repository.referencing import check_references
from castfs.repository.removing import find_everywhere
from castfs.store import Depot
from castfs.verify import VerifyOptions, VerifyResult, verify_store
from castfs.verify.report import Problem


def verify(
    depot: Depot,
    words: Sequence[str],
    options: VerifyOptions | None = None,
    *,
    progress: Progress = SILENT,
) -> VerifyResult:
    """See `Store.verify`."""
    options = options or VerifyOptions()
    chosen = {record.id for record in find_everywhere(depot, words)} if words else None
    result = verify_store(depot, options, chosen=chosen, progress=progress)
    with reading(depot) as catalog:
        records = [
            record
            for record in catalog.iter_records("all")
            if record.references and (chosen is None or record.id in chosen)
        ]
        damages = catalog.damages_beside_records() if chosen is None else []
    troubles = [str(damage) for damage in damages]
    # A part of the contents is asked for to be quick; of these each may have a hundred gigabytes.
    data = options.data and options.sample == 1 and options.since is None
    if data and records:
        progress.phase("hashing what is referred to")
    troubles += [trouble for _, trouble in check_references(records, data=data)]
    problems = (*result.problems, *(Problem(message=trouble) for trouble in troubles))
    count = sum(len(record.references) for record in records)
    return dataclasses.replace(result, problems=problems, reference_count=count)
