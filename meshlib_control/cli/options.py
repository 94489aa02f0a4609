"""Options that mean the same in every command that has them, handed to it as one value each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from meshlib_control.cli.inputs import read_inputs
from meshlib_control.cli.names import complete_namespace, complete_service
from meshlib_control.cli.session import Session
from meshlib_control.settings import DEFAULT_ADMIN

if TYPE_CHECKING:
    from meshlib_control.admin.views import NodeView

F = TypeVar("F", bound=Callable[..., Any])
Flavour = Literal["meshlib", "envoy", "grpc"]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Write:
    """How a change is to be made: only if `expect` is still the head, with `message` for the history.

    `force`: even if what refers to the changed resources becomes invalid.
    """

    expect: int | None
    message: str
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """The client in whose place a question is asked: what it gets depends on its namespace, labels, locality and flavour."""

    service: str
    namespace: str
    labels: tuple[tuple[str, str], ...]
    locality: str
    flavour: Flavour

    def node(self) -> NodeView:
        from meshlib_control.admin.views import NodeView

        return NodeView(
            flavour=self.flavour,
            service=self.service,
            namespace=self.namespace,
            labels=dict(self.labels),
            locality=self.locality,
        )


def session(*forms: str) -> Decorator:
    """`--server`, `--timeout` and `-o` (the first form is the default): passed on as `session`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, server: str, timeout: float, form: str, **values: Any) -> Any:
            with Session(server=server, timeout=timeout, form=form) as opened:
                return command(*args, session=opened, **values)

        return _server(output(*forms)(run))

    return decorate


def _server(command: F) -> F:
    command = click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait.",
    )(command)
    return click.option(
        "--server",
        envvar="MESHCTL_SERVER",
        show_envvar=True,
        default=DEFAULT_ADMIN,
        show_default=True,
        metavar="URL",
        help="Admin address of the control service.",
    )(command)


def output(*forms: str) -> Callable[[F], F]:
    """`-o` alone, for commands that never connect: passed on as `form`."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="How to print the result."
    )


def files(*, required: bool = True, text: str = "A YAML or JSON file, a folder of them, or - for standard input.") -> Decorator:
    """`-f` any number of times, and `-R`: read, and passed on as `texts`, a list of (name, text)."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, paths: tuple[Path, ...], recursive: bool, **values: Any) -> Any:
            return command(*args, texts=read_inputs(paths, recursive=recursive), **values)

        with_folders = click.option("-R", "--recursive", is_flag=True, help="Read folders below folders too.")(run)
        return click.option(
            "-f",
            "--file",
            "paths",
            multiple=True,
            required=required,
            type=click.Path(exists=True, allow_dash=True, path_type=Path),
            metavar="FILE",
            help=f"{text}  May be repeated.",
        )(with_folders)

    return decorate


def write(*, dry_run: bool = True, force: bool = False) -> Decorator:
    """`--expect`, `-m` and, if asked for, `--dry-run` and `--force`: passed on as `write`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, expect: int | None, message: str, **values: Any) -> Any:
            flags = {name: values.pop(name, False) for name in ("dry_run", "force")}
            chosen = Write(expect, message, **flags)
            return command(*args, write=chosen, **values)

        run = click.option("-m", "--message", default="", metavar="TEXT", help="Why, for the history.")(run)
        run = click.option(
            "--expect",
            type=click.IntRange(min=0),
            metavar="REVISION",
            help="Fail with exit code 4 unless this is still the newest revision.",
        )(run)
        if force:
            run = click.option("--force", is_flag=True, help="Delete even if what refers to it becomes invalid.")(run)
        if dry_run:
            run = click.option("--dry-run", is_flag=True, help="Check and show what would change; store nothing.")(run)
        return run

    return decorate


def caller(*, flavour: bool) -> Decorator:
    """`--from`, `-n`, `--label`, `--locality` and, if asked for, `--flavour`: passed on as `caller`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, source: str, namespace: str, labels: tuple[str, ...], locality: str, **values: Any) -> Any:
            pairs = tuple(_label(text) for text in labels)
            asking = Caller(source, namespace, pairs, locality, values.pop("flavour", "meshlib"))
            return command(*args, caller=asking, **values)

        if flavour:
            run = click.option(
                "--flavour",
                type=click.Choice(["meshlib", "envoy", "grpc"]),
                default="meshlib",
                show_default=True,
                help="Kind of data plane that calls.",
            )(run)
        run = click.option(
            "--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of the caller; may be repeated."
        )(run)
        run = click.option(
            "--locality", default="", metavar="REGION/ZONE/SUBZONE", help="Where the caller is; endpoints may be ordered by it."
        )(run)
        run = namespace("Namespace of the caller.")(run)
        return click.option(
            "--from", "source", default="", metavar="SERVICE", shell_complete=complete_service, help="The service that calls."
        )(run)

    return decorate


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r}: expected NAME=VALUE", param_hint="--label")
    return name, value


def namespace(text: str = "Namespace of names that carry none.", default: str | None = "default") -> Callable[[F], F]:
    """`-n`: passed on as `namespace`."""
    return click.option(
        "-n",
        "--namespace",
        default=default,
        show_default=default is not None,
        metavar="NAME",
        shell_complete=complete_namespace,
        help=text,
    )
