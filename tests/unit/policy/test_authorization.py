"""What policies let in and keep out, case by case; those with an id are attacks (docs/security.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshlib.model.authorization import (
    Action,
    Address,
    AllOf,
    Authenticated,
    DestinationPort,
    Header,
    IpBlock,
    Matcher,
    MetadataMatch,
    Not,
    Rbac,
    RbacFilter,
    RequestedServerName,
    UriTemplate,
    ValueMatch,
)
from meshlib.model.identity import Peer, SpiffeId
from meshlib.model.inbound import Connection, Inspection, Readings
from meshlib.model.route import HeaderMatch
from meshlib.policy.authorization import compile_rbac
from tests.support.rbac import (
    ALICE,
    BOB,
    PORT,
    allow,
    any_of,
    claims,
    deny,
    from_peer,
    header,
    host,
    inspect,
    namespace,
    path,
    policy,
    principal,
    rules,
    text,
)


def lets_in(rbac: RbacFilter, inspection: Inspection) -> bool:
    return compile_rbac(rbac, port=PORT)(inspection) is None


# --- actions


@pytest.mark.parametrize(
    ("rbac", "admitted"),
    [
        (rules(Action.ALLOW), False),
        (rules(Action.DENY), True),
        (rules(Action.LOG), True),
        (allow(), True),
        (deny(), False),
        (rules(Action.LOG, policy()), True),
        (RbacFilter("nothing"), True),
        (allow(any_of()), False),  # a policy without rules never matches
        (deny(any_of()), True),
        (allow(AllOf(())), True),
    ],
)
def test_I15_empty_rules(rbac: RbacFilter, admitted: bool) -> None:
    assert lets_in(rbac, inspect()) is admitted


def test_a_denial_is_worded_as_envoys_details_and_tells_the_client_nothing_of_the_policy() -> None:
    refusal = compile_rbac(rules(Action.DENY, policy(name="ns[foo]-policy[my policy]-rule[1]")))(inspect())
    assert refusal is not None
    assert (refusal.status, refusal.body, refusal.flag, refusal.close) == (403, b"RBAC: access denied", "", False)
    assert refusal.reason == "rbac_access_denied_matched_policy[ns[foo]-policy[my_policy]-rule[1]]"
    assert refusal.policy == "ns[foo]-policy[my policy]-rule[1]"
    assert refusal.headers == ()


def test_what_no_policy_allows_is_denied_by_none() -> None:
    refusal = compile_rbac(allow(path("/public")))(inspect("/admin"))
    assert refusal is not None
    assert refusal.reason == "rbac_access_denied_matched_policy[none]"


def test_the_first_policy_that_matches_is_told() -> None:
    three = [policy(path(f"/{name}", "prefix"), name=name) for name in ("a", "aa", "aaa")]
    for order in (three, [*three, *(policy(path(f"/x{n}"), name=f"x{n}") for n in range(20))]):
        refusal = compile_rbac(rules(Action.DENY, *order))(inspect("/aaa"))
        assert refusal is not None
        assert refusal.policy == "a"


def test_audit_notes_and_lets_in() -> None:
    inspection = inspect("/admin")
    assert lets_in(rules(Action.LOG, policy(path("/admin"))), inspection)
    assert inspection.notes == ["audit: policy ns[foo]-policy[p]-rule[0] matched"]
    assert inspection.metadata["envoy.common"] == {"access_log_hint": True}
    other = inspect("/public")
    assert lets_in(rules(Action.LOG, policy(path("/admin"))), other)
    assert (other.notes, other.metadata["envoy.common"]) == ([], {"access_log_hint": False})


@pytest.mark.parametrize(
    ("action", "target", "result", "identity"),
    [
        (Action.DENY, "/admin", "denied", "shadow"),
        (Action.DENY, "/public", "allowed", None),
        (Action.ALLOW, "/admin", "allowed", "shadow"),
        (Action.ALLOW, "/public", "denied", None),
    ],
)
def test_shadow_rules_are_told_and_not_enforced(action: Action, target: str, result: str, identity: str | None) -> None:
    shadow = Rbac(action, (policy(path("/admin"), name="shadow"),))
    inspection = inspect(target)
    assert lets_in(RbacFilter("rbac", None, shadow, "istio_dry_run_"), inspection)
    expected = {"istio_dry_run_shadow_engine_result": result}
    if identity is not None:
        expected["istio_dry_run_shadow_effective_policy_id"] = identity
    assert inspection.metadata["envoy.filters.http.rbac"] == expected
    assert bool(inspection.notes) is (result == "denied")


def test_enforced_rules_hold_beside_shadow_rules() -> None:
    shadow = Rbac(Action.DENY, (policy(path("/a"), name="shadow"),))
    both = replace(deny(path("/b")), shadow=shadow)
    assert lets_in(both, inspect("/a"))
    assert not lets_in(both, inspect("/b"))
    assert lets_in(both, inspect("/c"))


# --- paths


@pytest.mark.parametrize("target", ["/admin?", "/admin?x=/public", "/admin?a=b&c", "/admin"])
def test_P08_the_query_is_not_a_part_of_the_path(target: str) -> None:
    assert not lets_in(deny(path("/admin")), inspect(target))
    assert lets_in(deny(path("/admin")), inspect("/public?x=/admin"))


@pytest.mark.parametrize("target", ["/admin/*", "/admin/a*b", "/admin/", "/admin/a/b", "/admin/**"])
def test_P11_a_star_in_the_path_is_a_character_like_any_other(target: str) -> None:
    assert not lets_in(deny(UriTemplate("/admin/**")), inspect(target))
    assert lets_in(deny(UriTemplate("/admin/**")), inspect("/public/*"))


@pytest.mark.parametrize(
    ("template", "target", "matched"),
    [
        ("/a/*/b", "/a/x/b", True),
        ("/a/*/b", "/a/*/b", True),
        ("/a/*/b", "/a//b", False),
        ("/a/*/b", "/a/x/y/b", False),
        ("/a/*", "/a/", False),
        ("/a/*/b/**", "/a/1/b/2", True),
        ("/a/*/b/**", "/a/1/b/", True),
        ("/a/*/b/**", "/a/1/b", False),
        ("/a/**/c", "/a/b/c", True),
        ("/a/**/c", "/a/b/b/c", True),
        ("/a/**/c", "/a//c", True),
        ("/a/**/c", "/a/c", False),
        ("/**", "/", True),
        ("/*/", "/a/", True),
        ("/*/", "/a", False),
    ],
)
def test_uri_templates(template: str, target: str, matched: bool) -> None:
    assert lets_in(allow(UriTemplate(template)), inspect(target)) is matched


def test_P15_ignoring_case_does_not_make_an_exact_path_a_prefix() -> None:
    exact = path("/S/Get", ignore_case=True)
    for target, matched in (("/S/Get", True), ("/s/gET", True), ("/S/GetAll", False), ("/S/Ge", False)):
        assert lets_in(deny(exact), inspect(target)) is not matched
        assert lets_in(allow(exact), inspect(target)) is matched


@pytest.mark.parametrize(
    ("matcher", "target", "matched"),
    [
        (path("/admin/", "prefix"), "/administrator", False),
        (path("/admin/", "prefix"), "/admin", False),
        (path("/admin/", "prefix"), "/admin/", True),
        (path("/admin/", "prefix"), "/admin/x", True),
        (path(".html", "suffix"), "/a.html", True),
        (path(".html", "suffix"), "/a.html/b", False),
        (path(".+", "regex"), "/", True),
        (path("/admin"), "/admin/", False),
        (path("min", "contains"), "/admin", True),
    ],
)
def test_P20_where_prefixes_end(matcher: Matcher, target: str, matched: bool) -> None:
    assert lets_in(allow(matcher), inspect(target)) is matched
    assert lets_in(deny(matcher), inspect(target)) is not matched


def test_P21_paths_have_case() -> None:
    assert lets_in(deny(path("/admin")), inspect("/Admin"))
    assert not lets_in(deny(path("/admin")), inspect("/admin"))
    assert not lets_in(deny(path("/admin", ignore_case=True)), inspect("/Admin"))  # for those who ask for it


def test_every_way_to_read_a_path_counts() -> None:
    """An encoded slash: what restricts holds for either reading, what grants for both."""
    inspection = inspect("/public%2Fadmin")
    inspection.readings = Readings(("/public/admin",), "/public/admin")
    many = [policy(path(f"/{n}"), name=str(n)) for n in range(20)]
    for more in ([], many):
        assert not lets_in(rules(Action.DENY, *more, policy(path("/public/admin"))), inspection)
        assert not lets_in(rules(Action.ALLOW, *more, policy(Not(path("/public/admin")))), inspection)
        assert not lets_in(rules(Action.ALLOW, *more, policy(path("/public%2Fadmin"))), inspection)
    assert lets_in(allow(path("/public", "prefix")), inspection)
    assert lets_in(deny(path("/private")), inspection)


# --- hosts and headers


@pytest.mark.parametrize("authority", ["secret.com", "secret.com:8080"])
def test_H01_H02_the_port_does_not_hide_a_host(authority: str) -> None:
    inspection = inspect(authority=authority)
    assert not lets_in(deny(host("Secret.COM")), inspection)
    assert not lets_in(allow(Not(host("secret.com"))), inspection)
    assert lets_in(deny(host("secret.com")), inspect(authority="open.com:8080"))
    assert lets_in(allow(Not(host("secret.com"))), inspect(authority="open.com:8080"))


def test_a_host_is_allowed_as_it_was_called() -> None:
    """As Istio matches it: the port is a part of it for what grants."""
    assert lets_in(allow(host("a.test")), inspect(authority="a.test"))
    assert not lets_in(allow(host("a.test")), inspect(authority="a.test:80"))
    assert lets_in(allow(host("a.test", "prefix")), inspect(authority="a.test:80"))
    assert lets_in(allow(host("a.test:80")), inspect(authority="a.test:80"))


@pytest.mark.parametrize("values", [("admin", "user", "x"), ("user", "admin", "x"), ("user", "x", "admin"), ("admin", "admin")])
def test_H08_H09_H10_any_value_of_a_repeated_header_denies(values: tuple[str, ...]) -> None:
    inspection = inspect("/", *(("x-role", value) for value in values))
    admin = header("x-role", "admin")
    assert not lets_in(deny(admin), inspection)
    assert not lets_in(allow(Not(admin)), inspection)
    user = inspect("/", ("x-role", "user"), ("x-role", "x"))
    assert lets_in(deny(admin), user)
    assert lets_in(allow(Not(admin)), user)


def test_H09_each_value_of_a_repeated_header_has_to_be_allowed() -> None:
    both = any_of(header("x-role", "user"), header("x-role", "guest"))
    assert lets_in(allow(both), inspect("/", ("x-role", "user"), ("x-role", "guest")))
    assert not lets_in(allow(both), inspect("/", ("x-role", "user"), ("x-role", "admin")))
    assert not lets_in(allow(both), inspect("/"))


def test_H09_values_that_a_server_joined_are_looked_at_one_by_one() -> None:
    """WSGI has one line for repeated headers."""
    joined = inspect("/", ("x-role", "user, admin"), joined=True)
    assert not lets_in(deny(header("x-role", "admin")), joined)
    assert not lets_in(allow(header("x-role", "user", "prefix")), joined)
    assert lets_in(allow(header("x-role", "user", "prefix")), inspect("/", ("x-role", "user,user1"), joined=True))
    agent = inspect("/", ("user-agent", "Mozilla/5.0 (KHTML, like Gecko)"), joined=True)
    assert lets_in(allow(header("user-agent", "Mozilla/", "prefix")), agent)
    assert lets_in(deny(header("x-role", "admin")), inspect("/", ("x-role", "user, admin")))  # one value, with a comma


@pytest.mark.parametrize("name", ["X-Role", "x-role", "X-ROLE"])
def test_H15_header_names_in_policies_have_no_case(name: str) -> None:
    assert not lets_in(deny(header(name, "admin")), inspect("/", ("x-role", "admin")))
    assert lets_in(deny(header(name, "admin")), inspect("/", ("x-role", "user")))


def test_P23_bytes_that_are_no_text_never_help_a_request() -> None:
    """Both with an expression of RE2 and with a glob."""
    for pattern in (".*admin.*", "(ad|x)[a-z]+admin.*|.*min-admin"):
        odd = header("x-role", pattern, "regex")
        value = inspect("/", ("x-role", b"ad\xffmin-admin"))
        assert not lets_in(deny(odd), value)
        assert not lets_in(allow(odd), value)
        assert not lets_in(allow(Not(odd)), value)
        assert lets_in(deny(odd), inspect("/", ("x-role", b"us\xffer")))
        assert lets_in(allow(odd), inspect("/", ("x-role", b"x-min-admin")))


@pytest.mark.parametrize("claim", ["a\nb", "\n"])
def test_P23_nor_does_a_line_feed(claim: str) -> None:
    for pattern in (".+", "[^x]+"):
        subject = MetadataMatch("envoy.filters.http.jwt_authn", ("payload", "sub"), ValueMatch(string=text(pattern, "regex")))
        assert not lets_in(deny(subject), inspect(metadata=claims(sub=claim)))
        assert not lets_in(allow(subject), inspect(metadata=claims(sub=claim)))
        assert lets_in(allow(subject), inspect(metadata=claims(sub="ä")))
        assert not lets_in(allow(subject), inspect(metadata=claims(sub="\ud800")))  # JSON can write it, UTF-8 cannot


def test_a_regex_is_held_against_bytes_and_against_characters() -> None:
    between = header("x-name", "a.b", "regex")
    for value in ("aéb".encode(), b"a\xe9b"):
        assert not lets_in(deny(between), inspect("/", ("x-name", value)))
        assert not lets_in(allow(between), inspect("/", ("x-name", value)))


@pytest.mark.parametrize(
    ("match", "headers", "matched"),
    [
        (HeaderMatch("x-a", present=True), ["1"], True),
        (HeaderMatch("x-a", present=True), [], False),
        (HeaderMatch("x-a", present=False), [], True),
        (HeaderMatch("x-a", present=True, invert=True), [], True),
        (HeaderMatch("x-a", present=True, treat_missing_as_empty=True), [], True),  # as Envoy has it: the empty one is there
        (HeaderMatch("x-a", present=False, treat_missing_as_empty=True), [], False),
        (HeaderMatch("x-a", text("1"), invert=True), ["2"], True),
        (HeaderMatch("x-a", text("1"), invert=True), [], False),
        (HeaderMatch("x-a", text("1"), invert=True, treat_missing_as_empty=True), [], True),
        (HeaderMatch("x-a", text("1"), invert=True), ["1", "2"], False),
        (HeaderMatch("x-a", text(""), treat_missing_as_empty=True), [], True),
        (HeaderMatch("x-a", range=(1, 3)), ["2"], True),
        (HeaderMatch("x-a", range=(1, 3)), ["3"], False),
        (HeaderMatch("x-a", range=(1, 3)), ["1_0"], False),
        (HeaderMatch("x-a", range=(-5, 3)), ["-4"], True),
        (HeaderMatch(":method", text("GET"), invert=True), [], False),
        (HeaderMatch(":authority", present=True), [], True),
        (HeaderMatch(":path", text("/")), [], True),
    ],
)
def test_header_matchers(match: HeaderMatch, headers: list[str], matched: bool) -> None:
    inspection = inspect("/", *(("x-a", value) for value in headers))
    assert lets_in(allow(Header(match)), inspection) is matched
    assert lets_in(deny(Header(match)), inspection) is not matched


def test_the_path_as_a_header_has_its_query() -> None:
    assert lets_in(allow(header(":path", "/a?x=1")), inspect("/a?x=1"))
    assert not lets_in(allow(header(":path", "/a")), inspect("/a?x=1"))


def test_headers_are_seen_as_filters_before_have_left_them() -> None:
    """An authorizer's or a token's header is the one that counts, what the client sent in its place is not."""
    inspection = inspect("/", ("x-user", "root"), ("x-old", "1"))
    inspection.header_changes.update({b"x-user": b"alice", b"x-old": None, b"x-new": b"1"})
    assert lets_in(allow(header("x-user", "alice")), inspection)
    assert not lets_in(allow(header("x-user", "root")), inspection)
    assert not lets_in(allow(Header(HeaderMatch("x-old", present=True))), inspection)
    assert lets_in(allow(Header(HeaderMatch("x-new", present=True))), inspection)


# --- identities


def test_principals() -> None:
    alice, bob = inspect(connection=from_peer(ALICE)), inspect(connection=from_peer(BOB))
    assert lets_in(allow(who=principal(ALICE.uri)), alice)
    assert not lets_in(allow(who=principal(ALICE.uri)), bob)
    assert lets_in(allow(who=Authenticated()), bob)
    assert not lets_in(deny(who=namespace("foo")), alice)
    assert lets_in(deny(who=namespace("foo")), bob)


@pytest.mark.parametrize("connection", [Connection(), Connection(tls=True)])
@pytest.mark.parametrize("who", [principal(".+", "regex"), Authenticated(), principal("spiffe://", "prefix"), namespace("foo")])
def test_I10_a_peer_that_proved_nothing_is_nobody(connection: Connection, who: Authenticated) -> None:
    """Whether plaintext, or TLS without a verified certificate."""
    assert not lets_in(allow(who=who), inspect(connection=connection))
    assert lets_in(allow(who=who), inspect(connection=from_peer(ALICE)))


def test_I11_negative_identities_do_not_let_plaintext_in() -> None:
    plain, bob, alice = inspect(), inspect(connection=from_peer(BOB)), inspect(connection=from_peer(ALICE))
    not_foo = allow(who=Not(any_of(namespace("foo"))))
    assert [lets_in(not_foo, each) for each in (plain, bob, alice)] == [False, True, False]
    foo_denied = deny(who=any_of(namespace("foo")))
    assert [lets_in(foo_denied, each) for each in (plain, bob, alice)] == [False, True, False]
    others_denied = deny(who=Not(any_of(namespace("foo"))))
    assert [lets_in(others_denied, each) for each in (plain, bob, alice)] == [False, False, True]
    elsewhere = deny(path("/admin"), namespace("foo"))
    assert lets_in(elsewhere, inspect("/public"))  # the rest of a rule still has to match


@pytest.mark.parametrize(
    ("account", "matched"), [("cert-manager.io", True), ("cert-manager-io", False), ("cert-managerXio", False)]
)
def test_I13_dots_in_names_are_dots(account: str, matched: bool) -> None:
    pattern = r"spiffe://.+/ns/foo/(.+/|)sa/cert-manager\.io(/.+)?"
    peer = Peer(SpiffeId("cluster.local", f"/ns/foo/sa/{account}"))
    assert lets_in(allow(who=principal(pattern, "regex")), inspect(connection=from_peer(peer))) is matched


def test_many_peers_are_told_apart() -> None:
    """What is remembered of one peer is never another's."""
    step = compile_rbac(allow(who=principal(ALICE.uri)))
    for number in range(5000):
        other = Peer(SpiffeId.of_workload("cluster.local", "foo", f"alice{number}"))
        assert step(inspect(connection=from_peer(other))) is not None
    assert step(inspect(connection=from_peer(ALICE))) is None


