"""One view of a request on every server: what is refused before any policy and why, and what the application is given else.

Raw bytes go in; out come the reason of a refusal, or path, query and headers as the application and policies have seen them,
which must be the same.  Rows are named by the ids of the attack cases.  Servers repair some requests by themselves, each in its
own way: `REPAIRED` says which, and what is left of them then.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import posixpath
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support import meshservers
from tests.support.meshservers import Server

APP = "tests.support.viewapps"


def commands() -> dict[str, Callable[[int], list[str]]]:
    def serving(command: Callable[[int], list[str]]) -> Callable[[int], list[str]]:
        return lambda port: [argument.replace(meshservers.APP, APP) for argument in command(port)]

    def mesh_protocol(port: int) -> list[str]:
        command = serving(meshservers.SERVERS["uvicorn httptools"])(port)
        return ["meshlib_integrations.uvicorn:MeshProtocol" if argument == "httptools" else argument for argument in command]

    names = "uvicorn h11", "uvicorn httptools", "hypercorn", "granian", "gunicorn asgi worker", "gunicorn sync", "werkzeug"
    return {**{name: serving(meshservers.SERVERS[name]) for name in names}, "uvicorn MeshProtocol": mesh_protocol}


COMMANDS = commands()
PARSED = ("uvicorn httptools", "uvicorn MeshProtocol", "granian")  # they cut scheme, host and fragment off a target
DROPS_UNDERSCORES = ("gunicorn asgi worker", "gunicorn sync", "werkzeug")


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with meshservers.running(COMMANDS[request.param], tmp_path_factory.mktemp("server")) as running:
        running.name = request.param
        yield running


@dataclass(frozen=True)
class View:
    """What the application is given.  `headers`: those of the row, as they are left."""

    path: str  # canonical, still encoded
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Expected = str | View
"""A view, or the reason of a refusal; several are separated by ``|``, and "server" is the server's own."""

HOST = b"host: a.test\r\n"


def request(
    target: bytes = b"/", headers: bytes = b"", *, method: bytes = b"GET", body: bytes = b"", host: bytes = HOST
) -> bytes:
    lines = b" HTTP/1.1\r\n" + host + headers + (b"" if b"onnection:" in headers else b"connection: close\r\n")
    return method + b" " + target + lines + b"\r\n" + body


FAILED = "path_normalization_failed|server"
BAD_FRAMING = "content_length_and_chunked_not_allowed|server"

