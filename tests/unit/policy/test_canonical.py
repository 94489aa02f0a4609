"""The canonical view: what is refused before any policy, and what policies and applications share of the rest.

Named by the ids of the attack cases.  Policies here are the two kinds of rules that readings are made for, written by hand:
one that restricts (DENY) and one that grants (ALLOW).
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.canonical import canonicalize
from meshlib.policy.readings import decoded, host_rule, path_rule

HOST = (b"host", b"a.test")
NONE, BASE = PathNormalization.NONE, PathNormalization.BASE
MERGE, DECODE = PathNormalization.MERGE_SLASHES, PathNormalization.DECODE_AND_MERGE_SLASHES


def view(
    target: bytes = b"/",
    *headers: tuple[bytes, bytes],
    host: bytes = b"a.test",
    mode: PathNormalization = BASE,
    method: str = "GET",
) -> Inspection | Refusal:
    return canonicalize(ServerRequest(method, target, [(b"host", host), *headers]), mode)


def accepted(found: Inspection | Refusal) -> Inspection:
    assert isinstance(found, Inspection), found
    return found


def reason(found: Inspection | Refusal) -> str:
    assert isinstance(found, Refusal), found
    assert (found.status, found.close) == (400, True)
    return found.reason


def denies(path: str) -> Callable[[Inspection], bool]:
    """DENY with `paths: [path]`."""
    return path_rule({path, decoded(path)}.__contains__, restricts=True, decoded_test=decoded(path).__eq__)


def allows(prefix: str) -> Callable[[Inspection], bool]:
    """ALLOW with ``paths: [prefix*]``."""
    return path_rule(lambda path: path.startswith(prefix), restricts=False)


def kept_out(target: bytes, mode: PathNormalization = BASE) -> bool:
    """Whether neither DENY /admin nor ALLOW /public/* lets the request in."""
    found = view(target, mode=mode)
    return isinstance(found, Refusal) or (denies("/admin")(found) and not allows("/public/")(found))


def test_control_of_the_two_policies() -> None:
    public, admin = accepted(view(b"/public/x")), accepted(view(b"/admin"))
    assert (denies("/admin")(public), allows("/public/")(public)) == (False, True)
    assert (denies("/admin")(admin), allows("/public/")(admin)) == (True, False)


# --- paths


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize("target", [b"/public/../admin", b"/x/../admin", b"/public/./../admin", b"/../admin"])
def test_P01_dot_segments(target: bytes, mode: PathNormalization) -> None:
    """Without normalization too: what Istio's NONE leaves open, readings close."""
    assert kept_out(target, mode)


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize("target", [b"/public/%2e%2e/admin", b"/public/%2E./admin", b"/public/.%2e/admin"])
def test_P02_encoded_dots(target: bytes, mode: PathNormalization) -> None:
    assert kept_out(target, mode)


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize("target", [rb"/public\..\admin", rb"/public/..\admin", rb"/public\../admin"])
def test_P03_backslashes(target: bytes, mode: PathNormalization) -> None:
    assert kept_out(target, mode)


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize("target", [b"//admin", b"/admin//", b"/a//../../admin", b"///admin"])
def test_P04_runs_of_slashes(target: bytes, mode: PathNormalization) -> None:
    assert kept_out(target, mode)


def test_P04_one_slash_at_the_end_is_another_path() -> None:
    assert not denies("/admin")(accepted(view(b"/admin/")))


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize(
    "target", [b"/something%2F..%2Fadmin", b"/x%5c..%5cadmin", b"/%2Fadmin", b"/x%2f..%2Fadmin", b"/public/%2e%2e%2fadmin"]
)
def test_P05_escaped_slashes(target: bytes, mode: PathNormalization) -> None:
    assert kept_out(target, mode)


@pytest.mark.parametrize("mode", [BASE, MERGE])
@pytest.mark.parametrize("target", [b"/a%2F..%2Fb", b"/a%5c..", b"/a/..%2fb", b"/a%2F%2e"])
def test_P05_steps_behind_escaped_slashes_are_refused(target: bytes, mode: PathNormalization) -> None:
    assert reason(view(target, mode=mode)) == "path_with_escaped_slashes"


def test_P05_an_escaped_slash_alone_is_kept_and_has_two_readings() -> None:
    found = accepted(view(b"/admin%2Fkeys"))
    assert (found.path, found.target) == ("/admin%2Fkeys", b"/admin%2Fkeys")
    assert denies("/admin/keys")(found)
    assert denies("/admin%2Fkeys")(found)
    assert not denies("/admin")(found)
    assert accepted(view(b"/admin%2Fkeys", mode=DECODE)).target == b"/admin/keys"


def test_P05_what_is_granted_for_one_segment_is_not_for_two() -> None:
    grants = path_rule(lambda path: path.count("/") == 2 and path.startswith("/users/"), restricts=False)
    assert grants(accepted(view(b"/users/7")))
    assert not grants(accepted(view(b"/users/7%2Fkeys")))


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize("target", [b"/public%252F..%252Fadmin", b"/%252e%252e/admin", b"/%2561dmin"])
def test_P06_double_encoding_is_decoded_once_by_the_application_alone(target: bytes, mode: PathNormalization) -> None:
    found = accepted(view(target, mode=mode))
    assert found.target == target
    assert not denies("/admin")(found)
    assert unquote(found.path) != "/admin"


@pytest.mark.parametrize("target", [b"/%%61dmin", b"/%2%65", b"/100%", b"/%zz", b"/%4"])
def test_P06_broken_escapes_are_refused(target: bytes) -> None:
    assert reason(view(target)) == "invalid_percent_encoding"
    assert accepted(view(b"/x?" + target)).query.endswith("%" + target.decode().partition("%")[2])


@pytest.mark.parametrize("target", [b"/admin#x", b"/admin#?q", b"/admin?q#x"])
def test_P07_fragments_are_refused(target: bytes) -> None:
    assert reason(view(target)) == "path_normalization_failed"


def test_P07_an_encoded_fragment_is_another_path() -> None:
    found = accepted(view(b"/admin%23x"))
    assert found.path == "/admin%23x"
    assert not denies("/admin")(found)


@pytest.mark.parametrize("target", [b"/admin?", b"/admin?x=/public", b"/admin?/../public"])
def test_P08_the_query_is_no_part_of_the_path(target: bytes) -> None:
    assert kept_out(target)
    assert accepted(view(target)).query == target.decode().partition("?")[2]


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize(
    "target", [b"/user/..;foo=bar/admin", b"/x/.;a/admin", b"/..;/admin", b"/a/%2e%2e;/admin", b"/a/..%3b/admin", b"/a%2f..;/b"]
)
def test_P09_dot_segments_with_parameters(target: bytes, mode: PathNormalization) -> None:
    assert reason(view(target, mode=mode)) == "ambiguous_dot_segment"


@pytest.mark.parametrize("mode", PathNormalization)
def test_P10_other_parameters_are_part_of_the_path_for_everybody(mode: PathNormalization) -> None:
    found = accepted(view(b"/admin;x=y/action;foo=bar", mode=mode))
    assert found.path == "/admin;x=y/action;foo=bar"
    assert found.target == found.path.encode()
    assert not denies("/admin/action")(found)


def test_P11_a_star_is_a_character() -> None:
    assert accepted(view(b"/admin/a*b")).path == "/admin/a*b"


@pytest.mark.parametrize("mode", PathNormalization)
def test_P12_a_path_is_never_taken_for_an_authority(mode: PathNormalization) -> None:
    found = accepted(view(b"//evil.test/admin", mode=mode))
    assert (found.host, found.authority) == ("a.test", "a.test")
    assert denies("/evil.test/admin")(found)


def test_P12_prefixes_hold_behind_two_slashes() -> None:
    denied = path_rule(lambda path: path.startswith("/admin/"), restricts=True)
    assert denied(accepted(view(b"//admin/secret")))
    assert not denied(accepted(view(b"/adm/secret")))


@pytest.mark.parametrize("mode", PathNormalization)
@pytest.mark.parametrize("target", [b"/admin%00", b"/adm%0ain", b"/x/.%00../admin", b"/%7f", b"/%1F", b"/a\x00", b"/a\xc3\xa9"])
def test_P16_controls_and_raw_bytes(target: bytes, mode: PathNormalization) -> None:
    assert reason(view(target, mode=mode)) == "path_normalization_failed"


def test_P16_overlong_utf8_is_no_dot() -> None:
    found = accepted(view(b"/x/%c0%ae%c0%ae/admin"))
    assert found.path == "/x/%c0%ae%c0%ae/admin"
    assert not denies("/admin")(found)


@pytest.mark.parametrize("target", [b"admin", b"@evil/admin", b"", b"?x", b"a:443", b"ftp://a.test/x", b"\\admin"])
def test_P17_a_path_begins_with_a_slash(target: bytes) -> None:
    assert reason(view(target)) == "path_normalization_failed"


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"http://a.test/admin?q", b"/admin?q"),
        (b"HTTP://A.TEST./x/../admin", b"/admin"),
        (b"https://a.test", b"/"),
        (b"http://a.test?x", b"/?x"),
    ],
)
def test_P18_absolute_targets(target: bytes, seen: bytes) -> None:
    assert accepted(view(target)).target == seen


@pytest.mark.parametrize("target", [b"http://evil.test/admin", b"http://u@a.test/", b"http:///admin", b"http://a.test:80/"])
def test_P18_another_host_in_the_target(target: bytes) -> None:
    assert reason(view(target)) == "authority_mismatch"


def test_P19_asterisk_and_connect() -> None:
    """``OPTIONS *`` is about no path: no rule about paths grants it."""
    found = accepted(view(b"*", method="OPTIONS"))
    assert (found.path, found.target) == ("*", b"*")
    assert not allows("/")(found)
    assert reason(view(b"*")) == "path_normalization_failed"
    assert reason(view(b"a:443", method="CONNECT")) == "connect_not_supported"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/v1/items:delete", b"/v1/items%3Adelete"),
        ("/v1/items%3Adelete", b"/v1/items:delete"),
        ("/a b", b"/a%20b"),
        ("/caf%C3%A9", b"/caf%c3%a9"),
        ("/admin", b"/%61dmin"),
    ],
)
def test_a_rule_that_restricts_knows_every_spelling(written: str, asked: bytes) -> None:
    assert denies(written)(accepted(view(asked, mode=NONE)))


def test_a_rule_that_grants_wants_the_canonical_spelling() -> None:
    grants = path_rule("/a%20b".__eq__, restricts=False)
    assert grants(accepted(view(b"/a%20b")))
    assert not path_rule("/a:b".__eq__, restricts=False)(accepted(view(b"/a%3Ab")))


# --- hosts


def refuses_host(host: str) -> Callable[[Inspection], bool]:
    return host_rule(host.__eq__, restricts=True)


def grants_host(host: str) -> Callable[[Inspection], bool]:
    return host_rule(host.__eq__, restricts=False)


@pytest.mark.parametrize("host", [b"Secret.com", b"SECRET.COM", b"secret.com"])
def test_H01_case(host: bytes) -> None:
    assert refuses_host("secret.com")(accepted(view(host=host)))


@pytest.mark.parametrize("host", [b"httpbin.com:8080", b"HTTPBIN.com.:8080", b"httpbin.com:80"])
def test_H02_ports(host: bytes) -> None:
    found = accepted(view(host=host))
    assert refuses_host("httpbin.com")(found)
    assert not grants_host("httpbin.com")(found)
    assert grants_host(host.decode().lower().replace(".:", ":"))(found)


def test_H03_one_trailing_dot() -> None:
    found = accepted(view(host=b"secret.com."))
    assert (found.host, found.authority) == ("secret.com", "secret.com")
    assert accepted(view(host=b"secret.com..")).host == "secret.com."


@pytest.mark.parametrize(
    ("host", "expected", "authority"),
    [
        (b"[::1]:80", "[::1]:80", "[::1]"),
        (b"[2001:DB8::1]", "[2001:db8::1]", "[2001:db8::1]"),
        (b"my_svc:9", "my_svc:9", "my_svc"),
    ],
)
def test_hosts_with_and_without_port(host: bytes, expected: str, authority: str) -> None:
    found = accepted(view(host=host))
    assert (found.host, found.authority) == (expected, authority)


def test_H05_several_hosts_or_none() -> None:
    assert reason(view(b"/", (b"host", b"secret"))) == "duplicate_host_header"
    assert reason(view(b"/", (b"host", b"a.test"))) == "duplicate_host_header"
    assert reason(canonicalize(ServerRequest("GET", b"/", [(b"accept", b"*/*")]), BASE)) == "missing_host_header"
    assert reason(canonicalize(ServerRequest("GET", b"/", []), BASE)) == "missing_host_header"


