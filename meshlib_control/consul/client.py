"""The calls to Consul that meshlib makes: key-value pairs, the catalog, health, and this agent's own services.

A thin adapter over py-consul that closes its gaps: an explicit token beats the environment's and is sent with
transactions too, the headers about staleness are kept, and health queries may be stale.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from meshlib_control.consul.address import ConsulAddress
from meshlib_control.consul.agent import AgentService
from meshlib_control.consul.blocking import Answer, Consistency, Query
from meshlib_control.consul.errors import ConsulError
from meshlib_control.errors import ControlServiceError

if TYPE_CHECKING:
    from meshlib_control.consul.transport import Params, Reply, Transport

T = TypeVar("T")

# The body of a transaction is limited to 512 KiB, and its values are base64.
TRANSACTION_VALUE_LIMIT = 380_000


@dataclass(frozen=True, slots=True)
class Pair:
    """A key, its value and its ModifyIndex."""

    key: str
    value: bytes
    index: int


class ConsulClient:
    """Raises `ConsulError` for everything that goes wrong.  Opens nothing before the first call."""

    def __init__(self, address: ConsulAddress, *, timeout: float = 10.0) -> None:
        self.address = address
        self.timeout = timeout
        self._consul = _py_consul(address, timeout)
        self._http: Transport = self._consul.http

    async def get(self, key: str) -> Pair | None:
        """By a consistent read."""
        reply = await self._read(f"/v1/kv/{key}", consistency="consistent")
        pairs = _decoded(reply, _pairs)
        return pairs[0] if pairs else None

    async def scan(self, prefix: str, query: Query | None = None) -> Answer[tuple[Pair, ...]]:
        """All pairs under a prefix in order of their keys, at once and consistent, or as the query says."""
        consistency = query.consistency if query else "consistent"
        reply = await self._read(f"/v1/kv/{prefix}", ("recurse", "1"), query=query, consistency=consistency)
        return _answer(reply, tuple(sorted(_decoded(reply, _pairs), key=lambda pair: pair.key)))

    async def put(self, key: str, value: bytes) -> None:
        await self._consul.kv.put(key, value)

    async def put_if(self, key: str, value: bytes, index: int) -> bool:
        """Compare-and-set by ModifyIndex; 0: only if there is no such key."""
        reply: Reply = await self._consul.kv.put(key, value, cas=index)
        return reply.content is True

    async def delete(self, key: str) -> None:
        await self._consul.kv.delete(key)

    async def transact(self, *operations: Mapping[str, object]) -> list[Pair] | None:
        """Key-value operations that happen together; None when a condition among them does not hold."""
        body = json.dumps([{"KV": operation} for operation in operations])
        headers = self._consul.prepare_headers()
        reply: Reply = await self._http.put(_json, "/v1/txn", params=self._scope(), data=body, headers=headers)
        if reply.status == 409:
            return None
        return _decoded(reply, lambda content: [_pair(result["KV"]) for result in content["Results"] or ()])

    async def services(self, query: Query) -> Answer[Mapping[str, tuple[str, ...]]]:
        """Names of all services, with the tags that any of their instances has."""
        reply = await self._read("/v1/catalog/services", query=query, consistency=query.consistency)
        return _answer(reply, _decoded(reply, _names))

    async def health(self, service: str, query: Query) -> Answer[list[dict[str, Any]]]:
        """Instances of a service with node and checks, as Consul gives them."""
        reply = await self._read(f"/v1/health/service/{service}", query=query, consistency=query.consistency)
        return _answer(reply, _decoded(reply, lambda content: [dict(item) for item in content or ()]))

    async def register(self, service: AgentService) -> None:
        check = {
            "checkid": check_id(service.id),
            "name": "lease at the mesh's control service",
            "ttl": f"{service.ttl:.3f}s",
            "status": "passing",
            "deregistercriticalserviceafter": f"{max(60.0, service.deregister_after):.0f}s",
        }
        await self._consul.agent.service.register(
            service.name,
            service_id=service.id,
            address=service.address,
            port=service.port,
            tags=list(service.tags),
            meta=dict(service.meta),
            weights={"Passing": service.weight, "Warning": service.weight},
            check=check,
        )

    async def deregister(self, service_id: str) -> None:
        await self._consul.agent.service.deregister(service_id)

    async def report(self, service_id: str, *, passing: bool, note: str = "") -> bool:
        """Renew a TTL check.  False: this agent does not know it (404, or 500 before Consul 1.11); register again."""
        checks = self._consul.agent.check
        try:
            reply: Reply = await (checks.ttl_pass if passing else checks.ttl_fail)(check_id(service_id), notes=note or None)
        except ConsulError as error:
            if error.status == 500 and "does not have associated TTL" in str(error):
                return False
            raise
        return reply.status == 200

    async def close(self) -> None:
        await self._http.close()

    def _scope(self) -> list[tuple[str, Any]]:
        return [("dc", self.address.datacenter)] if self.address.datacenter else []

    async def _read(
        self, path: str, *params: tuple[str, Any], query: Query | None = None, consistency: Consistency = "default"
    ) -> Reply:
        sent: Params = [*params, *self._scope()]
        timeout = self.timeout
        if query is not None and query.index:
            sent = [*sent, ("index", query.index), ("wait", f"{query.wait:.3f}s")]
            timeout += query.read_timeout
        if consistency != "default":
            sent = [*sent, (consistency, "1")]
        return await self._http.get(_json, path, sent, self._consul.prepare_headers(), timeout=timeout)


def check_id(service_id: str) -> str:
    return f"meshlib-lease:{service_id}"


def cas(key: str, value: bytes, index: int) -> Mapping[str, object]:
    return {"Verb": "cas", "Key": key, "Value": base64.b64encode(value).decode(), "Index": index}


def set_key(key: str, value: bytes) -> Mapping[str, object]:
    return {"Verb": "set", "Key": key, "Value": base64.b64encode(value).decode()}


def delete_if(key: str, index: int) -> tuple[Mapping[str, object], ...]:
    """Consul's own delete-cas says yes for a key that is not there, so the condition is an operation of its own."""
    if not index:
        return ({"Verb": "check-not-exists", "Key": key},)
    return {"Verb": "check-index", "Key": key, "Index": index}, {"Verb": "delete", "Key": key}


