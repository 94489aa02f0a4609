"""The REST API as meshctl calls it: typed answers, and failures that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from meshlib_control.admin import views
from meshlib_control.cli.failures import CONFLICT, FAILED, UNREACHABLE, USAGE, Failure

T = TypeVar("T")
Parameters = Mapping[str, str | int | bool | None]


class Refused(Failure):
    """The control service said no.  `document` is its whole answer."""

    def __init__(self, document: Mapping[str, Any], *, exit_code: int) -> None:
        where = document.get("where")
        super().__init__(
            str(document.get("what", "refused")) + (f" ({where})" if where else ""),
            why=str(document.get("why", "")),
            next_step=str(document.get("next", "")),
            exit_code=exit_code,
        )
        self.document = document

    @property
    def findings(self) -> list[views.FindingView]:
        """What is wrong with the configuration that was sent, if that is why."""
        return msgspec.convert(self.document.get("findings", []), list[views.FindingView])


class ControlClient:
    """One command's connection to the control service.  Use as a context manager, or `close` it."""

    def __init__(
        self, server: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None, token: str = ""
    ) -> None:
        """`token` is only sent where nobody can read it on the way: to this machine, or over TLS."""
        self.server = server.rstrip("/")
        try:
            url = httpx.URL(self.server)
        except httpx.InvalidURL as error:
            raise _bad_server(server, str(error)) from error
        if url.scheme not in ("http", "https") or not url.host:
            raise _bad_server(server, "expected http://HOST:PORT")
        # Proxies of the environment are for the world outside, never for this machine.
        loopback = url.host in ("localhost", "127.0.0.1", "::1")
        headers = {"Authorization": f"Bearer {token}"} if token and (loopback or url.scheme == "https") else {}
        self._http = httpx.Client(base_url=url, timeout=timeout, transport=transport, trust_env=not loopback, headers=headers)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, answer: type[T], **parameters: str | int | bool | None) -> T:
        return self._call("GET", path, answer, parameters=parameters)

    def post(self, path: str, body: object, answer: type[T], **parameters: str | int | bool | None) -> T:
        return self._call("POST", path, answer, content=msgspec.json.encode(body), parameters=parameters)

    def delete(self, path: str, answer: type[T], **parameters: str | int | bool | None) -> T:
        return self._call("DELETE", path, answer, parameters=parameters)

    def _call(
        self, method: str, path: str, answer: type[T], *, content: bytes | None = None, parameters: Parameters | None = None
    ) -> T:
        query = {name: _text(value) for name, value in (parameters or {}).items() if value is not None}
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self._http.request(method, path, content=content, params=query, headers=headers)
        except httpx.TimeoutException as error:
            raise self._unreachable("no answer in time") from error
        except httpx.TransportError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        if not response.is_success:
            raise self._refused(response)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise self._unreachable(f"what answers there is not a control service of this version ({error})") from error

    def _unreachable(self, why: str) -> Failure:
        return Failure(
            f"cannot reach the control service at {self.server}",
            why=why,
            next_step="start one with `meshctl serve`, or name another with --server URL or MESHCTL_SERVER",
            exit_code=UNREACHABLE,
        )

    def _refused(self, response: httpx.Response) -> Failure:
        try:
            document = msgspec.json.decode(response.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            return self._unreachable(f"HTTP {response.status_code}, which is not an answer of a control service")
        if response.status_code == 409:
            return Refused(document, exit_code=CONFLICT)
        return Refused(document, exit_code=UNREACHABLE if response.status_code in (401, 403, 502, 503, 504) else FAILED)


def segment(text: str) -> str:
    """One path segment, quoted."""
    return quote(text, safe="")


def _text(value: str | int | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bad_server(server: str, why: str) -> Failure:
    return Failure(
        f"--server {server!r} is not a URL", why=why, next_step="for example --server http://127.0.0.1:15014", exit_code=USAGE
    )
