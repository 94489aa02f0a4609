"""ProxyConfig: Istio's settings of the Envoy process beside a workload."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from meshlib_control.config.kinds.common import Element
from meshlib_control.config.kinds.destination_rule import WorkloadSelector


class ProxyImage(Element, frozen=True):
    """Which image of Envoy runs."""

    image_type: str | None = None
    """`default`, `debug`, `distroless`."""


class ProxyConfig(Element, frozen=True):
    """Settings of the Envoy process beside a workload. Processes of meshlib have none: they are refused by name."""

    selector: WorkloadSelector | None = None
    """Which workloads."""
    concurrency: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    """Worker threads of Envoy."""
    environment_variables: dict[str, Annotated[str, Meta(max_length=2048)]] = {}
    """Environment of Envoy."""
    image: ProxyImage | None = None
    """Which image of Envoy runs."""
