"""The same requests through a real meshlib client, with the resources of the meshlib flavour."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from meshlib import Mesh, errors
from meshlib.runtime.native import build_request
from meshlib.runtime.response import Exchange
from meshlib.testing import CompiledControl
from meshlib_control.compile import generate, scope_of
from tests.support.routing.cases import Case
from tests.support.routing.decisions import BLOCKED, OUTSIDE, REFUSED, Decision, answered, forwarded
from tests.support.routing.sites import NUMBER, Sites

PATIENCE = 20.0
"""Seconds."""


def decisions(case: Case, sites: Sites, *, settled: Callable[[], bool]) -> list[Decision]:
    """Of each request, one after the other.  The client is closed when `settled`, since copies may still be on their way."""
    node = case.node("meshlib")
    scope = scope_of(case.world, node)

    def resources(type_url: str, names: Collection[str]) -> dict[str, bytes]:
        return {name: message.SerializeToString() for name, message in generate(case.world, scope, type_url, names).items()}

    control = CompiledControl(resources)
    with Mesh(control=control, namespace=node.namespace, labels=node.labels) as mesh:
        found = [_decision(mesh, case, place, sites) for place in range(len(case.requests))]
        assert control.refused == {}
        deadline = time.monotonic() + PATIENCE
        while not settled() and time.monotonic() < deadline:
            time.sleep(0.01)
    return found


def _decision(mesh: Mesh, case: Case, place: int, sites: Sites) -> Decision:
    request, number = case.requests[place], case.number("m", place)
    headers = [(NUMBER, number), *((name, value.encode().decode("latin-1")) for name, value in request.headers)]
    try:
        made = build_request(request.method, f"http://{request.authority}{request.target}", headers, None, None, None)
        exchange = mesh.exchange(made)
    except errors.RequestError:
        return Decision(REFUSED)
    except errors.OutboundBlocked:
        return Decision(BLOCKED)
    except errors.CallError as error:
        return Decision(error.flag, error.route)
    if exchange is None:
        return Decision(OUTSIDE)
    return _answer(case, exchange, number, sites)


def _answer(case: Case, exchange: Exchange, number: str, sites: Sites) -> Decision:
    body = exchange.read()
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers]
    record, arrived = exchange.record, sites.request(number)
    if arrived is None:
        return answered(record.route, status=exchange.status, headers=pairs, body=body)
    place = case.configuration.place(arrived.address, record.cluster)
    return forwarded(arrived, record.route, record.cluster, place=place, status=exchange.status, headers=pairs)