ROWS: dict[str, tuple[bytes, Expected]] = {
    "plain": (request(b"/a/b?x=1&y"), View("/a/b", "x=1&y")),
    "P01 dot segments": (request(b"/public/../admin?q"), View("/admin", "q")),
    "P01 above the root": (request(b"/../../a"), View("/a")),
    "P02 encoded dots": (request(b"/public/%2e%2E/admin"), View("/admin")),
    "P02 half encoded": (request(b"/public/.%2e/admin"), View("/admin")),
    "P03 backslash": (request(rb"/public\..\admin"), View("/admin")),
    "P03 backslash alone": (request(rb"/a\b"), View("/a/b")),
    "P04 slashes": (request(b"/a//b"), View("/a//b")),
    "P04 slashes at the end": (request(b"/a//"), View("/a//")),
    "P05 escaped slash": (request(b"/a%2Fb"), View("/a%2Fb")),
    "P05 step behind it": (request(b"/public%2F..%2Fadmin"), "path_with_escaped_slashes"),
    "P05 step behind a backslash": (request(b"/public%5c..%5Cadmin"), "path_with_escaped_slashes"),
    "P06 double encoding": (request(b"/public%252F..%252Fadmin"), View("/public%252F..%252Fadmin")),
    "P06 dots": (request(b"/%252e%252e/admin"), View("/%252e%252e/admin")),
    "P06 broken escape": (request(b"/%%61dmin"), "invalid_percent_encoding|server"),
    "P06 escape cut short": (request(b"/a%2"), "invalid_percent_encoding|server"),
    "P06 broken in the query": (request(b"/a?b=%2F%zz%00"), View("/a", "b=%2F%zz%00")),
    "P07 fragment": (request(b"/admin#x"), FAILED),
    "P07 with a query": (request(b"/admin#?q"), FAILED),
    "P07 behind the query": (request(b"/admin?q#x"), FAILED),
    "P07 encoded": (request(b"/admin%23x"), View("/admin%23x")),
    "P08 empty query": (request(b"/admin?"), View("/admin")),
    "P08 query": (request(b"/admin?x=/public"), View("/admin", "x=/public")),
    "P08 encoded question mark": (request(b"/a%3Fb?c"), View("/a%3Fb", "c")),
    "P09 parameters of dots": (request(b"/user/..;foo=bar/admin"), "ambiguous_dot_segment"),
    "P09 one dot": (request(b"/x/.;a/admin"), "ambiguous_dot_segment"),
    "P09 encoded": (request(b"/x/%2e%2e%3b/admin"), "ambiguous_dot_segment"),
    "P10 matrix parameters": (request(b"/admin;x=y/action;foo=bar"), View("/admin;x=y/action;foo=bar")),
    "P11 star": (request(b"/admin/a*b"), View("/admin/a*b")),
    "P12 host in the path": (request(b"//evil.test/admin"), View("//evil.test/admin")),
    "P16 encoded NUL": (request(b"/admin%00"), FAILED),
    "P16 encoded line feed": (request(b"/adm%0ain"), FAILED),
    "P16 raw NUL": (request(b"/a\0b"), "path_normalization_failed|server"),
    "P16 raw UTF-8": (request("/é".encode()), "path_normalization_failed|server"),
    "P16 UTF-8": (request(b"/caf%C3%A9"), View("/caf%C3%A9")),
    "P16 overlong UTF-8": (request(b"/%c0%ae%c0%ae/admin"), View("/%c0%ae%c0%ae/admin")),
    "P17 no slash": (request(b"admin"), FAILED),
    "P17 user info": (request(b"@evil/admin"), FAILED),
    "P18 absolute": (request(b"http://a.test/x/../y?q"), View("/y", "q")),
    "P18 absolute without a path": (request(b"http://A.test"), View("/")),
    "P18 another host": (request(b"http://evil.test/admin"), "authority_mismatch"),
    "P19 asterisk": (request(b"*", method=b"OPTIONS"), View("*")),
    "P19 asterisk, another method": (request(b"*"), FAILED),
    "P19 connect": (request(b"a:443", method=b"CONNECT"), "connect_not_supported|server"),
    "unreserved": (request(b"/%41%2d%7e"), View("/A-~")),
    "reserved": (request(b"/a%20b%3a%40/c:@"), View("/a%20b%3a%40/c:@")),
    "raw oddities": (request(rb'/a|b^c`d'), View("/a%7Cb%5Ec%60d")),
    "H02 port": (request(host=b"host: A.TEST.:80\r\n"), View("/")),
    "H05 two hosts": (request(headers=b"host: secret\r\n"), "duplicate_host_header|invalid_authority|server"),
    "H05 the same twice": (request(headers=HOST), "duplicate_host_header|invalid_authority|server"),
    "H06 path in the host": (request(host=b"host: a/?x=\r\n"), "invalid_authority"),
    "H06 user in the host": (request(host=b"host: u@a\r\n"), "invalid_authority"),
    "H06 empty host": (request(host=b"host:\r\n"), "invalid_authority|server"),
    "H07 no host": (request(host=b"x-forwarded-host: allowed\r\n"), "missing_host_header|invalid_authority|server"),
    "H08 repeated": (request(headers=b"x-role: user\r\nX-Role: admin\r\n"), View("/", "", (("x-role", "user,admin"),))),
    "H12 NUL in a value": (request(headers=b"x-foo: some_special\0\r\n"), "invalid_characters|server"),
    "H13 white space": (request(headers=b"x-role: \t admin \t\r\n"), View("/", "", (("x-role", "admin"),))),
    "H14 underscore": (request(headers=b"X_Role: admin\r\n"), "underscore_in_header_name"),
    "H14 both": (request(headers=b"x-role: user\r\nX_Role: admin\r\n"), "underscore_in_header_name"),
    "H16 nominated": (request(headers=b"x-role: admin\r\nconnection: close, X-Role\r\n"), View("/")),
    "H16 our prefix": (request(headers=b"x-mesh-principal: root\r\n"), View("/")),
    "H16 framing nominated": (request(headers=b"connection: close, host\r\n"), "invalid_connection_header"),
    "H17 client certificate": (request(headers=b"X-Forwarded-Client-Cert: URI=spiffe://td/x\r\n"), View("/")),
    "H18 internal": (request(headers=b"x-envoy-internal: true\r\nx-envoy-external-address: 1.2.3.4\r\n"), View("/")),
    "H19 original path": (request(b"/admin", b"x-envoy-original-path: /public\r\n"), View("/admin")),
    "obs-text": (request(headers=b"x-a: \xff\r\n"), View("/", "", (("x-a", "\xff"),))),
    "lower-case method": (request(method=b"get"), "invalid_method|server"),
    "HTTP/1.0 without a host": (b"GET / HTTP/1.0\r\n\r\n", "missing_host_header|invalid_authority|server"),
    "H24 length and chunks": (
        request(method=b"POST", headers=b"content-length: 4\r\ntransfer-encoding: chunked\r\n", body=b"0\r\n\r\n"),
        BAD_FRAMING,
    ),
    "H24 two lengths": (
        request(method=b"POST", headers=b"content-length: 1\r\ncontent-length: 2\r\n", body=b"ab"),
        "contradicting_content_length|server",
    ),
    "H24 signed length": (
        request(method=b"POST", headers=b"content-length: +1\r\n", body=b"a"),
        "invalid_content_length|server",
    ),
    "H24 unknown coding": (
        request(method=b"POST", headers=b"transfer-encoding: xchunked\r\n", body=b"0\r\n\r\n"),
        "invalid_transfer_encoding|server",
    ),
    "H24 space before the colon": (request(headers=b"x-a : 1\r\n"), "invalid_header_name|server"),
    "L01 headers": (request(headers=b"".join(b"x-%d: 1\r\n" % number for number in range(100))), "too_many_headers|server"),
    "L01 bytes": (request(headers=b"x-a: " + b"a" * 62_000 + b"\r\n"), "headers_too_large|server"),
}  # fmt: skip