@pytest.mark.parametrize(
    "host",
    [
        b"a/?x=",
        b"a b",
        b"",
        b"u@a",
        b"a:b",
        b"a:",
        b"a:0",
        b"a:080",
        b"a:999999",
        b"[::1",
        b"\xff",
        b".",
        b".a",
        b"a,b",
        b"a" * 256,
    ],
)
def test_H06_hosts_have_a_grammar(host: bytes) -> None:
    assert reason(view(host=host)) == "invalid_authority"


def test_H07_forwarded_hosts_are_nothing() -> None:
    headers = [(b"x-forwarded-host", b"allowed"), (b"forwarded", b"host=allowed")]
    assert reason(canonicalize(ServerRequest("GET", b"/", headers), BASE)) == "missing_host_header"
    assert accepted(view(b"/", *headers)).host == "a.test"


def test_the_view_is_of_the_request_that_came() -> None:
    request = ServerRequest("GET", b"/a?x=%2F", [HOST, (b"accept", b"*/*"), (b"connection", b"keep-alive")])
    found = accepted(canonicalize(request, BASE))
    assert found.request is request
    assert found.header_changes == {}
    assert (found.path, found.query, found.target, found.readings) == ("/a", "x=%2F", b"/a?x=%2F", None)


names = st.sampled_from(
    [b"host", b"connection", b"x-role", b"x-mesh-a", b"x-envoy-internal", b"x-forwarded-for", b"", b"A", b"a_b"]
)
header_lists = st.lists(st.tuples(names, st.binary(max_size=12)), max_size=6)