# --- the rest


@pytest.mark.parametrize(
    ("which", "connection", "cidr", "matched"),
    [
        (Address.DIRECT_REMOTE, Connection(remote_address="10.1.2.3"), "10.0.0.0/8", True),
        (Address.DIRECT_REMOTE, Connection(remote_address="11.1.2.3"), "10.0.0.0/8", False),
        (Address.DIRECT_REMOTE, Connection(remote_address="::ffff:10.1.2.3"), "10.0.0.0/8", True),
        (Address.DIRECT_REMOTE, Connection(remote_address="fe80::1%eth0"), "fe80::/10", True),
        (Address.DIRECT_REMOTE, Connection(remote_address="fe80::1"), "0.0.0.0/0", False),
        (Address.DESTINATION, Connection(local_address="10.0.0.1", remote_address="9.9.9.9"), "10.0.0.1/32", True),
        (Address.REMOTE, Connection(remote_address="10.1.2.3"), "10.0.0.0/8", True),
    ],
)
def test_addresses(which: Address, connection: Connection, cidr: str, matched: bool) -> None:
    block = IpBlock(which, cidr)
    assert lets_in(allow(who=block), inspect(connection=connection)) is matched
    assert lets_in(deny(who=block), inspect(connection=connection)) is not matched


def test_an_address_that_nobody_tells_does_not_help() -> None:
    block = IpBlock(Address.DIRECT_REMOTE, "10.0.0.0/8")
    for rbac in (allow(who=block), allow(who=Not(block)), deny(who=block)):
        assert not lets_in(rbac, inspect(connection=Connection(remote_address="")))


