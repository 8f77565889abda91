"""Completion with Tab: the script a shell reads once, and what is completed beside commands and options."""

import importlib.metadata

import click
from click.shell_completion import get_completion_class

from phaseline.cli_options import closing

_VARIABLE = "_PHASELINE_COMPLETE"  # click looks for it under the name of the program


@click.command(
    epilog=closing(
        'eval "$(phaseline completion bash)"                             in ~/.bashrc (bash 4.4 or later)',
        'eval "$(phaseline completion zsh)"                              in ~/.zshrc',
        "phaseline completion fish > ~/.config/fish/completions/phaseline.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints the script that lets SHELL complete commands, options and engines with Tab."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root()
    click.echo(kind(root.command, {}, "phaseline", _VARIABLE).source())


def engines_here(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Names of the installed engines, without importing them or asking a server: Tab must not wait."""
    names = {entry.name for entry in importlib.metadata.entry_points(group="phaseline.engines")}
    return sorted(name for name in names if name.startswith(begun))
