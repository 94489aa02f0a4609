"""Real parts that integration tests share."""

from tests.support.consul import consul_agent, own_consul

__all__ = ["consul_agent", "own_consul"]