def _py_consul(address: ConsulAddress, timeout: float) -> Any:
    """py-consul with our transport below it.  Imported here: it takes a fifth of a second, and is an extra."""
    try:
        import consul.base

        from meshlib_control.consul.transport import Transport
    except ImportError as error:
        raise ControlServiceError(f"Consul needs the extra `consul`: pip install '.[consul]' ({error})") from error

    class Client(consul.base.Consul):  # type: ignore[misc]
        def http_connect(self, *_: object, **__: object) -> Transport:
            return Transport(address, timeout)

    client = Client(address.host, address.port, scheme=address.scheme, dc=address.datacenter or None)
    if address.token:
        client.token = address.token  # the constructor lets CONSUL_HTTP_TOKEN win
    return client


def _json(response: Any) -> Any:
    return json.loads(response.body) if response.body and response.code != 404 else None


def _decoded(reply: Reply, decode: Callable[[Any], T]) -> T:
    """What stands between this process and Consul may answer 200 and anything."""
    try:
        return decode(reply.content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConsulError(f"an answer that is not Consul's: {error!r}"[:300], reply.status) from error


def _names(content: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted(tags)) for name, tags in (content or {}).items()}


def _pairs(content: Sequence[Mapping[str, Any]] | None) -> list[Pair]:
    return [_pair(item) for item in content or ()]


def _pair(item: Mapping[str, Any]) -> Pair:
    return Pair(item["Key"], base64.b64decode(item["Value"] or b""), int(item["ModifyIndex"]))


def _answer(reply: Reply, content: Any) -> Answer[Any]:
    return Answer(
        index=_header(reply, "X-Consul-Index"),
        content=content,
        last_contact=_header(reply, "X-Consul-LastContact") / 1000.0,
        known_leader=reply.headers.get("X-Consul-KnownLeader", "true").lower() != "false",
    )


def _header(reply: Reply, name: str) -> int:
    """A count; 0 when it is missing or not a number (an index of 0 is handled by the rules of blocking queries)."""
    try:
        return max(0, int(reply.headers.get(name, "0")))
    except ValueError:
        return 0
