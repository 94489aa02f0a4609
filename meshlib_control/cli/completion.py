"""completion: the script that makes a shell complete meshctl's commands, options and live names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HINTS = {
    "bash": "source <(meshctl completion bash)   # in ~/.bashrc",
    "zsh": "source <(meshctl completion zsh)    # in ~/.zshrc",
    "fish": "meshctl completion fish | source    # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(HINTS.values()))
@click.argument("shell", type=click.Choice(sorted(HINTS)))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    from meshlib_control.cli.main import cli

    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(cli, {}, "meshctl", "_MESHCTL_COMPLETE").source())
