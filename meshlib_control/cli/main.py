"""The `meshctl` group: a table of commands that are imported only when they run, so that help and completion are quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from meshlib_control.cli.failures import INTERRUPTED, OK


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, and what the list of commands says of it."""

    section: str
    module: str
    summary: str
    attribute: str = ""


_CONFIG = "meshlib_control.cli.configure"
_CHECK = "meshlib_control.cli.check"
_LOOK = "meshlib_control.cli.look"

COMMANDS: dict[str, Entry] = {
    "serve": Entry("Run", "meshlib_control.cli.serve", "Run the control service"),
    "demo": Entry("Run", "meshlib_control.cli.demo", "Run four services under load and shift traffic between versions"),
    "apply": Entry("Configure", _CONFIG, "Create or change resources from files"),
    "get": Entry("Configure", _CONFIG, "Show stored resources"),
    "delete": Entry("Configure", _CONFIG, "Delete resources"),
    "diff": Entry("Configure", _CONFIG, "Show what apply would change, or what revisions changed"),
    "history": Entry("Configure", _CONFIG, "List revisions of the configuration"),
    "rollback": Entry("Configure", _CONFIG, "Return to an earlier revision"),
    "analyze": Entry("Check", _CHECK, "Find mistakes in configuration, alone or against what runs"),
    "compile": Entry("Check", _CHECK, "Print, offline, the xDS resources that a node would get", "compile_command"),
    "authz": Entry(
        "Check", "meshlib_control.cli.authz", "Say whether a request would be let in, and by which rule of which policy"
    ),
    "codes": Entry("Check", _CHECK, "Say what a finding's code means and what to do"),
    "status": Entry("Look", _LOOK, "Who is connected and has which configuration, and what is wrong"),
    "endpoints": Entry("Look", _LOOK, "List the instances of services"),
    "routes": Entry("Look", _LOOK, "List the routes that a client has"),
    "explain": Entry("Look", _LOOK, "Say which route and endpoints a request would take, and why"),
    "ca": Entry("Trust", "meshlib_control.cli.authority", "The certificate authority: roots, their rotation, bans"),
    "token": Entry("Trust", "meshlib_control.cli.authority", "Join tokens, which let a workload get its first certificate"),
    "completion": Entry("Other", "meshlib_control.cli.completion", "Print the completion script for a shell"),
}

EPILOG = """\b
Examples:
  meshctl serve                                        run the control service on loopback
  meshctl apply -f canary.yaml                         create or change what the file says
  meshctl status                                       who has which configuration
  meshctl explain GET http://reviews/ -H 'end-user: jason'

\b
Exit codes: 0 fine, 1 findings or failed, 2 usage, 3 control service unreachable, 4 conflict, 130 interrupted.
Environment: MESHCTL_SERVER, NO_COLOR, FORCE_COLOR.
"""


class LazyGroup(click.Group):
    """Lists `COMMANDS` without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if name != "demo" or find_spec(entry.module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        entry = COMMANDS[cmd_name]
        command = getattr(import_module(entry.module), entry.attribute or cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            sections.setdefault(COMMANDS[name].section, []).append((name, COMMANDS[name].summary))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows, col_max=14)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click has it, but with our exit codes: 130 after Ctrl-C."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as failure:
            failure.show()
            sys.exit(failure.exit_code)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else OK)


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"meshctl {version('meshlib-proxyless')}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version and exit."
)
def cli() -> None:
    """Operate a mesh: its control service, its configuration, and what its clients have of it."""