def test_H18_forwarded_addresses_shut_out_and_never_let_in() -> None:
    block = IpBlock(Address.REMOTE, "10.0.0.0/8")
    claimed = inspect("/", ("x-forwarded-for", "10.1.1.1, junk"), connection=Connection(remote_address="9.9.9.9"))
    assert not lets_in(allow(who=block), claimed)
    assert not lets_in(deny(who=block), claimed)
    assert not lets_in(allow(who=Not(block)), claimed)
    junk = inspect("/", ("x-forwarded-for", "junk, fe80::1%eth0"), connection=Connection(remote_address="9.9.9.9"))
    assert lets_in(deny(who=block), junk)
    trusted = inspect("/", ("x-forwarded-for", "10.1.1.1"), connection=Connection(remote_address="9.9.9.9"))
    trusted.remote_address = "10.1.1.1"
    assert lets_in(allow(who=block), trusted)


def test_the_port_is_the_one_that_is_served() -> None:
    assert lets_in(allow(DestinationPort(PORT)), inspect(connection=Connection(local_port=1)))
    assert not lets_in(allow(DestinationPort(9)), inspect(connection=Connection(local_port=9)))
    without = compile_rbac(allow(DestinationPort(9)))
    assert without(inspect(connection=Connection(local_port=9))) is None
    assert without(inspect(connection=Connection(local_port=8))) is not None


