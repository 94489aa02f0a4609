"""A service as this agent is told about it.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentService:
    """A service of this agent with one TTL check, as PUT /v1/agent/service/register takes it."""

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: tuple[tuple[str, str], ...]
    weight: int
    ttl: float  # seconds
    deregister_after: float  # seconds in a critical state; Consul's minimum is a minute
