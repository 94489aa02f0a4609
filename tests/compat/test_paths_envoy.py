"""Paths are Envoy's: the same ones through a real Envoy in each of Istio's modes, byte for byte, and by routes.

Fragments: Istio's proxies strip them (they turn ``http_reject_path_with_fragment`` off), and so does this Envoy.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import pytest

from meshlib.model.call import Call
from meshlib.model.listener import PathNormalization
from meshlib.model.route import DirectResponse, PathMatch, Route, RouteMatch, VirtualHost
from meshlib.policy.paths import canonical_target
from meshlib.policy.routing import Router
from tests.support import envoy

pytestmark = pytest.mark.envoy

PATHS = 2500  # for each mode

EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
MODES: dict[PathNormalization, dict[str, Any]] = {
    PathNormalization.NONE: {"normalize_path": False},
    PathNormalization.BASE: {"normalize_path": True},
    PathNormalization.MERGE_SLASHES: {"normalize_path": True, "merge_slashes": True},
    PathNormalization.DECODE_AND_MERGE_SLASHES: {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}

PIECES = {
    10: [b"/", b"/", b"/"],
    4: [b"\\", b".", b"..", b"%2e", b"%2E", b"%2f", b"%2F", b"%5C", b";", b";x=1"],
    3: [b"%", b"%%", b"%4", b"%41", b"%7e", b"%25", b"%30", b"%32", b"%65", b"%45", b"%3b"],
    2: [b"a", b"admin", b"A", b"2", b"e", b"f", b"|", b'"', b"{", b"^", b"[", b"~", b"*", b"@", b":", b"+", b"%c3%a9", b"%3F"],
    1: [b"?", b"?x", b"#", b"%00", b"#x?y", b"..;", b".;x", b"%2e%2e;"],
}
WEIGHTED = [(piece, weight) for weight, pieces in PIECES.items() for piece in pieces]


ROUTES = [
    PathMatch("exact", "/admin"),
    PathMatch("exact", "/A/", case_sensitive=False),
    PathMatch("separated", "/a/admin"),
    PathMatch("regex", "/[0-9]+(/.*)?"),
    PathMatch("prefix", "/admin/"),
    PathMatch("prefix", "//"),
    PathMatch("prefix", "/aD", case_sensitive=False),
    PathMatch("prefix", "/%2"),
    PathMatch("regex", ".*[.]"),
    PathMatch("prefix", ""),
]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[PathNormalization, int]]:
    """Of an Envoy that answers with the path it has seen, for each mode."""
    bootstrap = {
        "layered_runtime": {
            "layers": [
                {"name": "istio", "static_layer": {"envoy.reloadable_features.http_reject_path_with_fragment": False}},
            ]
        },
        "static_resources": {"listeners": [listener(mode.name, options, ROUTES) for mode, options in MODES.items()]},
    }
    with envoy.running(bootstrap, tmp_path_factory.mktemp("envoy")) as running:
        yield {mode: running.listener_port(mode.name) for mode in MODES}


def listener(name: str, options: dict[str, Any], routes: Sequence[PathMatch]) -> dict[str, Any]:
    answers = [
        {
            "match": envoy_match(match),
            "direct_response": {"status": 200},
            "response_headers_to_add": [
                {"header": {"key": "x-path", "value": "[%REQ(:PATH)%]"}},
                {"header": {"key": "x-route", "value": str(index)}},
            ],
        }
        for index, match in enumerate(routes)
    ]
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        **options,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": answers}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"}}],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def envoy_match(match: PathMatch) -> dict[str, Any]:
    kinds = {"exact": "path", "prefix": "prefix", "separated": "path_separated_prefix"}
    if match.kind == "regex":
        return {"safe_regex": {"regex": match.value}}
    return {kinds[match.kind]: match.value, "case_sensitive": match.case_sensitive}


def seen_by_envoy(port: int, paths: Iterable[bytes]) -> Iterator[tuple[bytes, int] | None]:
    """What Envoy makes of each path and which route it takes, over one connection as long as it keeps it; None: 400."""
    connected: socket.socket | None = None
    lines: IO[bytes] | None = None
    try:
        for path in paths:
            if connected is None or lines is None:
                connected = socket.create_connection(("127.0.0.1", port), 30)
                lines = connected.makefile("rb")
            connected.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n")
            status, seen, index = answer(lines)
            yield (seen, index) if status == 200 else None
            if status != 200:
                assert status == 400, path
                lines.close()
                connected.close()
                connected = None
    finally:
        if connected is not None and lines is not None:
            lines.close()
            connected.close()


def answer(lines: IO[bytes]) -> tuple[int, bytes, int]:
    status, path, index, length = int(lines.readline().split()[1]), b"", -1, 0
    while line := lines.readline().strip():
        name, _, value = line.partition(b": ")
        if name == b"x-path":
            path = value[1:-1]
        elif name == b"x-route":
            index = int(value)
        elif name == b"content-length":
            length = int(value)
    lines.read(length)
    return status, path, index


def generated(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    pieces, weights = zip(*WEIGHTED, strict=True)
    return [b"/" + b"".join(rng.choices(pieces, weights, k=rng.randint(0, 12))) for _ in range(PATHS)]


ROUTER = Router(VirtualHost("all", ("*",), tuple(Route("", RouteMatch(match), DirectResponse(200)) for match in ROUTES)))


def seen_by_us(path: bytes, mode: PathNormalization) -> tuple[bytes, int] | None:
    canonical = canonical_target(path, mode)
    if canonical is None:
        return None
    return canonical, ROUTER.match(Call("GET", "a:80", canonical.decode("ascii"), ()), random.Random(1))


@pytest.mark.parametrize("mode", MODES)
def test_paths_are_what_envoy_makes_of_them(ports: dict[PathNormalization, int], mode: PathNormalization) -> None:
    escapes = [b"/a%%%02xb" % byte for byte in range(256)] + [b"/a%%%02Xb" % byte for byte in range(256)]
    raw = [b"/a%cb" % byte for byte in range(256) if byte not in b" \r\n"]
    paths = [*escapes, *raw, *generated(seed=list(MODES).index(mode))]
    found = list(seen_by_envoy(ports[mode], paths))
    different = [
        (path, theirs, ours) for path, theirs in zip(paths, found, strict=True) if (ours := seen_by_us(path, mode)) != theirs
    ]
    assert different == []
    assert len(set(found)) > PATHS // 2  # the generator makes paths worth asking about
