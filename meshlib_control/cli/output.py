"""Where and how results are printed: data on stdout, talk on stderr, colour only where somebody sees it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_UNPRINTABLE = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def emit(
    form: str, value: object, *, human: Callable[[], RenderableType], names: Callable[[], Iterable[str]] | None = None
) -> None:
    """Print `value` as JSON or YAML, its `names` one a line, or what `human` makes of it."""
    if form == "json":
        click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml_text(plain(value)), nl=False)
    elif form == "name" and names is not None:
        for name in names():
            click.echo(harmless(name))
    else:
        show(human())


def harmless(text: str) -> str:
    """Without control characters: what clients say of themselves is shown, and must not steer an operator's terminal."""
    return text.translate(_UNPRINTABLE)


class _Harmless:
    """`harmless` for all that a part shows, whatever it is made of; its own styles are not text."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._part, options):
            yield segment._replace(text=harmless(segment.text))


def plain(value: object) -> object:
    """Structs as mappings."""
    import msgspec  # not for `meshctl --help`, which prints none

    return msgspec.to_builtins(value)


def yaml_text(*documents: object) -> str:
    """YAML as people write it: block style, keys in the order they came."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump_all(
        documents, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120
    )
    return text


def show(*parts: RenderableType, err: bool = False) -> None:
    """Print for people.  rich honours NO_COLOR, FORCE_COLOR and TERM=dumb."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    # Piped into something, a table must not be cut at a terminal's width that nobody has.
    console = Console(file=stream, width=None if stream.isatty() else 400, highlight=False, emoji=False, markup=False)
    with console.capture() as captured:
        for part in parts:
            console.print(_Harmless(part))
    # Tables are padded to their full width: nobody wants to see that in a file.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), err=err, color=True)


def say(text: str) -> None:
    """Talk: what happened, hints, warnings."""
    click.echo(harmless(text), err=True)
