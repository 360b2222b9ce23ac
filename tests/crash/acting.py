"""What is done to a store: methods of it, commands as they are typed, a run from its beginning."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import castfs
from castfs.cli import main
from castfs.errors import CastfsError
from castfs.gc import GcOptions
from castfs.verify import VerifyOptions


class FailedError(CastfsError):
    """A command that ended with another exit code than 0; the message is what it said."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said.removesuffix("\n"))
        self.exit_code = code


def act(store: castfs.Store, source: str, step: list[str]) -> None:
    """CastfsError. The first word of `step` is the verb; `castfs` is what a shell would run."""
    verb, *words = step
    if verb == "castfs":
        run_command(store, words)
    elif verb == "ingest":
        store.ingest(source, name=words[0] if words else None)
    elif verb == "remove":
        store.remove(*words)
    elif verb == "remove_for_good":
        store.remove_for_good(*words)
    elif verb == "undelete":
        store.undelete(*words)
    elif verb == "gc":
        store.gc(GcOptions(grace_seconds=0, trash_age_seconds=float(words[0])))
    elif verb == "verify":
        store.verify(options=VerifyOptions(data=True))
    elif verb == "run":
        run_once(store, Path(source), set(words))
    else:
        raise AssertionError(verb)


def run_command(store: castfs.Store, words: list[str]) -> None:
    said = io.BytesIO()
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(said)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([words[0], "--store", os.fspath(store.path), *words[1:]])
        err.flush()
    if code != 0:
        raise FailedError(code, said.getvalue().decode())


#: What a run does, in this order.
DOINGS = ("init", "use", "log", "alias", "finish")


def run_once(store: castfs.Store, source: Path, doings: set[str]) -> None:
    """Those of `DOINGS` that are wanted, at least `init`."""
    run = castfs.init("vision", "resnet", store=store)
    if "use" in doings:
        run.use_artifact("data:latest")
    if "log" in doings:
        artifact = castfs.Artifact("made", "model", metadata={"dataset": "data:v1"})
        artifact.add_file(source / "a").add_dir(source / "new", "new")
        run.log_artifact(artifact, aliases=["newest"] if "alias" in doings else [])
    if "finish" in doings:
        run.finish()
