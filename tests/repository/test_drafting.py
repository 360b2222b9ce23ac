"""Trees that are put together."""

from __future__ import annotations

from pathlib import Path

import castfs
from castfs.manifest import File
from castfs.repository.drafting import Draft
from castfs.repository.publishing import Details


class Counted(dict[bytes, File]):
    """How often was somebody looked for?"""

    count = 0

    def __contains__(self, key: object) -> bool:
        self.count += 1
        return super().__contains__(key)


def test_many_references_of_one_name(tmp_path: Path) -> None:
    """Shards of a data set are called the same in each of their directories."""
    store = castfs.open(tmp_path / "store", create=True)
    with Draft(store.depot, "test") as draft:
        draft._files = files = Counted()
        draft.add_bytes(b"part-3.reference", b"mine")
        for number in range(200):
            draft.add_reference(f"s3://bucket/{number}/part")
        assert files.count < 4 * 200
        record = draft.commit(Details(name="far")).record
    paths = [reference.path for reference in record.references]
    assert paths[:4] == [
        "part.reference", "part-2.reference", "part-4.reference", "part-5.reference",
    ]  # fmt: skip
    assert len(set(paths)) == 200
