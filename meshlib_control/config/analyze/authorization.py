"""AuthorizationPolicies against what is around them: workloads, identities, authorizers, mTLS, tokens, TCP ports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from meshlib_control.config import attributes
from meshlib_control.config.analyze.conditions import check_values
from meshlib_control.config.analyze.landscape import Issue, KnownService, Landscape
from meshlib_control.config.authorization import selector_of
from meshlib_control.config.findings import Severity
from meshlib_control.config.kinds import AuthorizationPolicy
from meshlib_control.config.kinds.authorization_policy import Rule
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.mtls import PeerAuthentications
from meshlib_control.config.problems import Path, Problem, under

_DEFAULT_TRUST_DOMAIN = "cluster.local"
_NOT_HTTP = frozenset({"tcp", "tls", "https", "udp", "mongo", "mysql", "redis"})

Question = tuple[Path, str, tuple[str, ...], bool]
"""Path below the rule, attribute, values, and whether none of them may be there."""

_ATTRIBUTES = {
    "principals": "source.principal",
    "request_principals": "request.auth.principal",
    "namespaces": "source.namespace",
    "service_accounts": "source.serviceAccount",
    "trust_domains": "source.trustDomain",
    "ip_blocks": "source.ip",
    "remote_ip_blocks": "remote.ip",
    "hosts": "hosts",
    "ports": "destination.port",
    "methods": "methods",
    "paths": "paths",
}
HTTP_FIELDS = frozenset({"hosts", "methods", "paths"})


def check_authorization(land: Landscape) -> Iterator[Issue]:
    """Everything that can be said of AuthorizationPolicies without a request."""
    modes = PeerAuthentications(land.peer_authentications, land.mesh.root_namespace)
    for resource in land.authorization_policies:
        spec: AuthorizationPolicy = resource.spec
        problems = [*_check_selector(resource, land), *_check_provider(resource, land)]
        for index, rule in enumerate(spec.rules):
            asked = list(questions(rule))
            found = [
                *check_values(asked, spec.action, normalized=land.mesh.path_normalization.normalization != "NONE"),
                *_check_identities(asked, land),
                *_check_plaintext(asked, resource, land, modes),
                *_check_tokens(asked, resource, land),
                *_check_tcp(rule, asked, resource, land),
            ]
            problems += under(("rules", index), found)
        for problem in under(("spec",), problems):
            yield Issue(resource, problem)


def questions(rule: Rule) -> Iterator[Question]:
    """All that a rule asks for."""
    for index, item in enumerate(rule.from_ or ()):
        yield from _of_lists(("from", index, "source"), item.source)
    for index, operation in enumerate(rule.to or ()):
        yield from _of_lists(("to", index, "operation"), operation.operation)
    for index, condition in enumerate(rule.when):
        for name, values, negated in (("values", condition.values, False), ("notValues", condition.not_values, True)):
            if values:
                yield ("when", index, name), condition.key, values, negated


def _of_lists(path: Path, element: object) -> Iterator[Question]:
    if element is None:
        return
    fields = zip(element.__struct_fields__, element.__struct_encode_fields__, strict=True)  # type: ignore[attr-defined]
    for name, encoded in fields:
        values: tuple[str, ...] = getattr(element, name)
        if values:
            plain = name.removeprefix("not_")
            yield (*path, encoded), _ATTRIBUTES[plain], values, name != plain


def _check_selector(resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    selector = selector_of(resource)
    known = [labels for service in _in_reach(resource, land) for labels in land.instances(service.host)]
    if selector and known and not any(selector.items() <= labels.items() for labels in known):
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        where = "the mesh" if resource.key.namespace == land.mesh.root_namespace else resource.key.namespace
        message = f"none of the {len(known)} known instances in {where} has {wanted}: the policy is about nobody"
        yield Problem(("selector",), "MSH0321", message)
    elif land.live and not _in_reach(resource, land) and resource.key.namespace != land.mesh.root_namespace:
        yield Problem(("selector",), "MSH0321", f"the catalog has no service in {resource.key.namespace}")


def _in_reach(resource: ConfigResource, land: Landscape) -> list[KnownService]:
    """The services of the mesh whose workloads the policy may be about."""
    everywhere = resource.key.namespace == land.mesh.root_namespace
    return [
        service
        for service in land.known
        if service.location != "MESH_EXTERNAL" and (everywhere or service.namespace == resource.key.namespace)
    ]


def _check_provider(resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    spec: AuthorizationPolicy = resource.spec
    if spec.action != "CUSTOM" or spec.provider is None:
        return
    path, consequence = ("provider", "name"), "what the policy matches is refused"
    reason = _unaskable(spec.provider.name, land) or _not_alone(resource, spec.provider.name, land)
    if reason:
        yield Problem(path, "MSH0323", f"{reason}: {consequence}", None if land.whole else Severity.WARNING)
    elif service := _unknown_authorizer(spec.provider.name, land):
        message = f"no service {service} is known, which {spec.provider.name} asks: unless there is one, {consequence}"
        yield Problem(path, "MSH0323", message, None if land.live else Severity.WARNING)


def _unaskable(name: str, land: Landscape) -> str:
    """Why the provider of this name cannot be asked, whatever services there are."""
    providers = {provider.name: provider for provider in land.mesh.extension_providers}
    if name in providers:
        return ""
    close = get_close_matches(name, providers, n=1)
    hint = f"did you mean {close[0]}?" if close else "add it to its extensionProviders"
    return f"MeshConfig has no extension provider {name} ({hint})"


def _unknown_authorizer(name: str, land: Landscape) -> str:
    """The service that a provider asks, if it is not there as far as is known."""
    provider = next(provider for provider in land.mesh.extension_providers if provider.name == name)
    authorizer = provider.envoy_ext_authz_http or provider.envoy_ext_authz_grpc
    if authorizer is None:
        return ""
    namespace, _, host = authorizer.service.rpartition("/")
    known = any(not namespace or service.namespace == namespace for service in land.services(host.lower()))
    return "" if known else authorizer.service


def _not_alone(resource: ConfigResource, name: str, land: Landscape) -> str:
    for other in land.authorization_policies:
        spec: AuthorizationPolicy = other.spec
        differs = spec.action == "CUSTOM" and spec.provider is not None and spec.provider.name != name
        if differs and _overlap(resource, other, land):
            return f"{other.key} has another provider for workloads of this policy, and of two none is asked"
    return ""


def _overlap(one: ConfigResource, other: ConfigResource, land: Landscape) -> bool:
    """Whether some workload may be selected by both."""
    namespaces = {one.key.namespace, other.key.namespace}
    return (len(namespaces) == 1 or land.mesh.root_namespace in namespaces) and _compatible(
        selector_of(one), selector_of(other)
    )


def _compatible(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(key, value) == value for key, value in one.items())


def _check_identities(asked: Iterable[Question], land: Landscape) -> Iterator[Problem]:
    """Names of namespaces and trust domains that nobody has, as far as that is known."""
    own = {land.mesh.trust_domain or _DEFAULT_TRUST_DOMAIN, _DEFAULT_TRUST_DOMAIN, *land.mesh.trust_domain_aliases}
    own.update(domain for authority in land.mesh.ca_certificates for domain in authority.trust_domains)
    namespaces = {service.namespace for service in land.known} | {land.mesh.root_namespace} if land.live else set()
    for path, key, values, _ in asked:
        for index, value in enumerate(values):
            domain, namespace = _parts(key, value)
            if land.mesh.trust_domain and domain and "*" not in domain and domain not in own:
                message = f"{domain} is not the mesh's trust domain, no other name of it, and none that it believes"
                yield Problem((*path, index), "MSH0322", message)
            if namespaces and namespace and "*" not in namespace and namespace not in namespaces:
                close = get_close_matches(namespace, namespaces, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                yield Problem((*path, index), "MSH0322", f"the catalog has no service in the namespace {namespace}{hint}")


def _parts(key: str, value: str) -> tuple[str, str]:
    """Trust domain and namespace that a value names; empty: none."""
    match key:
        case "source.principal":
            parts = value.split("/")
            return (parts[0], parts[2]) if len(parts) == 5 and parts[1] == "ns" else ("", "")
        case "source.namespace":
            return "", value
        case "source.serviceAccount":
            return "", value.partition("/")[0] if "/" in value else ""
        case "source.trustDomain":
            return value, ""
        case _:
            return "", ""


def _check_plaintext(
    asked: Iterable[Question], resource: ConfigResource, land: Landscape, modes: PeerAuthentications
) -> Iterator[Problem]:
    """I11: who proves no identity is not in a namespace, and not in none of them either."""
    action = resource.spec.action
    mode = modes.mode(resource.key.namespace, selector_of(resource), 0)
    if mode == "STRICT":
        return
    for path, key, _, negated in asked:
        if not attributes.needs_peer(key) or negated is (action != "ALLOW"):
            continue
        what = "lets none of them in" if action == "ALLOW" else "holds for all of them"
        message = (
            f"mTLS is {mode} here, and callers without it prove no identity: this {what}, and under Envoy the opposite;"
            " make it STRICT with a PeerAuthentication"
        )
        yield Problem(path, "MSH0324", message)


def _check_tokens(asked: Iterable[Question], resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    root = land.mesh.root_namespace
    for authentication in land.request_authentications:
        spec = authentication.spec
        labels = spec.selector.match_labels if spec.selector is not None else {}
        near = authentication.key.namespace in (root, resource.key.namespace) or resource.key.namespace == root
        if near and _compatible(labels, selector_of(resource)):
            return
    for path, key, _, _ in asked:
        if key in attributes.TOKEN or key.startswith(f"{attributes.CLAIMS}["):
            message = "no RequestAuthentication is for these workloads, so nothing is known of any token; add one"
            yield Problem(path, "MSH0330", message)


def _check_tcp(rule: Rule, asked: Iterable[Question], resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    """I16: what becomes of a rule on ports without requests."""
    of_requests = [path for path, key, _, _ in asked if key in HTTP_FIELDS or attributes.is_http_only(key)]
    if not of_requests:
        return
    ports = _tcp_ports(resource, land)
    named = {
        int(port) for item in rule.to or () if item.operation is not None for port in item.operation.ports if port.isdecimal()
    }
    hit = sorted(ports & named) if named else sorted(ports)
    if not hit:
        return
    shown = ", ".join(map(str, hit))
    if resource.spec.action == "ALLOW":
        message = f"there are no requests on the TCP port {shown}: the rule never allows a connection there"
        yield Problem(of_requests[0], "MSH0326", message)
    else:
        message = f"there are no requests on the TCP port {shown}: there this is left out, and the rule holds for more"
        yield Problem(of_requests[0], "MSH0325", message)


def _tcp_ports(resource: ConfigResource, land: Landscape) -> set[int]:
    selector = selector_of(resource)
    services = [
        service
        for service in _in_reach(resource, land)
        if not selector or any(selector.items() <= labels.items() for labels in land.instances(service.host))
    ]
    return {port.number for service in services for port in service.ports if port.protocol in _NOT_HTTP}
