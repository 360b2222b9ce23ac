"""`castfs completion`: the scripts that complete castfs in a shell."""

from __future__ import annotations

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, verb


@verb("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(invocation: Invocation, *, shell: str) -> None:
    """Print the script that completes verbs, options and snapshots in SHELL.

    \b
    Examples:
      eval "$(castfs completion bash)"                       # in ~/.bashrc
      eval "$(castfs completion zsh)"                        # in ~/.zshrc
      castfs completion fish > ~/.config/fish/completions/castfs.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from castfs.cli.process import COMPLETE_VARIABLE
    from castfs.cli.verbs import PROGRAM, castfs

    kind = get_completion_class(shell)
    assert kind is not None
    # Not kind.source(): for bash it runs the bash here to see how old it is, and the script may be
    # for another machine.
    source = ShellComplete.source(kind(castfs, {}, PROGRAM, COMPLETE_VARIABLE))
    output.line(source.strip("\n"))
