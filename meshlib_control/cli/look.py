"""status, endpoints, routes, explain: what the control service knows and what its clients have."""

from __future__ import annotations

import click

from meshlib_control.admin import views
from meshlib_control.cli import options, render, render_endpoints
from meshlib_control.cli.failures import FAILED, OK, USAGE, Failure
from meshlib_control.cli.names import complete_service
from meshlib_control.cli.options import Caller
from meshlib_control.cli.session import Session


@click.command()
@click.option("--check", is_flag=True, help="Exit with code 1 if there are problems.")
@options.session("table", "json", "yaml", "name")
def status(*, check: bool, session: Session) -> None:
    """Who is connected and has which configuration, and what is wrong.

    \b
    SYNCED    has confirmed the newest version that was sent
    STALE     was sent a newer version and has not confirmed it yet
    NACK      refused the newest version and keeps the one before; its words are under "Problems"
    NOT SENT  never asked for any
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    document = session.client.get("/v1/status", views.Status)
    session.emit(
        document,
        human=lambda: render.status(document, now=render.utc_now()),
        names=lambda: [client.id for client in document.clients],
    )
    click.get_current_context().exit(FAILED if check and document.problems else OK)


@click.command()
@click.argument("service", required=False, shell_complete=complete_service)
@options.namespace()
@options.session("table", "json", "yaml", "name")
def endpoints(service: str | None, *, namespace: str, session: Session) -> None:
    """List the instances of all services, or of SERVICE (a short name or a whole host name).

    \b
    HEALTH    what the catalog says
    STATE     what callers have found out: "ejected by 2 of 5: consecutive_5xx"; empty: nothing bad

    Below are the circuit breakers, budgets and rate limits that callers have something to tell of.
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    found = session.client.get("/v1/endpoints", views.Endpoints, service=service, namespace=namespace)
    session.emit(
        found,
        human=lambda: render_endpoints.endpoints(found),
        names=lambda: [render.authority(endpoint) for endpoint in found.endpoints],
    )


@click.command()
@click.argument("service", required=False, shell_complete=complete_service)
@options.caller(flavour=True)
@options.session("table", "json", "yaml")
def routes(service: str | None, *, caller: Caller, session: Session) -> None:
    """List the routes that a client has, in the order in which they are tried."""
    query = views.RoutesRequest(service=service or "", node=caller.node())
    found = session.client.post("/v1/routes", query, views.Routes)
    session.emit(found, human=lambda: render.routes(found))


@click.command()
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request; may be repeated."
)
@options.caller(flavour=False)
@options.session("table", "json", "yaml")
def explain(method: str, url: str, *, headers: tuple[str, ...], caller: Caller, session: Session) -> None:
    """Say which route and endpoints a request would take, and why the others do not match.

    \b
    Examples:
      meshctl explain GET http://reviews/api/reviews/7
      meshctl explain GET http://reviews/ -H 'end-user: jason' --from productpage
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if not url.startswith(("http://", "https://")):
        raise Failure(f"{url!r} is not an HTTP URL", next_step=f"meshctl explain {method} http://{url}", exit_code=USAGE)
    query = views.ExplainRequest(
        method=method.upper(), url=url, headers=[_header(text) for text in headers], node=caller.node()
    )
    trace = session.client.post("/v1/explain", query, views.ExplanationView)
    session.emit(trace, human=lambda: render.explanation(f"{query.method} {url}", trace))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Failure(f"{text!r} is not a header", why="expected 'NAME: VALUE'", exit_code=USAGE)
    return name.strip(), value.strip()
