"""Prometheus text."""

from __future__ import annotations

from meshlib_control.admin.metrics import Family, Sample, exposition


def test_families_with_and_without_labels() -> None:
    text = exposition(
        [
            Family("a_total", "counter", "Things.", (Sample(3),)),
            Family("b", "gauge", "Others.", (Sample(0.5, {"type": "LDS", "flavour": "grpc"}), Sample(1e9, {"type": "EDS"}))),
        ]
    )
    assert text == (
        "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n"
        '# HELP b Others.\n# TYPE b gauge\nb{flavour="grpc",type="LDS"} 0.5\nb{type="EDS"} 1000000000\n'
    )


def test_label_values_are_escaped() -> None:
    assert exposition([Family("a", "gauge", "A.", (Sample(1, {"x": 'a"b\\c\nd'}),))]).splitlines()[-1] == r'a{x="a\"b\\c\nd"} 1'