def test_server_names() -> None:
    """Without TLS it is empty, which `.*` matches and `.+` does not."""
    for pattern, name, matched in ((".+", "", False), (".*", "", True), (".+", "a.test", True), (r"a\.test", "a.test", True)):
        found = inspect(connection=Connection(server_name=name))
        assert lets_in(allow(RequestedServerName(text(pattern, "regex"))), found) is matched


@pytest.mark.parametrize(
    ("value", "claim", "matched"),
    [
        (ValueMatch(string=text("a")), "a", True),
        (ValueMatch(string=text("a")), ["a"], False),
        (ValueMatch(string=text("1")), 1, False),
        (ValueMatch(one_of=ValueMatch(string=text("a"))), ["b", "a"], True),
        (ValueMatch(one_of=ValueMatch(string=text("a"))), "a", False),
        (ValueMatch(any_of=(ValueMatch(one_of=ValueMatch(string=text("a"))), ValueMatch(string=text("a")))), "a", True),
        (ValueMatch(any_of=(ValueMatch(one_of=ValueMatch(string=text("a"))), ValueMatch(string=text("a")))), ["a"], True),
        (ValueMatch(boolean=True), True, True),
        (ValueMatch(boolean=True), 1, False),
        (ValueMatch(boolean=False), False, True),
        (ValueMatch(number=1.5), 1.5, True),
        (ValueMatch(number=1.0), 1, True),
        (ValueMatch(number=1.0), True, False),
        (ValueMatch(null=True), None, True),
        (ValueMatch(present=True), None, True),
        (ValueMatch(present=False), "a", False),
    ],
)
def test_values_of_claims(value: ValueMatch, claim: object, matched: bool) -> None:
    match = MetadataMatch("envoy.filters.http.jwt_authn", ("payload", "x", "y"), value)
    found = inspect(metadata=claims(x={"y": claim}))
    assert lets_in(allow(match), found) is matched
    assert lets_in(deny(match), found) is not matched
    assert lets_in(allow(replace(match, invert=True)), found) is not matched


def test_a_claim_that_is_missing_matches_nothing() -> None:
    issuer = MetadataMatch("envoy.filters.http.jwt_authn", ("payload", "iss"), ValueMatch(string=text(".*", "regex")))
    for found in (inspect(), inspect(metadata=claims(x=1)), inspect(metadata={"envoy.filters.http.jwt_authn": {"payload": 7}})):
        assert not lets_in(allow(issuer), found)
        assert not lets_in(deny(Not(issuer)), found)  # DENY notRequestPrincipals ["*"] asks for a token
        assert lets_in(allow(replace(issuer, invert=True)), found)
