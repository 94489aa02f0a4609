"""From Consul's words to the mesh's, and back.  Pure.

| Consul | mesh |
|---|---|
| service name, meta or tag ``namespace`` (else "default") | host: reviews.default.svc.cluster.local |
| tags ``key=value``, other meta keys (they win over tags) | labels, so subsets: version=v2 |
| meta ``region``, ``zone``, ``sub_zone``; meta or tag ``locality`` (region/zone/sub_zone); else the node's meta; else the \
service's Locality; else the datacenter | locality |
| meta or tag ``weight``, else Weights.Passing (Weights.Warning while in warning) | weight |
| meta ``service-port`` | the port that callers name |
| meta or tag ``protocol``, ``service-account`` | protocol, service account |
| checks of node and service: passing, warning | healthy |
| critical | unhealthy |
| maintenance of node or service | draining |

Proxies, gateways and services without a port are passed over.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshlib_control.catalog.leases import Registration, is_instance_address
from meshlib_control.catalog.model import Instance, InstanceHealth, registered_host
from meshlib_control.catalog.offers import Offer
from meshlib_control.consul.agent import AgentService

REGISTERED = "meshlib-instance"
MTLS = "istio"  # as in Istio's label security.istio.io/tlsMode
_LOCALITY = ("region", "zone", "sub_zone")
_OURS = frozenset(
    {"namespace", "locality", *_LOCALITY, "weight", "service-port", "protocol", "service-account", REGISTERED},
)
_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0[xX][0-9a-fA-F]*)\.?")
"""Ends in what resolvers read as a number, and the whole as an IPv4 address: ``0x7f.1`` (WHATWG URL section 3.5)."""


def offers_of(entries: Iterable[Mapping[str, Any]], domain: str) -> tuple[list[Offer], list[str]]:
    """Instances from /v1/health/service, and a line for each entry that cannot be one."""
    offers, problems = [], []
    for entry in entries:
        try:
            offer = _offer(entry, domain)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(f"Consul has an entry that cannot be read: {error!r}"[:300])
            continue
        if offer is not None:
            offers.append(offer)
    return sorted(offers, key=lambda offer: offer.instance.id), problems


def hosts_of(name: str, tags: Sequence[str], domain: str) -> list[tuple[str, str]]:
    """(host, namespace) of a service that is known by name and tags alone; nothing for names that are no DNS label."""
    if not _LABEL.fullmatch(name.lower()):
        return []
    found = {value for key, value in (tag.split("=", 1) for tag in tags if "=" in tag) if key == "namespace"}
    namespaces = sorted(value for value in found if _LABEL.fullmatch(value)) or ["default"]
    return [(registered_host(name, namespace, domain), namespace) for namespace in namespaces]


def agent_service(instance_id: str, registration: Registration, *, ttl: float, deregister_after: float) -> AgentService:
    """How a registered process appears in Consul, for users of Consul who know nothing of the mesh."""
    region, zone, sub_zone, *_ = [*registration.locality.split("/"), "", "", ""]
    meta = {
        REGISTERED: instance_id,
        "namespace": registration.namespace,
        "region": region,
        "zone": zone,
        "sub_zone": sub_zone,
        "protocol": registration.protocol,
        "service-account": registration.service_account,
        "service-port": str(registration.service_port) if registration.service_port else "",
        "tls-mode": MTLS if registration.mtls else "",
    }
    # A label must not say there what only the registration may: the namespace, for one.
    tags = [f"{key}={value}" for key, value in sorted(registration.labels.items()) if key not in _OURS and key != "tls-mode"]
    if registration.namespace != "default":
        tags.append(f"namespace={registration.namespace}")
    return AgentService(
        id=_service_id(instance_id),
        name=registration.service,
        address=registration.address,
        port=registration.port,
        tags=tuple(tags),
        meta=tuple((key, value) for key, value in meta.items() if value),
        weight=min(registration.weight, 65535),
        ttl=ttl,
        deregister_after=deregister_after,
    )


def _service_id(instance_id: str) -> str:
    """Ids are part of URLs at Consul: what is not plain is hashed."""
    plain = instance_id if _PLAIN.fullmatch(instance_id) else hashlib.sha256(instance_id.encode()).hexdigest()[:40]
    return f"meshlib-{plain}"


def _offer(entry: Mapping[str, Any], domain: str) -> Offer | None:
    node, service = entry["Node"], entry["Service"]
    name, port = str(service["Service"]).lower(), int(service.get("Port") or 0)
    meta, tags = dict(service.get("Meta") or {}), _pairs(service.get("Tags") or ())
    namespace = str(meta.get("namespace") or tags.get("namespace") or "default").lower()
    if service.get("Kind") or not port:
        return None
    for what, value in (("service", name), ("namespace", namespace)):
        if not _LABEL.fullmatch(value):
            raise ValueError(f"{what} {value[:80]!r} is no DNS label")
    health, weight = _health(entry.get("Checks") or (), _weights(service, meta.get("weight") or tags.get("weight")))
    labels = {key: value for key, value in {**tags, **meta}.items() if key not in _OURS}
    return Offer(
        host=registered_host(name, namespace, domain),
        namespace=namespace,
        instance=Instance(
            id=f"consul:{node['Node']}/{service['ID']}",
            address=_address(service.get("Address") or node["Address"]),
            port=port,
            labels={key: str(labels[key]) for key in sorted(labels)},
            locality=_locality({**_parts(tags.get("locality")), **_parts(meta.get("locality")), **meta}, node, service),
            weight=max(1, weight),
            health=health,
            service_account=str(meta.get("service-account") or tags.get("service-account") or ""),
            mtls=(meta.get("tls-mode") or tags.get("tls-mode")) == MTLS,
        ),
        service_port=_port(meta.get("service-port")),
        protocol=str(meta.get("protocol") or tags.get("protocol") or "http").lower(),
        source="consul",
        registered_as=str(meta.get(REGISTERED) or ""),
    )


def _address(value: object) -> str:
    """An IP address or a host name, which connections can be made to.  Raises ValueError."""
    text = str(value)
    is_name = ":" not in text and not _NUMBER.fullmatch(text)
    if not (_HOST.fullmatch(text) if is_name else is_instance_address(text)):
        raise ValueError(f"address {text[:80]!r} is none that an instance can have")
    return text


def _weights(service: Mapping[str, Any], weight: object) -> Mapping[str, Any]:
    """What is written at the service goes before Consul's own weights, of which every service has some."""
    if not weight:
        return service.get("Weights") or {}
    return {"Passing": int(str(weight)), "Warning": int(str(weight))}


