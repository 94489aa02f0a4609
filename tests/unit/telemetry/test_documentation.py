"""docs/observability.md lists what there is.  ``MESHLIB_UPDATE_GOLDEN=1`` writes its tables anew."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from meshlib.telemetry.catalogue import METRICS
from meshlib.telemetry.events import ALARMING, EVENTS, FREQUENT

PAGE = Path(__file__).resolve().parents[3] / "docs" / "observability.md"


def events() -> Iterable[str]:
    yield "| event | what has happened | log |"
    yield "|---|---|---|"
    for name, meaning in EVENTS.items():
        level = "WARNING" if name in ALARMING else "DEBUG" if name in FREQUENT else "INFO"
        yield f"| `{name}` | {meaning} | {level} |"


def metrics() -> Iterable[str]:
    yield "| metric | kind | further labels | what it is |"
    yield "|---|---|---|---|"
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels if label != "envoy_cluster_name")
        yield f"| `{name}` | {metric.kind} | {labels} | {metric.help.removesuffix('.')} |"


@pytest.mark.parametrize(("mark", "rows"), [("events", events), ("metrics", metrics)])
def test_the_page_lists_what_there_is(mark: str, rows: object) -> None:
    assert callable(rows)
    text = PAGE.read_text()
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- end of {mark} -->\n")
    assert begin
    assert end
    wanted = before + begin + "\n".join(["", *rows(), "", ""]) + end + after
    if os.environ.get("MESHLIB_UPDATE_GOLDEN"):
        PAGE.write_text(wanted)
    assert text == wanted or os.environ.get("MESHLIB_UPDATE_GOLDEN"), "MESHLIB_UPDATE_GOLDEN=1 writes the table anew"
