"""One configuration with its requests, and what both sides have decided about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from meshlib_control.compile import Node, World
from meshlib_control.compile.node import Flavour
from meshlib_control.config import REFUSES, ConfigSet, Finding, Severity, load
from tests.support.configuring import INSECURE
from tests.support.routing.configurations import CALLER_LABELS, Configuration, configuration
from tests.support.routing.requests import Request, requests


@dataclass(frozen=True, slots=True)
class Case:
    """`refused`: what the validator had to say about documents that it did not let through; they are no part of `world`."""

    configuration: Configuration
    world: World
    requests: Sequence[Request]
    refused: Sequence[Finding]
    anywhere: frozenset[str] = field(default_factory=frozenset)  # clusters that lead to where the caller wanted to go anyway

    def node(self, flavour: Flavour) -> Node:
        return Node(flavour=flavour, namespace=self.configuration.namespace, labels=CALLER_LABELS)

    def number(self, side: str, place: int) -> str:
        return f"{side}{self.configuration.index}-{place}"


def case(index: int, seed: str, *, port: int, count: int) -> Case:
    """The configuration `index` of a seed, with `count` requests; endpoints listen on `port`."""
    rng = Random(f"{seed}/{index}")
    found = configuration(index, rng, port)
    resources, findings = load([(f"{number}.yaml", json.dumps(document)) for number, document in enumerate(found.documents)])
    refused = [finding for finding in findings if finding.severity is Severity.ERROR and finding.code in REFUSES]
    aged = [replace(resource, created=age) for age, resource in enumerate(resources, 1)]
    world = World.of(ConfigSet(aged), found.catalog(), trust=INSECURE)
    anywhere = {f"outbound|{port}||{known.host}" for known in found.unlisted for port in known.ports}
    return Case(found, world, requests(found, rng, count), refused, frozenset(anywhere))
