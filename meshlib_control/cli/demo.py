"""demo: Bookinfo under load, while traffic shifts between versions, an instance dies and the control service restarts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from meshlib_control.cli.failures import FAILED, USAGE, Failure

NEEDED = ("uvicorn", "gunicorn", "httpx", "starlette")


@click.command()
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=1.0),
    metavar="SECONDS",
    help="Play the story once, in about that time, and end; otherwise again and again until Ctrl-C.",
)
@click.option(
    "--json",
    "report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write what each step did and what the load saw.",
)
@click.option("--consul", is_flag=True, help="Keep configuration and catalog in a Consul agent, started for the demo.")
@click.option(
    "--rate",
    type=click.FloatRange(min=1.0),
    default=80.0,
    show_default=True,
    metavar="N",
    help="Pages that the load asks for a second.",
)
def demo(*, seconds: float | None, report: Path | None, consul: bool, rate: float) -> None:
    """Run four services under load and shift traffic between versions; nothing is left running.

    Every step shows the command that did it, to be repeated from another terminal.  Exit code 0 if no request failed and
    the traffic was split as configured.
    """
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise Failure(
            f"the demo needs packages that are not installed here ({', '.join(missing)})",
            next_step="they come with the extra `demo`; from a checkout of meshlib: pip install '.[demo]'",
            exit_code=USAGE,
        )
    from meshlib_control.demo.processes import DemoFailed
    from meshlib_control.demo.run import Options, run

    try:
        code = run(Options(seconds=seconds, report=report, consul=consul, rate=rate))
    except DemoFailed as failed:
        raise Failure("the demo cannot go on", why=str(failed), exit_code=FAILED) from failed
    click.get_current_context().exit(code)
