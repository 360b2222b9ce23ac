"""The table of verbs, and the group that loads a verb's file when it is typed."""

from __future__ import annotations

import difflib
import importlib
import sys
from dataclasses import dataclass

import click
from click.shell_completion import CompletionItem

from castfs.cli import output
from castfs.cli.invocation import HELP_NAMES, store_option

PROGRAM = "castfs"


@dataclass(frozen=True)
class Entry:
    """A verb: the module of castfs.cli that has it as `command`, and its line in the overview."""

    module: str
    summary: str


#: By what they are for; `castfs --help` prints this and loads none of the modules.
SECTIONS: dict[str, dict[str, Entry]] = {
    "Take and look": {
        "ingest": Entry("ingest", "Take a directory into the store."),
        "list": Entry("list", "List the snapshots, newest first."),
        "show": Entry("show", "Show what is known of a snapshot."),
        "ls": Entry("ls", "List a directory of a snapshot."),
        "cat": Entry("cat", "Print files of a snapshot."),
        "find": Entry("find", "Find the snapshots that hold a path or a content."),
        "diff": Entry("diff", "Show what changed between two snapshots."),
    },
    "Names": {
        "versions": Entry("versions", "List the versions of a name."),
        "alias": Entry("alias", "Let an alias mean a version, or take it away."),
        "tag": Entry("tag", "Add tags to a snapshot, or take them away."),
        "meta": Entry("meta", "Set values of a snapshot's metadata, or take them away."),
        "search": Entry("search", "Find snapshots by what is said of them."),
        "log": Entry("log", "Show what happened to a name, or to all."),
        "reference": Entry("reference", "Record where something is that is too large to take."),
        "catalog": Entry("catalog", "Make the catalog's database anew from the files."),
    },
    "Mount": {
        "mount": Entry("mount", "Show a snapshot as a read-only directory."),
        "umount": Entry("umount", "Unmount snapshots."),
        "mounts": Entry("mounts", "List what is mounted and whether it answers."),
    },
    "Get out and in": {
        "restore": Entry("restore", "Recreate a snapshot, or parts of it, as files."),
        "export": Entry("export", "Write a snapshot, or a name with its versions, as a file."),
        "import": Entry("import_", "Take in a manifest, a bundle, or an older system's archive."),
    },
    "Runs": {
        "runs": Entry("runs", "List the runs, show one, or take one away."),
        "lineage": Entry("lineage", "Draw what a version came from, and what came from it."),
        "watch": Entry("watch", "Keep what a program writes while it runs."),
    },
    "Store": {
        "init": Entry("init", "Create a store."),
        "stats": Entry("stats", "Show what the store holds and what sharing saved."),
        "verify": Entry("verify", "Check that everything is there and undamaged; repair."),
        "rm": Entry("rm", "Move snapshots to the trash, or delete them for good."),
        "undelete": Entry("undelete", "Take snapshots out of the trash."),
        "forget": Entry("forget", "Remove snapshots by a policy of what to keep."),
        "gc": Entry("gc_", "Free what no snapshot, mount or ingest needs."),
    },
    "Help": {
        "help": Entry("help", "Explain a verb or a topic."),
        "debug": Entry("debug", "Show what castfs's own files hold."),
        "completion": Entry("completion", "Print the script that completes castfs in a shell."),
    },
}
VERBS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

#: What other tools call it.
WORDS_OF_OTHERS = {
    "snapshots": "list",
    "artifacts": "list",
    "history": "log",
    "label": "tag",
    "tags": "tag",
    "aliases": "alias",
    "annotate": "meta",
    "metadata": "meta",
    "link": "reference",
    "info": "show",
    "inspect": "show",
    "unmount": "umount",
    "backup": "ingest",
    "add": "ingest",
    "save": "ingest",
    "commit": "ingest",
    "create": "ingest",
    "checkout": "restore",
    "extract": "restore",
    "dump": "cat",
    "tree": "ls",
    "du": "stats",
    "df": "stats",
    "check": "verify",
    "fsck": "verify",
    "scrub": "verify",
    "prune": "gc",
    "delete": "rm",
    "remove": "rm",
    "untrash": "undelete",
    "expire": "forget",
    "clean": "gc",
}


class VerbGroup(click.Group):
    """Loads `castfs.cli.<verb>` for the one verb that was typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(f"castfs.cli.{entry.module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not ctx.resilient_parsing:
            raise unknown_verb(args[0], ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in VERBS)
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), entry.summary) for name, entry in section.items()]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [
            CompletionItem(name, help=entry.summary)
            for name, entry in VERBS.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


class VerbError(click.UsageError):
    """No verb of ours, with its own hint."""

    def __init__(self, message: str, ctx: click.Context, *, hint: str) -> None:
        super().__init__(message, ctx)
        self.castfs_hint = hint


def unknown_verb(word: str, ctx: click.Context) -> VerbError:
    message = f"castfs has no verb `{word}`"
    ours = WORDS_OF_OTHERS.get(word, word)
    if ours != word:
        return VerbError(message, ctx, hint=f"it is `castfs {ours}`")
    close = difflib.get_close_matches(word, [*VERBS, *WORDS_OF_OTHERS], n=1)
    if close:
        meant = WORDS_OF_OTHERS.get(close[0], close[0])
        if meant in VERBS:
            return VerbError(message, ctx, hint=f"did you mean `castfs {meant}`?")
    return VerbError(message, ctx, hint="see `castfs --help`")


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        # The package itself is loaded in any case; asking importlib.metadata takes 30 ms.
        output.line(f"castfs {sys.modules['castfs'].__version__}")
        context.exit()


@click.group(
    cls=VerbGroup,
    name=PROGRAM,
    context_settings=HELP_NAMES,
    no_args_is_help=True,
    options_metavar="[--store DIR]",
    subcommand_metavar="VERB [ARGUMENTS]",
    epilog="`castfs VERB --help` gives examples. `castfs help exit-codes` and `castfs help "
    "snapshots` explain what is the same for all verbs.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
@store_option
def castfs() -> None:
    """Freeze directories, get them back exactly, mount them in between.

    \b
    Examples:
      castfs ingest ./repo                take a directory; prints the snapshot's id
      castfs list                         the snapshots, newest first
      castfs mount 0193a7c25d10 /mnt/run  show one as a read-only directory
      castfs umount /mnt/run
    """
