"""Metrics as values, and as the text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isnan
from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One value of one series."""

    name: str
    kind: Kind
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """A name with its meaning; the labels that its series differ by."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def of(self, value: float, *labels: str) -> Sample:
        """A sample; `labels` are the values, in the order of the names."""
        return Sample(self.name, self.kind, dict(zip(self.labels, labels, strict=True)), float(value))


def exposition(samples: Iterable[Sample], metrics: Mapping[str, Metric]) -> str:
    """All series of a name together, in the order in which names come first; `metrics`: by name, for what they mean."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, series in families.items():
        known = metrics.get(name)
        if known is not None:
            lines.append(f"# HELP {name} {_escaped_help(known.help)}")
        lines.append(f"# TYPE {name} {series[0].kind}")
        lines.extend(f"{name}{_labels(sample.labels)} {_number(sample.value)}" for sample in series)
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    """Integers as such: a counter must not lose its last digits."""
    if isnan(value):
        return "NaN"
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() else repr(value)
