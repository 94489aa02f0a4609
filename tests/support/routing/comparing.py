"""Both data planes, the same configurations and requests: what they do differently."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.routing import through_envoy, through_meshlib
from tests.support.routing.cases import Case
from tests.support.routing.decisions import Decision, agree, copy_of
from tests.support.routing.sites import Sites


@dataclass(slots=True)
class Comparison:
    """What was compared: requests by the kind of decision that Envoy made, routes that were taken, copies made by mirrors."""

    differences: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    routes: set[tuple[int, str]] = field(default_factory=set)
    copies: int = 0


def compared(cases: Mapping[int, Case], sites: Sites, folder: Path) -> Comparison:
    """With one Envoy."""
    result = Comparison()
    sites.forget()
    with through_envoy.running(cases, folder) as ports:
        theirs = asyncio.run(through_envoy.decisions(ports, cases, sites))
        for index, case in cases.items():
            ours = through_meshlib.decisions(case, sites, settled=lambda case=case: _same_copies(case, sites))  # type: ignore[misc]
            for place, decided in enumerate(zip(theirs[index], ours, strict=True)):
                _compare(result, case, place, decided, sites)
    return result


def _compare(result: Comparison, case: Case, place: int, decided: tuple[Decision, Decision], sites: Sites) -> None:
    theirs, ours = decided
    apart = [] if agree(theirs, ours) else list(_apart(theirs, ours))
    copies = _copies(case, "e", place, sites)
    if copies != (found := _copies(case, "m", place, sites)):
        apart.append(f"  copies: Envoy {copies}, meshlib {found}")
    if apart:
        index = case.configuration.index
        result.differences.append("\n".join((f"configuration {index}, request {place}: {case.requests[place]}", *apart)))
    result.kinds[theirs.kind] += 1
    result.routes.add((case.configuration.index, theirs.route))
    result.copies += len(copies)


def _apart(theirs: Decision, ours: Decision) -> Iterator[str]:
    found = asdict(ours)
    for name, value in asdict(theirs).items():
        if found[name] != value:
            yield f"  {name}: Envoy {value!r}, meshlib {found[name]!r}"


def _copies(case: Case, side: str, place: int, sites: Sites) -> list[tuple[object, ...]]:
    return sorted(copy_of(case.configuration, arrived) for arrived in sites.copies(case.number(side, place)))


def _same_copies(case: Case, sites: Sites) -> bool:
    return all(_copies(case, "e", place, sites) == _copies(case, "m", place, sites) for place in range(len(case.requests)))
