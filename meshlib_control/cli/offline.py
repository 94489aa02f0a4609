"""What needs no control service: files to findings, files to a node's resources, codes to explanations."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib_control.admin import views
from meshlib_control.admin.findings import finding_views
from meshlib_control.cli.failures import USAGE, Failure
from meshlib_control.config import CODES, REFUSES, ConfigResource, ConfigSet, Finding, analyze, load
from meshlib_control.config.validate.names import namespace_fault

Texts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Analyzed:
    """Files as one configuration, and everything that is wrong with it."""

    config: ConfigSet
    findings: list[views.FindingView]

    @property
    def is_refused(self) -> bool:
        """Whether `apply` would store none of it.  Other errors, such as a host that is claimed twice, only inform."""
        return any(finding.severity == "error" and finding.code in REFUSES for finding in self.findings)


def analyzed(texts: Texts, namespace: str) -> Analyzed:
    """Read and check `texts` as if they were the whole configuration of a mesh."""
    resources, findings = _read(texts, namespace)
    config = ConfigSet(resources)
    return Analyzed(config, finding_views([*findings, *analyze(config)]))


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a node would get, as protobuf-JSON with Envoy's ``@type``.

    `assumed`: the ports that it is taken to serve, as it names none.
    """

    resources: list[views.Document]
    assumed: tuple[int, ...] = ()


def compiled(config: ConfigSet, node: views.NodeView) -> Compiled:
    """Every resource that `node` would get."""
    from meshlib_control.admin.nodes import node_of
    from meshlib_control.catalog.model import CatalogSnapshot
    from meshlib_control.compile.document import compile_document
    from meshlib_control.compile.served import served_ports
    from meshlib_control.compile.world import World

    world, known = World.of(config, CatalogSnapshot()), node_of(node)
    assumed = () if node.ports else tuple(port.number for port in served_ports(world, known))
    return Compiled(compile_document(world, known), assumed)


def authorized(config: ConfigSet, request: views.AuthorizeRequest, *, certain: bool) -> views.AuthorizationView:
    """Whether a request would be served if `config` were all there is.  Raises `Failure`.

    A service that it does not declare has the workloads that policies select by its name: they need no more.  `certain`:
    whether a short name is known to be of the request's namespace.
    """
    import time

    from msgspec.structs import replace

    from meshlib_control.admin.authorization import authorization
    from meshlib_control.admin.callee import callee
    from meshlib_control.admin.problems import Problem
    from meshlib_control.catalog.model import CatalogSnapshot
    from meshlib_control.compile.world import World

    world = World.of(config, CatalogSnapshot())
    try:
        service, namespace = callee(world, request.service.lower(), request.namespace, certain=certain)
        return authorization(world, service, replace(request, namespace=namespace), now=time.time())
    except Problem as problem:
        document = problem.document
        raise Failure(document["what"], why=document["why"], next_step=document["next"], exit_code=USAGE) from problem


def keys_in(texts: Texts, namespace: str) -> list[tuple[str, str, str]]:
    """(kind, namespace, name) of each resource in `texts`; what they say need not be valid."""
    resources, _ = _read(texts, namespace)
    return [(resource.key.kind, resource.key.namespace, resource.key.name) for resource in resources]


def explained(code: str | None) -> list[views.CodeView]:
    """The table of codes, or the one row of `code`."""
    return [
        views.CodeView(
            code=row.id,
            severity=row.severity.value,
            title=row.title,
            meaning=row.meaning,
            action=row.action,
            refuses=row.id in REFUSES,
        )
        for row in CODES.values()
        if code in (None, row.id)
    ]


def _read(texts: Texts, namespace: str) -> tuple[list[ConfigResource], list[Finding]]:
    fault = namespace_fault(namespace)
    if fault:
        raise Failure(f"--namespace: {fault}", exit_code=USAGE)
    return load(texts, namespace=namespace)
