"""What authorization costs a request: `python -m benchmarks.authorization [--json FILE]`.

No sockets: one compiled filter, asked over and over.  The goal is for the machine that goals were set on, and scaled by how
much slower this one is (see `benchmarks.flow`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.flow import INBOUND, Yard, microseconds
from benchmarks.harness import Ratio, report
from meshlib.model.authorization import (
    Action,
    AllOf,
    Always,
    AnyOf,
    Authenticated,
    Header,
    Rbac,
    RbacFilter,
    RbacPolicy,
    UrlPath,
)
from meshlib.model.identity import Peer, SpiffeId
from meshlib.model.inbound import Connection, Inspection, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.model.route import HeaderMatch, StringKind, StringMatch
from meshlib.policy.authorization import compile_rbac
from meshlib.policy.canonical import canonicalize

POLICIES = 50


def principal(*kinds: tuple[StringKind, str]) -> AnyOf:
    return AnyOf(tuple(Authenticated(StringMatch(kind, value)) for kind, value in kinds))


def paths(*kinds: tuple[StringKind, str]) -> AnyOf:
    return AnyOf(tuple(UrlPath(StringMatch(kind, value)) for kind, value in kinds))


def methods(*names: str) -> AnyOf:
    return AnyOf(tuple(Header(HeaderMatch(":method", StringMatch("exact", name))) for name in names))


def per_service(number: int) -> RbacPolicy:
    """As most are written: one caller's own policy, by its service account."""
    who = principal(("exact", f"spiffe://cluster.local/ns/shop/sa/caller{number}"))
    return policy(number, AllOf((methods("GET", "POST"), paths(("prefix", f"/api/{number}/")))), who)


def per_path(number: int) -> RbacPolicy:
    """The same callers (a namespace) everywhere, and a path for each policy."""
    who = principal(("regex", r".*/ns/shop/.*"), ("prefix", "spiffe://partner.example/"))
    return policy(number, AllOf((methods("GET", "POST"), paths(("prefix", f"/api/{number}/"), ("exact", f"/{number}")))), who)


def per_header(number: int) -> RbacPolicy:
    """Nothing to file a policy under: each one is evaluated."""
    header = Header(HeaderMatch("x-team", StringMatch("exact", f"team{number}")))
    return policy(number, Always(), AllOf((principal(("regex", r".*/ns/shop/.*")), AnyOf((header,)))))


def policy(number: int, permission: AllOf | Always, who: AnyOf | AllOf) -> RbacPolicy:
    return RbacPolicy(f"ns[shop]-policy[p{number:02}]-rule[0]", AnyOf((permission,)), AnyOf((who,)))


def inspection() -> Inspection:
    """Of a caller that the last policy is about."""
    last = POLICIES - 1
    peer = Peer(SpiffeId.of_workload("cluster.local", "shop", f"caller{last}"))
    headers = [*INBOUND, (b"x-team", f"team{last}".encode())]
    request = ServerRequest("GET", f"/api/{last}/items?x=1".encode(), headers, connection=Connection(tls=True, peer=peer))
    found = canonicalize(request, PathNormalization.BASE)
    assert isinstance(found, Inspection)
    return found


def cost(action: Action, make: Callable[[int], RbacPolicy]) -> float:
    """Microseconds of one decision: ALLOW by the last policy, DENY by none."""
    made = [make(number) for number in range(POLICIES if action is Action.ALLOW else POLICIES - 1)]
    step = compile_rbac(RbacFilter("rbac", Rbac(action, tuple(made))), port=8080)
    request = inspection()
    assert step(request) is None
    return microseconds(lambda: step(request), 20_000)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    scale = max(microseconds(lambda: Yard(1, 2, 3), 100_000) / 0.126, 1.0)
    print(f"authorization: this machine is {scale:.1f} times slower than the one that goals were set on")
    figures = {
        f"{POLICIES} policies, {words}, {action.value}": cost(action, make)
        for make, words in ((per_service, "a caller each"), (per_path, "a path each"), (per_header, "a header value each"))
        for action in (Action.ALLOW, Action.DENY)
    }
    ratios = [Ratio(name, value, 5 * scale, at_least=False, unit=" µs") for name, value in figures.items()]
    report("authorization", ratios, {"scale": scale, **figures}, options.json)


if __name__ == "__main__":
    main()
