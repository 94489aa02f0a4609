"""Rate limits: what requests are counted by, all or nothing, what their senders are told, and attacks on all that."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from meshlib.model.call import Call
from meshlib.model.identity import Peer, SpiffeId
from meshlib.model.inbound import Connection, Inspection, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.model.rate_limit import Attribute, Descriptor, LimitPolicy, RateLimit, RateLimits, TokenBucket
from meshlib.model.route import PathMatch, RouteMatch
from meshlib.policy.canonical import canonicalize
from meshlib.policy.rate_limit import CompiledLimits, Decision, Limiters
from meshlib.policy.rate_limit_keys import SEVERAL, Limited, compile_key

JASON = Peer(SpiffeId.of_workload("td", "shop", "jason"))


def limit(name: str = "all", tokens: int = 1, *by: Descriptor, burst: int = 0, dry_run: bool = False) -> RateLimit:
    return RateLimit(name, by=by, bucket=TokenBucket(tokens, 1.0, burst or tokens), dry_run=dry_run)


def compiled(*limits: RateLimit, limiters: Limiters | None = None, now: float = 0.0) -> CompiledLimits:
    return CompiledLimits(RateLimits((LimitPolicy("default/p", limits),)), limiters or Limiters(), now)


def served(
    path: str = "/",
    *headers: tuple[bytes, bytes],
    peer: Peer | None = None,
    address: str = "10.0.0.9",
    joined: bool = False,
    claims: Mapping[str, object] | None = None,
) -> Limited:
    connection = Connection(remote_address=address, peer=peer)
    request = ServerRequest("GET", path.encode(), [(b"host", b"web"), *headers], connection=connection, joined=joined)
    inspection = canonicalize(request, PathNormalization.BASE)
    assert isinstance(inspection, Inspection)
    if claims is not None:
        inspection.metadata["envoy.filters.http.jwt_authn"] = {"payload": claims}
    return Limited.served(inspection)


def header(name: str) -> Descriptor:
    return Descriptor("header", value=(name,))


def of(attribute: Attribute) -> Descriptor:
    return Descriptor("attribute", attribute)


def decided(limits: CompiledLimits, request: Limited, now: float = 0.0) -> Decision:
    decision = limits.decide(request, now)
    assert decision is not None
    return decision


def passes(limits: CompiledLimits, request: Limited, now: float = 0.0) -> bool:
    return decided(limits, request, now).refused is None


# --- all or nothing


def test_all_limits_have_to_allow_and_none_is_charged_for_a_refusal() -> None:
    limiters = Limiters()
    limits = compiled(limit("wide", 5), limit("narrow", 1), limiters=limiters)
    assert passes(limits, served())
    for _ in range(50):
        assert not passes(limits, served())
    narrow, wide = limiters.all
    assert (wide.allowed, wide.limited) == (1, 0)
    assert (narrow.allowed, narrow.limited) == (1, 50)
    assert wide.counter.standing((), 0.0).left == 4


def test_a_limit_is_only_for_what_it_matches() -> None:
    api = RateLimit("api", (RouteMatch(PathMatch("prefix", "/api")),), bucket=TokenBucket(1, 1.0, 1))
    limits = compiled(api)
    assert limits.decide(served("/other"), 0.0) is None
    assert passes(limits, served("/api/x"))
    assert not passes(limits, served("/api/y"))


def test_a_dry_run_counts_and_refuses_nothing() -> None:
    limiters = Limiters()
    limits = compiled(limit("tried", 1, dry_run=True), limiters=limiters)
    decisions = [decided(limits, served()) for _ in range(3)]
    assert all(decision.refused is None and not decision.fields for decision in decisions)
    assert decisions[2].notes == ("rate limit default/p/tried would refuse (dry run)",)
    (limiter,) = limiters.all
    assert (limiter.allowed, limiter.would_limit, limiter.limited) == (1, 2, 0)


def test_other_configuration_gives_nobody_a_full_bucket() -> None:
    """State belongs to policy and name: a snapshot that says the same, or other numbers, keeps each one's share."""
    limiters = Limiters()
    before = compiled(limit("a", 10), limiters=limiters)
    for _ in range(10):
        assert passes(before, served())
    assert not passes(compiled(limit("a", 10), limiters=limiters), served())
    assert not passes(compiled(limit("a", 100), limiters=limiters), served())
    assert passes(compiled(limit("another", 10), limiters=limiters), served())


def test_limits_that_nobody_names_any_more_are_forgotten() -> None:
    limiters = Limiters()
    limits = compiled(limit("a"), limiters=limiters)
    assert [limiter.id for limiter in limiters.all] == ["default/p/a"]
    del limits
    assert limiters.all == []


# --- what is told


def test_fields_tell_policy_and_standing() -> None:
    limits = compiled(limit("burst", 10, burst=3), limit("slow", 2))
    fields = dict(decided(limits, served()).fields)
    assert fields[b"ratelimit-policy"] == b'"burst";q=10;w=1, "slow";q=2;w=1'
    assert fields[b"ratelimit"].startswith(b'"burst";r=2;t=')
    decided(limits, served())
    refused = decided(limits, served())
    assert refused.refused is not None
    assert refused.refused.limiter.id == "default/p/slow"
    assert refused.refused.wait == pytest.approx(0.5)
    assert b'"slow";r=0;t=1' in dict(refused.fields)[b"ratelimit"]


# --- what requests are counted by

