"""One rule of an AuthorizationPolicy → one RBAC policy, in Istio's order (pilot/pkg/security/authz/model).

On a TCP connection nothing is known of the request.  A rule of an ALLOW policy that asks for it is left out: it cannot match.
Of all other policies only the question is left out, so that the rule gets wider and never narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from meshlib.xds.proto.core_pb2 import StringMatcher
from meshlib.xds.proto.rbac_pb2 import Permission, Policy, Principal
from meshlib_control.compile import authz_matchers as matchers
from meshlib_control.compile.trust import Trust
from meshlib_control.compile.trust_aliases import under_all_names, under_all_names_of_domain
from meshlib_control.config import attributes
from meshlib_control.config.kinds.authorization_policy import Condition, Operation, Rule, Source

HOSTS, METHODS, PATHS = "hosts", "methods", "paths"
_OF_THE_DESTINATION = frozenset({"destination.ip", "destination.port", "connection.sni"})
_HTTP_FIELDS = frozenset({HOSTS, METHODS, PATHS})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a rule is compiled for.  `tcp`: connections instead of requests.

    `lower_headers`: gRPC compares names of headers as they are written, and on the wire they are in lower case.
    """

    namespace: str  # of the policy
    trust: Trust
    tcp: bool = False
    allow: bool = True
    lower_headers: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """An attribute, and what it should and should not be."""

    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]


class _NeverMatches(Exception):
    """The rule asks an ALLOW on TCP for something of the request."""


def compile_rule(rule: Rule, circumstances: Circumstances) -> Policy | None:
    """None: on TCP the rule cannot match."""
    conditions = [_question(condition) for condition in rule.when]
    of_source = [item for item in conditions if not _is_of_destination(item.key)]
    of_destination = [item for item in conditions if _is_of_destination(item.key)]
    sources = [[*_of_source(item.source), *of_source] for item in rule.from_ or ()] or [of_source]
    operations = [[*_of_operation(item.operation), *of_destination] for item in rule.to or ()] or [of_destination]
    try:
        return Policy(
            permissions=[_permission(questions, circumstances) for questions in operations],
            principals=[_principal(questions, circumstances) for questions in sources],
        )
    except _NeverMatches:
        return None


def never() -> Policy:
    """Of a policy without rules."""
    return Policy(permissions=[Permission(not_rule=Permission(any=True))], principals=[Principal(not_id=Principal(any=True))])


def _is_of_destination(key: str) -> bool:
    return key in _OF_THE_DESTINATION or key.startswith(attributes.METADATA)


def _question(condition: Condition) -> _Question:
    return _Question(condition.key, condition.values, condition.not_values)


def _of_source(source: Source | None) -> Iterator[_Question]:
    if source is not None:
        yield _Question("source.principal", source.principals, source.not_principals)
        yield _Question("request.auth.principal", source.request_principals, source.not_request_principals)
        yield _Question("source.serviceAccount", source.service_accounts, source.not_service_accounts)
        yield _Question("source.trustDomain", source.trust_domains, source.not_trust_domains)
        yield _Question("source.namespace", source.namespaces, source.not_namespaces)
        yield _Question("remote.ip", source.remote_ip_blocks, source.not_remote_ip_blocks)
        yield _Question("source.ip", source.ip_blocks, source.not_ip_blocks)


def _of_operation(operation: Operation | None) -> Iterator[_Question]:
    if operation is not None:
        yield _Question(HOSTS, operation.hosts, operation.not_hosts)
        yield _Question(METHODS, operation.methods, operation.not_methods)
        yield _Question(PATHS, operation.paths, operation.not_paths)
        yield _Question("destination.port", operation.ports, operation.not_ports)


def _answerable(questions: Iterable[_Question], circumstances: Circumstances) -> Iterator[_Question]:
    """Those that say something, and can be asked here."""
    for question in questions:
        if not question.values and not question.not_values:
            continue
        if circumstances.tcp and (question.key in _HTTP_FIELDS or attributes.is_http_only(question.key)):
            if circumstances.allow:
                raise _NeverMatches
            continue
        yield question


