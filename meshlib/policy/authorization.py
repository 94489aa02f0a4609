"""RBAC, compiled: one function that refuses a request or not, and says which rule of which policy decided.

Semantics are Envoy's: policies in the order of their names, the first that matches is told; ALLOW denies what none matches,
DENY what any matches, LOG only notes; shadow rules come first and are never enforced.  Where Envoy leaves a doubt to the
request's advantage this is stricter, never more lenient (`authorization_predicates`).
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.authorization import Action, Rbac, RbacFilter, RbacPolicy
from meshlib.model.inbound import Inspection, Refusal
from meshlib.policy.authorization_index import Entry, FirstMatch, first_match
from meshlib.policy.authorization_keys import Keys
from meshlib.policy.authorization_predicates import Addresses, Reading
from meshlib.policy.authorization_tree import Compiler, Node, Peer, bind, keys_of

RBAC_METADATA = "envoy.filters.http.rbac"
COMMON_METADATA = "envoy.common"

Step = Callable[[Inspection], "Refusal | None"]

_BODY = b"RBAC: access denied"
_MAX_PEERS = 4096


class Engine:
    """The policies of one action.  Remembers for each peer what is left of them once its identity is known."""

    __slots__ = ("_nodes", "_of_peer")

    def __init__(self, rbac: Rbac, *, port: int = 0) -> None:
        """`port`: the served one; 0: what each connection says.  Raises ValueError for what is no RE2 expression."""
        compiler, reading = Compiler(port, Addresses()), Reading.of(rbac.action)
        self._nodes = [(policy.name, *_compile(policy, compiler, reading)) for policy in rbac.policies]
        self._of_peer: dict[Peer, FirstMatch] = {}

    def match(self, inspection: Inspection) -> str | None:
        """The name of the first policy that matches."""
        connection = inspection.request.connection
        peer = connection.peer
        key: Peer = connection.tls if peer is None else peer.uri
        matching = self._of_peer.get(key)
        if matching is None:
            matching = self._bind(key)
        return matching(inspection)

    def _bind(self, peer: Peer) -> FirstMatch:
        entries: list[Entry] = []
        for name, node, keys in self._nodes:
            test = bind(node, peer)
            if test is False:
                continue
            if test is True:  # whatever comes after it is never reached
                entries.append(Entry(name, lambda inspection: True, None))
                break
            entries.append(Entry(name, test, keys))
        if len(self._of_peer) >= _MAX_PEERS:
            self._of_peer.clear()
        found = self._of_peer[peer] = first_match(entries)
        return found


def _compile(policy: RbacPolicy, compiler: Compiler, reading: Reading) -> tuple[Node, Keys | None]:
    node = compiler.both(policy.permission, policy.principal, reading)
    return node, keys_of(node)


def compile_rbac(rbac: RbacFilter, *, port: int = 0) -> Step:
    """The filter as a step of the server's flow.  `port`: the one that it stands on; 0: what each connection says.

    Raises ValueError for what is no RE2 expression.
    """
    steps: list[Step] = []
    if rbac.shadow is not None:
        steps.append(_shadow(rbac.shadow, rbac.shadow_prefix, Engine(rbac.shadow, port=port)))
    if rbac.rules is not None:
        steps.append(_ENFORCE[rbac.rules.action](Engine(rbac.rules, port=port)))
    if len(steps) == 1:
        return steps[0]

    def step(inspection: Inspection) -> Refusal | None:
        for one in steps:
            refusal = one(inspection)
            if refusal is not None:
                return refusal
        return None

    return step


def _allow(engine: Engine) -> Step:
    match = engine.match
    nothing = _refusal("none", "no policy matched")

    def step(inspection: Inspection) -> Refusal | None:
        policy = match(inspection)
        if policy is None:
            return nothing
        found = inspection.metadata.setdefault(RBAC_METADATA, {})
        found["enforced_effective_policy_id"] = policy
        found["enforced_engine_result"] = "allowed"
        return None

    return step


def _deny(engine: Engine) -> Step:
    match = engine.match

    def step(inspection: Inspection) -> Refusal | None:
        policy = match(inspection)
        return None if policy is None else _refusal(policy, policy)

    return step


def _log(engine: Engine) -> Step:
    match = engine.match

    def step(inspection: Inspection) -> Refusal | None:
        policy = match(inspection)
        inspection.metadata.setdefault(COMMON_METADATA, {})["access_log_hint"] = policy is not None
        if policy is not None:
            inspection.notes.append(f"audit: policy {policy} matched")
        return None

    return step


_ENFORCE = {Action.ALLOW: _allow, Action.DENY: _deny, Action.LOG: _log}


def _refusal(identity: str, policy: str) -> Refusal:
    """Worded as Envoy's response code details."""
    return Refusal(403, f"rbac_access_denied_matched_policy[{identity.replace(' ', '_')}]", _BODY, close=False, policy=policy)


def _shadow(rules: Rbac, prefix: str, engine: Engine) -> Step:
    match, denying, logging = engine.match, rules.action is Action.DENY, rules.action is Action.LOG

    def step(inspection: Inspection) -> Refusal | None:
        policy = match(inspection)
        allowed = logging or (policy is None) is denying
        found = inspection.metadata.setdefault(RBAC_METADATA, {})
        if policy is not None:
            found[f"{prefix}shadow_effective_policy_id"] = policy
        found[f"{prefix}shadow_engine_result"] = "allowed" if allowed else "denied"
        if not allowed and prefix != EXT_AUTHZ_PREFIX:
            inspection.notes.append(f"dry run: policy {policy or 'none'} would deny")
        return None

    return step


EXT_AUTHZ_PREFIX = "istio_ext_authz_"
"""Of the shadow rules that only say whether an external authorizer is to be asked."""