CALLER = of(Attribute.CALLER)


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        (CALLER, served(peer=JASON), served(peer=Peer(SpiffeId.of_workload("td", "shop", "anna")))),
        (CALLER, served(peer=JASON), served()),
        (of(Attribute.CALLER_NAMESPACE), served(peer=JASON), served(peer=Peer(SpiffeId.of_workload("td", "prod", "jason")))),
        (of(Attribute.REMOTE_ADDRESS), served(address="10.0.0.1"), served(address="10.0.0.2")),
        (of(Attribute.REMOTE_ADDRESS), served(address="2001:db8:0:1::1"), served(address="2001:db8:0:2::1")),
        (of(Attribute.PATH), served("/a"), served("/b")),
        (header("x-tenant"), served("/", (b"x-tenant", b"a")), served("/", (b"x-tenant", b"b"))),
        (header("x-tenant"), served("/", (b"x-tenant", b"a")), served()),
        (header("x-tenant"), served("/", (b"x-tenant", b"")), served()),
    ],
)
def test_what_differs_is_counted_apart(by: Descriptor, one: Limited, other: Limited) -> None:
    limits = compiled(limit("x", 1, by))
    assert passes(limits, one)
    assert not passes(limits, one)
    assert passes(limits, other)


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        (of(Attribute.PATH), served("/admin/keys"), served("/ADMIN/keys")),
        (of(Attribute.PATH), served("/admin/keys"), served("/admin//keys")),
        (of(Attribute.PATH), served("/admin/keys"), served("/admin%2Fkeys")),
        (of(Attribute.PATH), served("/admin/keys"), served("/x/../admin/keys")),
        (of(Attribute.PATH), served("/admin/keys"), served("/%61dmin/keys")),
        (of(Attribute.PATH), served("/admin/keys"), served("/admin/keys?a=1")),
        (header("x-tenant"), served("/", (b"x-tenant", b"acme")), served("/", (b"x-tenant", b"ACME"))),
        (header("x-tenant"), served("/", (b"x-tenant", b"acme")), served("/", (b"x-tenant", b" acme "))),
        (header("x-tenant"), served("/", (b"x-tenant", b"a,b")), served("/", (b"x-tenant", b"a"), (b"x-tenant", b"c"))),
        (header("x-tenant"), served("/", (b"x-tenant", b"a,b")), served("/", (b"x-tenant", b"z,b"), joined=True)),
        (of(Attribute.REMOTE_ADDRESS), served(address="10.0.0.1"), served(address="::ffff:10.0.0.1")),
        (of(Attribute.REMOTE_ADDRESS), served(address="2001:db8::1"), served(address="2001:db8::ffff")),
        (of(Attribute.REMOTE_ADDRESS), served(), served("/", (b"x-forwarded-for", b"1.2.3.4"))),
        (CALLER, served(peer=JASON), served("/", (b"x-forwarded-client-cert", b"URI=spiffe://td/ns/a/sa/b"), peer=JASON)),
    ],
)
def test_another_spelling_of_a_request_has_no_bucket_of_its_own(by: Descriptor, one: Limited, other: Limited) -> None:
    """Case, escapes, slashes, repeated headers, addresses of one network, and headers that claim an identity or address."""
    limits = compiled(limit("x", 1, by))
    assert passes(limits, one)
    assert not passes(limits, other)


@pytest.mark.parametrize("path", ["/api/pay", "/api%2Fpay", "/%61pi/pay", "/x/../api/pay", "//api/pay"])
def test_no_spelling_of_a_path_goes_around_a_match(path: str) -> None:
    api = RateLimit("api", (RouteMatch(PathMatch("prefix", "/api/")),), bucket=TokenBucket(1, 1.0, 1))
    limits = compiled(api)
    assert passes(limits, served("/api/pay"))
    assert not passes(limits, served(path))
    assert limits.decide(served("/apis/pay"), 0.0) is None  # the control


def test_several_values_are_no_value_that_somebody_may_have() -> None:
    key_of = compile_key([header("x-tenant")])
    assert key_of(served("/", (b"x-tenant", b"a"), (b"x-tenant", b"b"))) == (SEVERAL,)
    assert key_of(served("/", (b"x-tenant", SEVERAL.encode()))) != (SEVERAL,)


def test_long_values_cost_no_memory_and_are_told_apart() -> None:
    key_of = compile_key([header("x-tenant")])
    long = b"x" * 8000
    one, other = key_of(served("/", (b"x-tenant", long))), key_of(served("/", (b"x-tenant", long + b"y")))
    assert one != other
    assert all(len(part) < 130 for part in (*one, *other))


def test_claims_are_those_of_the_verified_token() -> None:
    """What a header says of claims is nothing."""
    key_of = compile_key([Descriptor("claim", value=("realm", "role"))])
    request = served("/", (b"x-jwt-payload", b'{"realm": {"role": "gold"}}'))
    assert key_of(request) == ("",)
    assert key_of(served(claims={"realm": {"role": "gold"}})) == ("=gold",)
    assert key_of(served(claims={"realm": {"role": ["a", "b"]}})) == ('["a", "b"]',)
    assert key_of(served(claims={"realm": "gold"})) == ("",)


def test_calls_are_counted_by_service_and_route() -> None:
    call = Call("GET", "reviews:80", "/a?b=c", [(b"X-Tenant", b"T")])
    key_of = compile_key([of(Attribute.SERVICE), of(Attribute.ROUTE), of(Attribute.PATH), header("x-tenant")])
    assert key_of(Limited.called(call, "to-v1")) == ("reviews:80", "to-v1", "/a", "=t")
