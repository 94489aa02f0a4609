"""Samples as the text that Prometheus reads."""

from __future__ import annotations

import re
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.telemetry.catalogue import METRICS
from meshlib.telemetry.metrics import Metric, Sample, exposition

SHED = Metric("shed_total", "counter", "Said no.\nOften: \\", ("port",))


def test_series_of_one_name_stand_together_under_its_meaning() -> None:
    other = Metric("active", "gauge", "Now.")
    samples = [SHED.of(1, "80"), other.of(0.5), SHED.of(2, "81")]
    assert exposition(samples, {"shed_total": SHED, "active": other}) == (
        "# HELP shed_total Said no.\\nOften: \\\\\n"
        "# TYPE shed_total counter\n"
        'shed_total{port="80"} 1\n'
        'shed_total{port="81"} 2\n'
        "# HELP active Now.\n"
        "# TYPE active gauge\n"
        "active 0.5\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (True, "1"), (2.0**53 + 2, "9007199254740994"), (0.1, "0.1"), (inf, "+Inf"), (-inf, "-Inf"), (nan, "NaN")],
)
def test_a_value_loses_no_digit(value: float, text: str) -> None:
    assert exposition([SHED.of(value, "80")], {}).split()[-1] == text


@given(st.text())
def test_a_label_is_read_as_it_was_written(text: str) -> None:
    """Whatever a limit is called, it ends where it should: nobody writes lines of his own by a name."""
    exposed = exposition([Sample("x", "gauge", {"name": text}, 1.0)], {})
    head, line = exposed[:-1].split("\n", 1)
    assert head == "# TYPE x gauge"
    found = re.fullmatch(r'x\{name="((?:[^"\\\n]|\\["\\n])*)"\} 1', line)
    assert found is not None
    assert re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), found[1]) == text


def test_a_sample_has_as_many_labels_as_its_metric() -> None:
    with pytest.raises(ValueError, match="zip"):
        SHED.of(1)


def test_names_are_prometheus_names_and_ours_say_what_they_are() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z_0-9]+", name)
        assert metric.help.endswith(".")
        if name.startswith("meshlib_"):
            assert name.endswith("_total") is (metric.kind == "counter"), name
        else:
            assert metric.labels == ("envoy_cluster_name",)
