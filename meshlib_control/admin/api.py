"""The REST API: routes to the editor and the viewer, and every failure as a problem document."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from meshlib_control.admin import views
from meshlib_control.admin.editing import Editor
from meshlib_control.admin.guard import BrowserGuard
from meshlib_control.admin.metrics import Family, exposition
from meshlib_control.admin.problems import NO_STORE, Problem
from meshlib_control.admin.requests import answer, body, files, flag, number
from meshlib_control.admin.viewing import Viewer
from meshlib_control.errors import Conflict, ControlServiceError, StoreError

log = logging.getLogger(__name__)

HISTORY_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the running service says of itself.  `not_ready`: why clients would not be served yet; empty when they are."""

    status: Callable[[], views.Status]
    metrics: Callable[[], Iterable[Family]]
    not_ready: Callable[[], str]


def build_app(
    editor: Editor,
    viewer: Viewer,
    vitals: Vitals,
    *,
    more: Sequence[Route] = (),
    allowed_hosts: frozenset[str] = frozenset(),
) -> ASGIApp:
    """The ASGI application, guarded against web pages.  `more`: routes of the parts that not every service has."""
    app = Starlette(
        routes=[*_config_routes(editor), *_revision_routes(editor), *_view_routes(viewer), *_vital_routes(vitals), *more],
        exception_handlers={
            Problem: _problem,
            Conflict: _conflict,
            StoreError: _store_error,
            ControlServiceError: _store_error,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    return BrowserGuard(app, allowed_hosts)


def _config_routes(editor: Editor) -> list[Route]:
    async def listing(request: Request) -> Response:
        query = request.query_params
        return answer(await editor.listing(kind=query.get("kind"), namespace=query.get("namespace")))

    async def item(request: Request) -> Response:
        return answer(await editor.item(_key(request)))

    async def apply(request: Request) -> Response:
        sent = await files(request)
        return answer(await editor.apply(sent, dry_run=flag(request, "dry_run"), expect=number(request, "expect")))

    async def delete(request: Request) -> Response:
        one = views.DeleteRequest(
            resources=[_key(request)], message=request.query_params.get("message", ""), force=flag(request, "force")
        )
        return answer(await editor.delete(one, dry_run=flag(request, "dry_run"), expect=number(request, "expect")))

    async def delete_many(request: Request) -> Response:
        several = await body(request, views.DeleteRequest)
        return answer(await editor.delete(several, dry_run=flag(request, "dry_run"), expect=number(request, "expect")))

    async def analyze(request: Request) -> Response:
        return answer(await editor.analyze(await files(request)))

    one = "/v1/config/{kind}/{namespace}/{name}"
    return [
        Route("/v1/config", listing, methods=["GET"]),
        Route("/v1/config", apply, methods=["POST"]),
        Route("/v1/config/delete", delete_many, methods=["POST"]),
        Route(one, item, methods=["GET"]),
        Route(one, delete, methods=["DELETE"]),
        Route("/v1/analyze", analyze, methods=["POST"]),
    ]


def _revision_routes(editor: Editor) -> list[Route]:
    async def revisions(request: Request) -> Response:
        return answer(await editor.history(number(request, "limit", default=HISTORY_LIMIT) or HISTORY_LIMIT))

    async def difference(request: Request) -> Response:
        since = number(request, "since", default=0) or 0
        return answer(await editor.difference(since, number(request, "to")))

    async def compare(request: Request) -> Response:
        return answer(await editor.compare(await files(request)))

    async def rollback(request: Request) -> Response:
        wanted = await body(request, views.RollbackRequest)
        return answer(await editor.rollback(wanted, dry_run=flag(request, "dry_run"), expect=number(request, "expect")))

    return [
        Route("/v1/revisions", revisions, methods=["GET"]),
        Route("/v1/diff", difference, methods=["GET"]),
        Route("/v1/diff", compare, methods=["POST"]),
        Route("/v1/rollback", rollback, methods=["POST"]),
    ]


def _view_routes(viewer: Viewer) -> list[Route]:
    async def services(_request: Request) -> Response:
        return answer(viewer.services())

    async def endpoints(request: Request) -> Response:
        query = request.query_params
        return answer(viewer.endpoints(query.get("service", ""), query.get("namespace", "default")))

    async def routes(request: Request) -> Response:
        return answer(viewer.routes(await body(request, views.RoutesRequest)))

    async def compiled(request: Request) -> Response:
        return answer(viewer.compiled((await body(request, views.CompileRequest)).node))

    async def explain(request: Request) -> Response:
        return answer(viewer.explain(await body(request, views.ExplainRequest)))

    async def authorize(request: Request) -> Response:
        return answer(viewer.authorize(await body(request, views.AuthorizeRequest)))

    return [
        Route("/v1/services", services, methods=["GET"]),
        Route("/v1/endpoints", endpoints, methods=["GET"]),
        Route("/v1/routes", routes, methods=["POST"]),
        Route("/v1/compile", compiled, methods=["POST"]),
        Route("/v1/explain", explain, methods=["POST"]),
        Route("/v1/authorize", authorize, methods=["POST"]),
    ]


def _vital_routes(vitals: Vitals) -> list[Route]:
    async def status(_request: Request) -> Response:
        return answer(vitals.status())

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=NO_STORE)

    async def readyz(_request: Request) -> Response:
        reason = vitals.not_ready()
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200, headers=NO_STORE)

    async def metrics(_request: Request) -> Response:
        return Response(exposition(vitals.metrics()), media_type="text/plain; version=0.0.4; charset=utf-8", headers=NO_STORE)

    return [
        Route("/v1/status", status, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


def _key(request: Request) -> str:
    parameters = request.path_params
    return f"{parameters['kind']}/{parameters['namespace']}/{parameters['name']}"


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _conflict(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Conflict)
    problem = Problem(
        409,
        f"the configuration is at revision {error.found}, not {error.expected}",
        where=error.key,
        why="somebody else changed it in between",
        next_step="Look at `meshctl diff`, then apply again.",
    )
    return problem.including(expected=error.expected, found=error.found).response()


async def _store_error(_request: Request, error: Exception) -> Response:
    return Problem(
        503,
        "the store cannot be used now",
        where="--store of the control service",
        why=str(error),
        next_step="Clients keep what they have; try again when the store is back, see `meshctl status`.",
    ).response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(
        error.status_code,
        f"{request.method} {request.url.path} is not served here",
        why=str(error.detail),
        next_step="See docs/configuration.md for the paths of the API.",
    )
    response = problem.response()
    response.headers.update(error.headers or {})
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem(
        500,
        "the control service failed on this request",
        why=f"a defect: {type(error).__name__}",
        next_step="Its log has the details; nothing was stored.",
    ).response()
