"""The same questions to mounts with the lane, with and without passthrough, to one without the
lane, and to the source, at random: the same answers, values and errnos alike."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from castfs.lane.passthrough import SIZE_MIN
from castfs.mount import unmount
from castfs.mount.mountinfo import find_mount
from tests.lane.observing import Chooser, observe
from tests.lane.readers import passthrough_is_possible
from tests.mount import snapshots
from tests.mount.conftest import Mounter, run
from tests.mount.trees import make_varied_tree, write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]

OPERATIONS = 1500


def make_source(root: Path, *, xattrs: bool) -> None:
    make_varied_tree(root)  # with two files above SIZE_MIN
    for size in (SIZE_MIN - 1, SIZE_MIN, 1_000_001):
        write(root / f"{size} bytes", random.Random(size).randbytes(size))
    os.link(root / f"{SIZE_MIN} bytes", root / "large link")
    many = root / "many"
    many.mkdir()
    for number in range(2500):
        content = b"%d\n" % (number % 50) * (number % 7)
        write(many / f"{number:04}{'n' * (number % 90)}", content)
    for number in range(20):
        os.link(many / "0003nnn", many / f"link {number}")
        (many / f"symlink {number}").symlink_to(f"{number}" * 100)
    if xattrs:
        for path in (root, root / "small", root / "names", many / "0000"):
            os.setxattr(path, "user.a", b"value")
            os.setxattr(path, "user.empty", b"")
            os.setxattr(path, "user." + "n" * 200, b"\0" * 2000)
    os.utime(many, ns=(0, 10**18))
    os.utime(root, ns=(0, 10**18))


@pytest.mark.parametrize(
    ("seed", "xattrs", "writable"),
    [(1, False, False), (2, True, False), (3, True, True)],
    ids=["plain", "xattrs", "remounted rw"],
)
def test_everybody_answers_the_same(
    mounter: Mounter, monkeypatch: pytest.MonkeyPatch, seed: int, xattrs: bool, writable: bool
) -> None:
    make_source(mounter.source, xattrs=xattrs)
    snapshot = mounter.take(owner=True, xattrs=xattrs)
    # Paths of one length.
    places = [mounter.base / name for name in ("lane", "solo", "pass")]
    for place in places:
        place.mkdir()
        monkeypatch.setattr(snapshots, "fast_lane", place.name != "solo")
        passing = place.name == "pass" and passthrough_is_possible()
        options = "passthrough" if passing else "nopassthrough"
        assert mounter.start(snapshot, options, at=place).warnings == ()
        if writable:  # so that changes come as far as the server
            run("mount", "-i", "-o", "remount,rw", place)
    chooser = Chooser(mounter.source, random.Random(seed), xattrs=xattrs)
    lane, solo, passed, source = map(os.fsencode, (*places, mounter.source))
    for number in range(OPERATIONS):
        operation = chooser.choose()
        seen = observe(operation, lane)
        assert seen == observe(operation, solo), f"{number}: {operation.text}"
        assert seen == observe(operation, passed), f"{number} passed through: {operation.text}"
        if operation.native:
            assert seen == observe(operation, source), f"{number}: {operation.text}"
    for place in places:
        unmount(place)
        assert find_mount(place) is None