def _health(checks: Sequence[Mapping[str, Any]], weights: Mapping[str, Any]) -> tuple[InstanceHealth, int]:
    """Consul's aggregation: maintenance, then the worst status.  A weight of 0 means that nothing shall go there."""
    passing = int(weights.get("Passing", 1))
    statuses = {str(check.get("Status")) for check in checks}
    if any(_is_maintenance(str(check.get("CheckID"))) for check in checks):
        return InstanceHealth.DRAINING, passing
    if not statuses <= {"passing", "warning"}:
        return InstanceHealth.UNHEALTHY, passing
    weight = int(weights.get("Warning", passing)) if "warning" in statuses else passing
    return (InstanceHealth.HEALTHY if weight > 0 else InstanceHealth.UNHEALTHY), weight


def _is_maintenance(check_id: str) -> bool:
    return check_id == "_node_maintenance" or check_id.startswith("_service_maintenance:")


def _locality(meta: Mapping[str, Any], node: Mapping[str, Any], service: Mapping[str, Any]) -> str:
    structured = service.get("Locality") or node.get("Locality") or {}
    sources: list[Mapping[str, Any]] = [
        meta,
        node.get("Meta") or {},
        {"region": structured.get("Region"), "zone": structured.get("Zone")},
        {"region": node.get("Datacenter")},
    ]
    for source in sources:
        if source.get("region"):
            parts = [str(source.get(part) or "") for part in _LOCALITY]
            return "/".join(parts).rstrip("/")
    return ""


def _parts(locality: object) -> Mapping[str, str]:
    """``region/zone/sub_zone``, as far as it goes."""
    return dict(zip(_LOCALITY, str(locality).split("/"), strict=False)) if locality else {}


def _port(text: object) -> int:
    if not text:
        return 0
    port = int(str(text))
    if not 0 < port < 65536:
        raise ValueError(f"service-port {port} is no port")
    return port


def _pairs(tags: Iterable[str]) -> dict[str, str]:
    """``key=value`` tags; plain ones are words for people."""
    pairs = {}
    for tag in tags:
        key, separator, value = str(tag).partition("=")
        if separator and key:
            pairs[key] = value
    return pairs