REPAIRED: dict[str, dict[tuple[str, ...], Expected]] = {
    "P18 absolute without a path": {("uvicorn httptools", "uvicorn MeshProtocol"): "server"},
    # Their parsers cut off what is no path before anybody can see it: there is one reading left, for everybody.
    "P07 fragment": {PARSED: View("/admin")},
    "P07 with a query": {PARSED: View("/admin")},
    "P07 behind the query": {PARSED: View("/admin", "q")},
    "P18 another host": {PARSED: View("/admin"), ("werkzeug",): View("/admin")},  # werkzeug makes it the Host header
    # urlsplit() in werkzeug's server takes the host out of it, and puts it back with one slash.
    "P12 host in the path": {("werkzeug",): View("/evil.test/admin")},
    "raw oddities": {("granian",): "server"},
    "H14 underscore": {DROPS_UNDERSCORES: View("/")},
    "H14 both": {DROPS_UNDERSCORES: View("/", "", (("x-role", "user"),))},
    "lower-case method": {("hypercorn",): View("/")},  # upper-cased
    "H24 length and chunks": {("granian",): View("/")},  # the length is dropped, as RFC 9112 section 6.3 allows
    "H24 two lengths": {("werkzeug",): View("/")},  # WSGI has room for one, and it keeps the last
    "H24 space before the colon": {("werkzeug",): View("/")},  # the line is dropped
}


def expected(row: str, server: str) -> Expected:
    for names, instead in REPAIRED.get(row, {}).items():
        if server in names:
            return instead
    return ROWS[row][1]


def talk(port: int, sent: bytes, *, patience: float = 20.0) -> bytes:
    """All that the server says, to the end of the connection or of our patience."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), patience) as connected, contextlib.suppress(OSError):
        connected.sendall(sent)
        while data := connected.recv(65536):
            received += data
    return received


def parsed(answer: bytes) -> tuple[int, str, dict[str, Any]]:
    """Status, the reason of a refusal, and what was seen if it was none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    status = int(lines[0].split()[1])
    seen = body[body.find(b"{") : body.rfind(b"}") + 1] if status == 200 else b"{}"
    return status, headers.get("x-reason", "server"), json.loads(seen)


