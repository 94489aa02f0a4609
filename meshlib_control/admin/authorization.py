"""May this request be served, and why?  Asked of the data plane's own code, for each kind of workload behind a service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from meshlib_control.admin import views
from meshlib_control.admin.callee import assumed_labels
from meshlib_control.admin.problems import Problem
from meshlib_control.catalog.model import Port, Service, registered_host
from meshlib_control.compile.authorization import policies_of
from meshlib_control.compile.hosts import bracketed
from meshlib_control.compile.inbound import inbound_listener, inbound_name
from meshlib_control.compile.node import Node, Scope
from meshlib_control.compile.scope import scope_of
from meshlib_control.compile.services import instance_port, is_http
from meshlib_control.compile.world import World
from meshlib_control.config.authorization import is_for_workloads, selector_of
from meshlib_control.config.model import ConfigResource

if TYPE_CHECKING:
    from meshlib.lowlevel import Authorization, Connection, RuleTrial, ServerRequest

_NAME = re.compile(
    r"(?:istio-ext-authz-.*-)?ns\[(?P<namespace>.*?)\]-policy\[(?P<name>.*)\]-rule\[(?P<rule>[0-9]+)\].*", re.DOTALL
)
_ASSUMED: Final = (
    "no instance is known: judged by the labels that policies select with the service's name, or none (--label says)"
)
_WORST: Final[tuple[Literal["denied", "asked", "allowed"], ...]] = ("denied", "asked", "allowed")


@dataclass(slots=True)
class _Workload:
    """Instances that get the same listener.  `address`: of one of them, where a policy looks at it.

    `assumed`: there is no instance and nobody named the labels, so they are those by which policies select.
    """

    scope: Scope
    port: int
    labels: dict[str, str]
    address: str = ""
    instances: list[str] = field(default_factory=list)
    assumed: bool = False


def authorization(
    world: World, service: Service | None, request: views.AuthorizeRequest, *, now: float
) -> views.AuthorizationView:
    """`service` None: nobody knows it, and workloads of `request.namespace` are meant, with `request.labels` or with labels by
    which policies select them.

    `now`: Unix seconds.  Raises `Problem` for what cannot be asked.
    """
    host = service.host if service is not None else _host(request.service, request.namespace)
    port = _port(service, request)
    name = bracketed(request.service) + (f":{request.port}" if request.port and request.port != 80 else "")
    found: list[tuple[views.WorkloadVerdict, Authorization]] = []
    for workload in _workloads(world, service, port, request):
        answer = _authorize(world, workload, request, host=name, now=now)
        found.append((_verdict(world, workload, answer), answer))
    outcome = next(outcome for outcome in _WORST if any(verdict.outcome == outcome for verdict, _ in found))
    first = found[0][1]
    return views.AuthorizationView(
        service=host, outcome=outcome, workloads=[verdict for verdict, _ in found], path=first.path, host=first.host
    )


def _host(name: str, namespace: str) -> str:
    """What a service would be called in full that was registered by a name such as ``reviews`` or ``reviews.shop``."""
    label, _, rest = name.partition(".")
    return registered_host(label, namespace) if rest in ("", namespace, f"{namespace}.svc") else name


def _port(service: Service | None, request: views.AuthorizeRequest) -> Port:
    ports = service.ports if service is not None else ()
    # Without a port a URL means 80, as in http://ratings/; a service that has no such port may have just one other.
    named = request.port or (80 if len(ports) > 1 and any(port.number == 80 for port in ports) else 0)
    found = next((port for port in ports if named in (0, port.number)), None)
    if found is None and not ports:
        return Port(request.port or 80)
    listed = ", ".join(str(port.number) for port in ports)
    if found is None:
        raise Problem(
            404, f"{request.service} has no port {request.port}", why=f"it has {listed}", next_step="Name one of them."
        )
    if len(ports) > 1 and not named:
        why = f"it has the ports {listed}"
        raise Problem(
            400, f"which port of {request.service}?", why=why, next_step=f"For example {request.service}:{ports[0].number}."
        )
    if not is_http(found):
        raise Problem(
            400,
            f"port {found.number} of {request.service} does not serve requests",
            why=f"its protocol is {found.protocol}",
            next_step="Only HTTP can be asked about; `meshctl analyze` tells what policies mean for TCP.",
        )
    return found


def _workloads(world: World, service: Service | None, port: Port, request: views.AuthorizeRequest) -> Iterator[_Workload]:
    """One for each listener that instances have; if there are none, those with the labels of the request."""
    namespace = service.namespace if service is not None else request.namespace
    groups: dict[object, _Workload] = {}
    for instance in world.instances_of(service) if service is not None and request.labels is None else ():
        scope = scope_of(world, Node(namespace=namespace, labels=instance.labels))
        number = instance_port(instance, port)
        address = instance.address if _looks_at_address(policies_of(world, scope)) else ""
        one = groups.setdefault((scope, number, address), _Workload(scope, number, dict(scope.labels), address))
        one.instances.append(f"{bracketed(instance.address)}:{number}")
    if groups:
        yield from groups.values()
        return
    assumed = assumed_labels(world, namespace, request.service) if request.labels is None else [request.labels]
    for labels in assumed:
        scope = scope_of(world, Node(namespace=namespace, labels=labels))
        yield _Workload(scope, port.target or port.number, dict(labels), assumed=request.labels is None)


def _looks_at_address(policies: tuple[ConfigResource, ...]) -> bool:
    return any(
        condition.key == "destination.ip" for policy in policies for rule in policy.spec.rules for condition in rule.when
    )


def _authorize(world: World, workload: _Workload, request: views.AuthorizeRequest, *, host: str, now: float) -> Authorization:
    # The data plane is imported when it is asked for: compiling, offline, does without.
    from meshlib import lowlevel
    from meshlib.xds.invalid import ResourceInvalid

    listener = inbound_listener(world, workload.scope, inbound_name(workload.port))
    assert listener is not None, "every port has a listener"
    try:
        return lowlevel.authorize(
            listener.SerializeToString(), _request(workload, request, host=host), now=now, claims=request.claims
        )
    except ResourceInvalid as error:
        raise Problem(
            500,
            "a workload would refuse its policies",
            where=f"port {workload.port}",
            why=str(error),
            next_step="This is a defect of the control service; `meshctl compile` shows the resource.",
        ) from error


def _request(workload: _Workload, request: views.AuthorizeRequest, *, host: str) -> ServerRequest:
    from meshlib.lowlevel import ServerRequest

    try:
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        target = request.path.encode("ascii")
    except UnicodeEncodeError as error:
        raise Problem(400, "a path is ASCII and a header Latin-1", why=str(error), next_step="Percent-encode it.") from error
    if not any(name == b"host" for name, _ in headers):
        headers.insert(0, (b"host", host.encode("ascii", "replace")))
    return ServerRequest(request.method, target, headers, connection=_connection(workload, request))


def _connection(workload: _Workload, request: views.AuthorizeRequest) -> Connection:
    from meshlib.lowlevel import Connection, Peer, SpiffeId

    try:
        peer = Peer(SpiffeId.parse(request.source)) if request.source else None
    except ValueError as error:
        raise Problem(
            400, "--from is not a SPIFFE ID", why=str(error), next_step="For example spiffe://cluster.local/ns/default/sa/web."
        ) from error
    return Connection(
        remote_address=request.source_address,
        local_address=workload.address,
        local_port=workload.port,
        tls=peer is not None,
        peer=peer,
        server_name=request.server_name,
    )


def _verdict(world: World, workload: _Workload, answer: Authorization) -> views.WorkloadVerdict:
    policy, rule = parse_policy_name(answer.policy)
    return views.WorkloadVerdict(
        port=workload.port,
        mtls=answer.mtls,
        outcome=answer.outcome,
        reason=answer.reason,
        policy=policy,
        rule=rule,
        status=answer.status,
        labels=workload.labels,
        instances=sorted(workload.instances),
        steps=[
            views.AuthorizationStep(step.action, step.outcome, step.detail, [_rule(trial) for trial in step.rules])
            for step in answer.steps
        ],
        not_for_it=list(_not_for_it(world, workload)),
        notes=[*answer.notes, *([_ASSUMED] if workload.assumed else [])],
    )


def parse_policy_name(name: str) -> tuple[str, int]:
    """``AuthorizationPolicy/foo/httpbin`` and 0 of what RBAC calls the rule; as it is, and -1, of anything else."""
    found = _NAME.fullmatch(name)
    if found is None:
        return name, -1
    return f"AuthorizationPolicy/{found['namespace']}/{found['name']}", int(found["rule"])


def _rule(trial: RuleTrial) -> views.RuleTried:
    policy, rule = parse_policy_name(trial.name)
    return views.RuleTried(policy=policy, rule=rule, matched=trial.matched, reason=trial.reason, dry_run=trial.dry_run)


def _not_for_it(world: World, workload: _Workload) -> Iterator[str]:
    """Policies of the workload's namespace, or of the root's, that are for others."""
    holding = {policy.key for policy in policies_of(world, workload.scope)}
    namespaces = (world.settings.root_namespace, workload.scope.namespace)
    for policy in world.routing.config.of("AuthorizationPolicy"):
        if policy.key.namespace in namespaces and policy.key not in holding:
            attached = f"{policy.key} is for a gateway"
            yield f"{policy.key} selects {_labels(selector_of(policy))}" if is_for_workloads(policy) else attached


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