def _permission(questions: Iterable[_Question], circumstances: Circumstances) -> Permission:
    found: list[Permission] = []
    for question in _answerable(questions, circumstances):
        if question.values:
            found.append(_any_permission(question.key, question.values))
        if question.not_values:
            found.append(Permission(not_rule=_any_permission(question.key, question.not_values)))
    return Permission(and_rules=Permission.Set(rules=found or [Permission(any=True)]))


def _any_permission(key: str, values: Sequence[str]) -> Permission:
    if key.startswith(attributes.METADATA):
        return Permission(metadata=matchers.filter_metadata(*attributes.metadata_key(key), values))
    make = _PERMISSIONS[key]
    return Permission(or_rules=Permission.Set(rules=[make(value) for value in values]))


_PERMISSIONS: dict[str, Callable[[str], Permission]] = {
    HOSTS: lambda value: Permission(header=matchers.header(":authority", value, ignore_case=True)),
    METHODS: lambda value: Permission(header=matchers.header(":method", value)),
    PATHS: matchers.path,
    "destination.port": lambda value: Permission(destination_port=int(value)),
    "destination.ip": lambda value: Permission(destination_ip=matchers.cidr(value)),
    "connection.sni": lambda value: Permission(requested_server_name=matchers.string(value)),
}


def _principal(questions: Iterable[_Question], circumstances: Circumstances) -> Principal:
    found: list[Principal] = []
    for question in _answerable(questions, circumstances):
        if question.values:
            found.append(_any_principal(question.key, question.values, circumstances))
        if question.not_values:
            found.append(Principal(not_id=_any_principal(question.key, question.not_values, circumstances)))
    return Principal(and_ids=Principal.Set(ids=found or [Principal(any=True)]))


_CLAIMS = {"request.auth.audiences": ("aud",), "request.auth.presenter": ("azp",)}


def _any_principal(key: str, values: Sequence[str], circumstances: Circumstances) -> Principal:
    if key in _CLAIMS:
        return Principal(metadata=matchers.claim(_CLAIMS[key], values))
    if key.startswith(attributes.CLAIMS):
        return Principal(metadata=matchers.claim(attributes.claim_path(key), values))
    return Principal(or_ids=Principal.Set(ids=list(_principals(key, values, circumstances))))


def _principals(key: str, values: Sequence[str], circumstances: Circumstances) -> Iterator[Principal]:
    match key:
        case "source.principal":
            names = chain.from_iterable(under_all_names(value, circumstances.trust) for value in values)
            return (_authenticated(matchers.principal(name)) for name in names)
        case "source.trustDomain":
            names = chain.from_iterable(under_all_names_of_domain(value, circumstances.trust) for value in values)
            return (_authenticated(matchers.trust_domain(name)) for name in names)
        case "source.namespace":
            return (_authenticated(matchers.namespace(value)) for value in values)
        case "source.serviceAccount":
            return (_authenticated(matchers.service_account(value, circumstances.namespace)) for value in values)
        case "source.ip":
            return (Principal(direct_remote_ip=matchers.cidr(value)) for value in values)
        case "remote.ip":
            return (Principal(remote_ip=matchers.cidr(value)) for value in values)
        case "request.auth.principal":
            return (_request_principal(value) for value in values)
        case _:
            name = attributes.header_name(key)
            name = name.lower() if circumstances.lower_headers else name
            return (Principal(header=matchers.header(name, value)) for value in values)


def _authenticated(name: StringMatcher) -> Principal:
    return Principal(authenticated=Principal.Authenticated(principal_name=name))


def _request_principal(value: str) -> Principal:
    issuer, subject = matchers.request_principal(value)
    return Principal(and_ids=Principal.Set(ids=[Principal(metadata=issuer), Principal(metadata=subject)]))
