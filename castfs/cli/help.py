"""`castfs help`: a verb's help, or a topic that is the same for all verbs."""

from __future__ import annotations

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, verb

EXIT_CODES = """\
Exit codes:
    0  done
    1  failed; `diff --exit-code`: there are differences
    2  the arguments do not make sense
    3  done, but entries were skipped; `verify`: damage was found and repaired
    4  not found, or ambiguous
    5  damage was found
   10  there is no store at that place
   11  busy: somebody else holds what is needed
  130  interrupted (Ctrl-C)
  129, 143  ended by SIGHUP, SIGTERM
  141  the reader of the output went away before it had everything (`castfs ls … | head`)
`castfs mount … -- COMMAND` exits with COMMAND's own code.
"""

SNAPSHOTS = """\
How a snapshot is named:
  ./run.json, dir/m.json    a word with a `/`, or ending in .json: a manifest file
  NAME, NAME:latest         the highest version of what was ingested with --name NAME
  NAME:v3                   that version
  NAME:production           the version that an alias means (`castfs alias`)
  NAME@3fa9c1               the one of that name whose id, or whose manifest's, begins so
  0193a7c25d10              else the first digits (seven at least) of the id of a snapshot or of a
                            manifest
Where a word has two readings, nothing is done and both are listed. `rm`, `undelete`, `tag`, `meta`
and `alias` act on snapshots, not on trees: there a word that several snapshots share is refused
(NAME alone, too, if several have that name), and a manifest file means the snapshot of its tree. In
`diff` a word with a `/` that is a directory means that directory.
A name is text with `/` between its parts (team/sensors). It has no `:` or `@`, no part that is
empty, `.` or `..`, does not end in .json, and is not seven or more hex digits. An alias is a word
that is not `latest` and not like v3. Both are kept in Unicode's form NFC. Version numbers only
grow: that of a deleted version is never given again.
"""

ENVIRONMENT = """\
Environment:
  CASTFS_STORE    the store, where --store is not given; else castfs in the XDG data directory
  CASTFS_THREADS  how many threads an ingest or restore uses; else one for each CPU
  NO_COLOR        no colours on a terminal
"""

TOPICS = {"exit-codes": EXIT_CODES, "snapshots": SNAPSHOTS, "environment": ENVIRONMENT}


@verb("help")
@click.argument("topic", metavar="[VERB|TOPIC]", required=False)
@click.pass_context
def command(context: click.Context, invocation: Invocation, *, topic: str | None) -> None:
    """Explain a verb, or one of the topics exit-codes, snapshots, environment.

    \b
    Examples:
      castfs help ingest
      castfs help exit-codes
    """
    from castfs.cli.verbs import castfs, unknown_verb

    parent = context.parent
    assert parent is not None
    if topic is None:
        output.line(castfs.get_help(parent))
    elif topic in TOPICS:
        output.write(TOPICS[topic])
    else:
        wanted = castfs.get_command(parent, topic)
        if wanted is None:
            raise unknown_verb(topic, parent)
        with click.Context(wanted, info_name=topic, parent=parent) as inner:
            output.line(wanted.get_help(inner))
