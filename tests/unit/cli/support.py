"""A control service that answers what a test wrote down, and notes what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from click.testing import CliRunner, Result

from meshlib_control.cli.main import cli

Answer = object | Callable[[httpx.Request], httpx.Response]


class ScriptedService:
    """`answers` maps "METHOD /path" to a document, or to a function that makes the response."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.requests: list[httpx.Request] = []

    def run(self, *arguments: str, text: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        """Run meshctl against this service."""
        return CliRunner().invoke(cli, arguments, input=text, env=env, obj=httpx.MockTransport(self._respond))

    def body(self, index: int = -1) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.requests[index].content)
        return found

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(f"{request.method} {request.url.path}")
        if answer is None:
            return problem(404, "not served here")
        return answer(request) if callable(answer) else httpx.Response(200, json=answer)


def problem(status: int, what: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"what": what, "where": "", "why": "", "next": "", **more})


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)
