"""authz check: would this request be let in?  Asked of a running mesh, or of files."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from meshlib_control.admin import views
from meshlib_control.cli import offline, options, output, render_authz
from meshlib_control.cli.failures import FAILED, OK, USAGE, Failure
from meshlib_control.cli.names import complete_service
from meshlib_control.cli.session import Session

_SCHEME = "spiffe://"

Texts = list[tuple[str, str]]


@click.group()
def authz() -> None:
    """Authorization: who may send which requests."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What the options say."""

    service: str
    namespace: str | None
    source: str
    source_address: str
    server_name: str
    headers: tuple[str, ...]
    claims: str
    token: str
    labels: tuple[str, ...]

    def request(self, method: str, path: str) -> views.AuthorizeRequest:
        """Raises `Failure` for what cannot be meant."""
        service, port = _split(self.service)
        source = _identity(self.source)
        headers = [_header(text) for text in self.headers]
        if self.token:
            headers.append(("authorization", f"Bearer {self.token}"))
        return views.AuthorizeRequest(
            service=service,
            port=port,
            namespace=self.namespace or _namespace(source) or "default",
            method=method.upper(),
            path=path,
            headers=headers,
            source=source,
            source_address=_address(self.source_address),
            server_name=self.server_name,
            claims=_claims(self.claims),
            labels=dict(_label(text) for text in self.labels) if self.labels else None,
        )


@authz.command()
@click.argument("method")
@click.argument("path")
@click.option(
    "--to", "service", required=True, metavar="SERVICE[:PORT]", shell_complete=complete_service, help="The service called."
)
@click.option("--from", "source", default="", metavar="SPIFFE-ID", help="The caller; without it, plaintext that proves nobody.")
@click.option("--from-ip", "source_address", default="", metavar="ADDRESS", help="The caller's address.")
@click.option("--sni", "server_name", default="", metavar="NAME", help="The server name that its TLS connection asks for.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; may be repeated.")
@click.option("--claims", default="", metavar="JSON", help="Claims of its token, taken for verified.")
@click.option("--jwt", "token", default="", metavar="TOKEN", help="Its token, verified with the keys that the workload has.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of the workload, instead of its own.")
@options.namespace("Namespace of a short SERVICE: the caller's unless given.", default=None)
@options.files(required=False, text="Judge these files instead of a running mesh.")
@options.session("table", "json", "yaml")
def check(method: str, path: str, *, texts: Texts, session: Session, **given: Any) -> None:
    """Say whether a request would be let in, by which rule of which policy, and why the others do not match.

    Exit code 0: allowed; 1: denied, or an external authorizer has to be asked; 2: not a question.

    \b
    Examples:
      meshctl authz check --from spiffe://cluster.local/ns/shop/sa/web --to reviews GET /reviews/7
      meshctl authz check --to reviews.shop GET / --from-ip 10.0.0.7 -H 'x-role: admin'
      meshctl authz check -f policies.yaml --label app=reviews --to reviews.shop GET / --claims '{"iss": "a", "sub": "b"}'
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    request = _Question(**given).request(method, path)
    certain = bool(given["namespace"])
    found = (
        _offline(texts, request, certain=certain)
        if texts
        else session.client.post("/v1/authorize", request, views.AuthorizationView)
    )
    session.emit(found, human=lambda: render_authz.authorization(f"{request.method} {path}", request, found))
    click.get_current_context().exit(OK if found.outcome == "allowed" else FAILED)


def _offline(texts: Texts, request: views.AuthorizeRequest, *, certain: bool) -> views.AuthorizationView:
    analyzed = offline.analyzed(texts, request.namespace)
    if analyzed.is_refused:
        from meshlib_control.cli import render

        output.show(render.findings(analyzed.findings), err=True)
        raise Failure("the configuration has errors", why=render.summary(analyzed.findings), exit_code=USAGE)
    return offline.authorized(analyzed.config, request, certain=certain)


def _split(text: str) -> tuple[str, int]:
    name, colon, port = text.rpartition(":")
    if not colon:
        return text, 0
    if not name or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise Failure(f"{text!r} is not a service", why="expected SERVICE or SERVICE:PORT", exit_code=USAGE)
    return name, int(port)


def _identity(text: str) -> str:
    """With the scheme, also when it was written as policies write it."""
    return text if not text or text.startswith(_SCHEME) else f"{_SCHEME}{text}"


def _namespace(source: str) -> str:
    parts = source.split("/")
    return parts[4] if len(parts) == 7 and parts[3] == "ns" else ""


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as error:
        raise Failure(f"--from-ip {text!r} is not an IP address", exit_code=USAGE) from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Failure(f"{text!r} is not a header", why="expected 'NAME: VALUE'", exit_code=USAGE)
    return name.strip(), value.strip()


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Failure(f"{text!r} is not a label", why="expected NAME=VALUE", exit_code=USAGE)
    return name, value


def _claims(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Failure("--claims is not a JSON object", why=str(error), exit_code=USAGE) from error