def own_headers(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """The headers of the row that have arrived; repeated ones in one line, as WSGI has them."""
    found: dict[str, list[str]] = {}
    for name, value in seen["headers"]:
        if name.startswith("x-"):
            found.setdefault(name, []).append(value)
    return [(name, ",".join(values)) for name, values in found.items()]


@pytest.mark.parametrize("row", ROWS)
def test_view(server: Server, row: str) -> None:
    sent, wanted = ROWS[row][0], expected(row, server.name)
    status, reason, seen = parsed(talk(server.port, sent))
    if isinstance(wanted, str):
        assert 400 <= status < 500 or (status == 501 and reason == "server")
        assert reason in wanted.split("|")
        return
    assert status == 200, reason
    assert seen["policy"] == wanted.path
    assert seen["path"] == unquote(wanted.path)
    assert seen["raw"] == wanted.path
    assert seen["query"] == wanted.query
    assert own_headers(seen) == list(wanted.headers)


def test_H25_what_follows_a_refused_upgrade_is_not_served_behind_it(server: Server) -> None:
    """The second request is its own: it is refused by policy, or never answered."""
    websocket = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    upgrade = request(b"/x%00", b"connection: upgrade\r\nupgrade: websocket\r\n" + websocket)
    answer = talk(server.port, upgrade + request(b"/admin", b"x-shape: deny\r\n"), patience=2.0)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"200 OK" not in answer
    assert b'"path"' not in answer


@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "later"])
def test_H26_trailers_are_no_headers(server: Server, apart: bool) -> None:
    head = request(method=b"POST", headers=b"transfer-encoding: chunked\r\n")
    rest = b"1\r\na\r\n0\r\nx-role: admin\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 20) as connected:
        received = b""
        connected.sendall(head if apart else head + rest)
        if apart:
            with contextlib.suppress(TimeoutError):
                connected.settimeout(0.3)  # the application is asked meanwhile
                received = connected.recv(65536)  # WSGI has no length to read, and answers
            connected.settimeout(20)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connected.sendall(rest)
        received = one_response(connected, received)
    _, _, seen = parsed(received)
    trailers = [name for name, _ in seen["headers"] if name == "x-role"]
    if server.name == "uvicorn httptools" and not apart:
        return  # its parser has put them among the headers before anybody is asked: policies see them, too
    assert trailers == []


# --- traversal

STEPS = [b"..", b"%2e%2e", b".%2E", b"..;", b"..;x=1", b"..%3b", b"%252e%252e", b"%c0%ae%c0%ae", b"..%00", b".", b"...", b""]
SEPARATORS = [b"/", b"%2f", b"%2F", b"%5c", b"\\", b"//", b"%252f", b"/./", b"/;/"]
STARTS = [b"/", b"/public/", b"/public/a/", b"/x/", b"//", b"/public;/", b"/public%2f", b"/public"]
ENDS = [
    b"admin",
    b"%61dmin",
    b"admin/",
    b"admin//",
    b"admin/x",
    b"admin%2fx",
    b"admin;a",
    b"admin?b",
    b"admin%3f",
    b"adm%69n%2F",
]
SHAPES = ["deny", "not", "allow"]


def vectors(count: int) -> list[bytes]:
    every = [
        start + (step + separator) * times + end
        for start, step, separator, end, times in itertools.product(STARTS, STEPS, SEPARATORS, ENDS, (1, 2))
    ]
    return random.Random(1).sample(every, count)


def resolved(path: str) -> str:
    """Where a reader ends who takes every step that he can see: backslashes, runs of slashes, dots."""
    return posixpath.normpath("/" + path.replace("\\", "/").lstrip("/"))


def ask_all(port: int, requests: Sequence[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """One after the other, over one connection as long as the server keeps it."""
    connected: socket.socket | None = None
    for sent in requests:
        received = b""
        while not received:
            if connected is None:
                connected = socket.create_connection(("127.0.0.1", port), 20)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connected.sendall(sent)
                received = one_response(connected)
            if not received:
                connected.close()
                connected = None
        yield parsed(received)[::2]
        if connected is not None and b"connection: close" in received.lower():
            connected.close()
            connected = None
    if connected is not None:
        connected.close()


def one_response(connected: socket.socket, received: bytes = b"") -> bytes:
    """To the end of the next response; `received`: what has been read of it already."""
    while b"\r\n\r\n" not in received:
        data = connected.recv(65536)
        if not data:
            return received
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while (len(body) < lengths[0]) if lengths else True:
        data = connected.recv(65536)
        if not data:
            break
        body += data
    return head + b"\r\n\r\n" + body


@pytest.mark.parametrize("shape", SHAPES)
def test_no_way_around_a_policy(server: Server, shape: str) -> None:
    """Whatever the application is given, no reader of it ends where the policy says nobody goes."""
    header = b"x-shape: " + shape.encode() + b"\r\nconnection: keep-alive\r\n"
    targets = [b"/public/x", b"/admin", *vectors(200)]
    answers = list(ask_all(server.port, [request(target, header) for target in targets]))
    assert [status for status, _ in answers[:2]] == [200, 403]  # the control
    leaks = [
        (target, seen["path"])
        for target, (status, seen) in zip(targets, answers, strict=True)
        if status == 200 and (resolved(seen["path"]) + "/").startswith("/admin/")
    ]
    assert leaks == []
    assert sum(status == 403 for status, _ in answers) > 10