@given(st.text(max_size=5), st.binary(max_size=30), header_lists, st.sampled_from(PathNormalization), st.integers(0, 3))
def test_nothing_is_an_error(
    method: str, target: bytes, headers: list[tuple[bytes, bytes]], mode: PathNormalization, hops: int
) -> None:
    for request in (
        ServerRequest(method, target, headers),
        ServerRequest("GET", b"/" + target, [HOST, *headers]),
        ServerRequest("OPTIONS", b"http://a.test/" + target, [HOST]),
    ):
        found = canonicalize(request, mode, hops)
        assert isinstance(found, Refusal) or found.target[:1] in (b"/", b"*")


@pytest.mark.parametrize("value", [b"admin \t", b"admin ", b"admin\t", b" admin  "])
def test_H13_white_space_around_values_is_no_part_of_them(value: bytes) -> None:
    found = accepted(view(b"/", (b"x-role", value), (b"accept", b"a b")))
    assert found.request.fields[b"x-role"] == b"admin"
    assert found.header_changes == {b"x-role": b"admin"}


def test_H13_repeated_headers_are_one_line_then() -> None:
    found = accepted(view(b"/", (b"x-role", b"user "), (b"x-role", b"admin"), (b"cookie", b"a=1"), (b"cookie", b"b=2 ")))
    assert [value for name, value in found.request.headers if name == b"x-role"] == [b"user", b"admin"]
    assert found.header_changes == {b"x-role": b"user, admin", b"cookie": b"a=1; b=2"}


def test_H13_what_is_untrimmed_is_still_removed() -> None:
    found = accepted(view(b"/", (b"x-forwarded-client-cert", b"a "), (b"x-role", b"b ")))
    assert found.header_changes == {b"x-forwarded-client-cert": None, b"x-role": b"b"}
    assert set(found.request.fields) == {b"host", b"x-role"}
