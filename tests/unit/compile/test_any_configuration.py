"""Whatever the validator takes is compiled for every kind of client, and processes of meshlib take what comes out.

A resource that a data plane refuses stays as it was: the update is lost, and whoever applied it does not hear of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import get_args

import pytest

from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.compile import Flavour, World, compile_document, generate, scope_of
from meshlib_control.compile.inbound import inbound_name
from meshlib_control.compile.listeners import listener_names
from meshlib_control.compile.trust import Trust
from meshlib_control.config import analyze
from tests.support.configuring import INSECURE
from tests.support.specimens import SERVED, WEB, resources, world_of

SECURE = Trust("td1", ("cluster.local",), {"td1": "(roots of td1, in PEM)"})


def refused(world: World) -> Iterator[str]:
    """What a process of meshlib says to each of its resources that it does not take."""
    scope = scope_of(world, WEB)
    names = {LISTENER: (*listener_names(world, scope), *(inbound_name(port.number) for port in SERVED))}
    for type_url in (LISTENER, ROUTE, CLUSTER, ENDPOINTS):
        for message in generate(world, scope, type_url, names.get(type_url)).values():
            try:
                decode(type_url, message.SerializeToString())
            except ResourceInvalid as error:
                yield str(error)


def check(seed: int) -> None:
    draw = Random(seed)
    found = resources(draw, draw.choice((1, 2, 4, 6)))
    analyze(found)
    world = world_of(found, trust=SECURE if seed % 2 else INSECURE)
    for flavour in get_args(Flavour):
        compile_document(world, replace(WEB, flavour=flavour))
    assert list(refused(world)) == []


@pytest.mark.parametrize("seed", range(25))
def test_what_is_valid_is_compiled_and_taken(seed: int) -> None:
    check(seed)


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(20))
def test_much_that_is_valid_is_compiled_and_taken(hundred: int) -> None:
    for seed in range(1000 + 100 * hundred, 1100 + 100 * hundred):
        check(seed)
