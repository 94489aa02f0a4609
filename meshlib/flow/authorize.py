"""Would this request be let in?  Answered by the very code that lets requests in, from the listener that a workload gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from meshlib.flow.conditions import unmet, wanted
from meshlib.flow.inbound import Question, compile_filter
from meshlib.model.authentication import JwtAuthentication
from meshlib.model.authorization import Action, ExternalAuthorization, Matcher, Rbac, RbacFilter, RbacPolicy
from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.model.listener import HttpFilter, InboundListener, MtlsMode
from meshlib.model.rate_limit import RateLimits
from meshlib.policy.authorization import EXT_AUTHZ_PREFIX
from meshlib.policy.authorization_predicates import Addresses, Reading
from meshlib.policy.authorization_tree import Compiler, bind
from meshlib.policy.canonical import canonicalize
from meshlib.policy.jwt_claims import normalized
from meshlib.xds.decode import decode
from meshlib.xds.types import LISTENER

Outcome = Literal["allowed", "denied", "asked"]

_TOKEN = "envoy.filters.http.jwt_authn"
_ACTIONS = {Action.ALLOW: "ALLOW", Action.DENY: "DENY", Action.LOG: "AUDIT"}
_CUSTOM = "istio-ext-authz-"
"""What names of rules start with that an external authorizer is asked about, or that refuse since it cannot be."""


@dataclass(frozen=True, slots=True)
class RuleTrial:
    """One rule that was looked at.  `reason`: what it asks for that the request does not have, or what made it match."""

    name: str  # "ns[foo]-policy[httpbin]-rule[0]"
    matched: bool
    reason: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class FilterTrial:
    """One step, with its rules in the order in which they are tried.  `outcome`: "passed" decides nothing."""

    action: str  # CUSTOM, JWT, AUDIT, DENY, ALLOW
    outcome: Literal["passed", "allowed", "denied", "asked"]
    detail: str = ""
    rules: tuple[RuleTrial, ...] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """`outcome` "asked": what is configured lets the request in if the external authorizer does.

    `policy`: the rule that decided, if one did; `status`: of the refusal.  `path` and `host` are as policies see them.
    """

    outcome: Outcome
    reason: str
    mtls: str
    policy: str = ""
    status: int = 0
    path: str = ""
    host: str = ""
    steps: tuple[FilterTrial, ...] = ()
    notes: tuple[str, ...] = ()


def authorize(listener: bytes, request: ServerRequest, *, now: float, claims: Mapping[str, Any] | None = None) -> Authorization:
    """`listener`: the inbound listener as a workload gets it; `claims`: of a token that is taken for verified.

    `now`: Unix seconds, for the times in tokens.  Raises meshlib.xds.invalid.ResourceInvalid when the listener is one that a
    workload would refuse, TypeError when it is no inbound listener.
    """
    _, decoded = decode(LISTENER, listener)
    if not isinstance(decoded, InboundListener):
        raise TypeError(f"{decoded!r:.100} is no inbound listener")
    notes: list[str] = []
    connection = request.connection
    if decoded.mtls is MtlsMode.DISABLE and connection.peer is not None:
        notes.append("the port accepts plaintext only: nobody proves an identity there")
        request = _plain(request)
    if decoded.mtls is MtlsMode.PERMISSIVE and request.connection.peer is None:
        notes.append("the port accepts plaintext too: rules about identities see none")
    if claims is not None and not any(isinstance(item, JwtAuthentication) for item in decoded.filters):
        notes.append("no RequestAuthentication is about the workload: tokens are not looked at, and claims are unknown")
    inspection = canonicalize(request, decoded.normalization, decoded.trusted_hops)
    if isinstance(inspection, Refusal):
        return _refused(inspection, decoded, notes)
    if decoded.mtls is MtlsMode.STRICT and request.connection.peer is None:
        refusal = Refusal(403, "the port accepts mTLS only, and the caller proves no identity")
        return _refused(refusal, decoded, notes, inspection)
    return _through(decoded, inspection, _Circumstances(now, claims), notes)


@dataclass(frozen=True, slots=True)
class _Circumstances:
    now: float
    claims: Mapping[str, Any] | None


def _through(listener: InboundListener, inspection: Inspection, given: _Circumstances, notes: list[str]) -> Authorization:
    steps: list[FilterTrial] = []
    outcome: Outcome = "allowed"
    reason, policy = "no policy is about it", ""
    for item in listener.filters:
        if isinstance(item, RateLimits):
            continue  # how often somebody asks does not decide whether he may
        trial, refusal = _try(item, listener.port, inspection, given)
        steps.append(trial)
        if refusal is not None:
            found = _refused(refusal, listener, [*notes, *inspection.notes], inspection)
            return replace(found, reason=trial.detail or found.reason, steps=tuple(steps))
        if trial.outcome == "asked":
            outcome, reason = "asked", trial.detail
        elif trial.outcome == "allowed":
            policy = next((rule.name for rule in trial.rules if rule.matched and not rule.dry_run), "")
            reason = reason if outcome == "asked" else "an ALLOW policy matched"
    return Authorization(
        outcome,
        reason,
        listener.mtls.value,
        policy=policy,
        path=inspection.path,
        host=inspection.host,
        steps=tuple(steps),
        notes=(*notes, *inspection.notes),
    )


def _try(item: HttpFilter, port: int, inspection: Inspection, given: _Circumstances) -> tuple[FilterTrial, Refusal | None]:
    if isinstance(item, JwtAuthentication) and given.claims is not None:
        return _taken(item, inspection, given.claims), None
    step = compile_filter(item, port, now=lambda: given.now)
    if isinstance(step, Question):
        return _asked(step, inspection), None
    rules = _rules(item, port, inspection) if isinstance(item, RbacFilter) else ()
    refusal = step(inspection)
    if isinstance(item, RbacFilter):
        return _rbac_trial(item, rules, refusal), refusal
    if refusal is not None:
        return FilterTrial("JWT", "denied", refusal.body.decode("latin-1")), refusal
    token = "a valid token" if inspection.claims is not None else "no token"
    return FilterTrial("JWT", "passed", token), None


def _taken(item: JwtAuthentication, inspection: Inspection, claims: Mapping[str, Any]) -> FilterTrial:
    """Claims as policies see those of a token that was verified: some are lists of words."""
    issuer = claims.get("iss")
    believed = [provider for provider in item.providers.values() if issuer is None or provider.issuer in ("", issuer)]
    for provider in believed[:1]:
        claims = normalized(claims, provider.space_delimited_claims)
    inspection.metadata[_TOKEN] = {"payload": dict(claims)}
    doubt = "" if believed else f"; no RequestAuthentication is about the issuer {issuer}, whose tokens are refused"
    return FilterTrial("JWT", "passed", f"the claims are taken as given{doubt}")


def _asked(question: Question, inspection: Inspection) -> FilterTrial:
    authorizer: ExternalAuthorization = question.filter
    if not question.applies(inspection):
        return FilterTrial("CUSTOM", "passed", f"{authorizer.authority} is not asked")
    return FilterTrial("CUSTOM", "asked", f"{authorizer.authority} decides")


def _rbac_trial(item: RbacFilter, rules: tuple[RuleTrial, ...], refusal: Refusal | None) -> FilterTrial:
    matched = next((rule.name for rule in rules if rule.matched and not rule.dry_run), "")
    custom = item.shadow_prefix == EXT_AUTHZ_PREFIX or any(rule.name.startswith(_CUSTOM) for rule in rules)
    enforced = item.rules or item.shadow
    action = "CUSTOM" if custom or enforced is None else _ACTIONS[enforced.action]
    if refusal is not None:
        if action == "CUSTOM":
            detail = "its extension provider cannot be asked"
        else:
            detail = "a DENY policy matched" if matched else "there are ALLOW policies, and none of them matched"
        return FilterTrial(action, "denied", detail, rules)
    if item.rules is not None and item.rules.action is Action.ALLOW:
        return FilterTrial(action, "allowed", rules=rules)
    return FilterTrial(action, "passed", rules=rules)


def _rules(item: RbacFilter, port: int, inspection: Inspection) -> tuple[RuleTrial, ...]:
    found: list[RuleTrial] = []
    for rbac, dry_run in ((item.shadow, item.shadow_prefix != EXT_AUTHZ_PREFIX), (item.rules, False)):
        if rbac is not None:
            found += (_rule(policy, rbac, port, inspection, dry_run=dry_run) for policy in rbac.policies)
    return tuple(found)


def _rule(policy: RbacPolicy, rbac: Rbac, port: int, inspection: Inspection, *, dry_run: bool) -> RuleTrial:
    connection = inspection.request.connection
    peer = connection.tls if connection.peer is None else connection.peer.uri
    compiler = Compiler(port, Addresses())

    def holds(matcher: Matcher, reading: Reading) -> bool:
        test = bind(compiler.compile(matcher, reading), peer)
        return test if isinstance(test, bool) else test(inspection)

    reading = Reading.of(rbac.action)
    for side in (policy.permission, policy.principal):
        if not holds(side, reading):
            return RuleTrial(policy.name, False, unmet(side, reading, holds, inspection), dry_run)
    asked = dict.fromkeys((wanted(policy.permission), wanted(policy.principal)))
    return RuleTrial(policy.name, True, ", ".join(part for part in asked if part != "anything") or "everything", dry_run)


def _plain(request: ServerRequest) -> ServerRequest:
    """The same request without an identity."""
    return ServerRequest(
        request.method,
        request.target,
        request.headers,
        http_version=request.http_version,
        connection=replace(request.connection, tls=False, peer=None, server_name=""),
        joined=request.joined,
    )


def _refused(
    refusal: Refusal, listener: InboundListener, notes: list[str], inspection: Inspection | None = None
) -> Authorization:
    return Authorization(
        "denied",
        refusal.reason,
        listener.mtls.value,
        policy=refusal.policy if refusal.policy.startswith(("ns[", _CUSTOM)) else "",
        status=refusal.status,
        path=inspection.path if inspection is not None else "",
        host=inspection.host if inspection is not None else "",
        notes=tuple(notes),
    )
