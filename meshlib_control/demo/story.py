"""The story of the demo, step by step: what is done, what is told of it, and how the traffic is split afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshlib_control.demo.control import ControlService
from meshlib_control.demo.fleet import Fleet

FILES = Path(__file__).parent / "bookinfo"
VICTIM = "reviews-4"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a step works on, a way to tell what happened, and the seconds that the step lasts."""

    control: ControlService
    fleet: Fleet
    tell: Tell
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """`expected`: the share of each version once every client has what `act` did; empty: any."""

    name: str
    title: str
    act: Callable[[Scene], None]
    expected: Mapping[str, float] = field(default_factory=dict)


def _start_over(scene: Scene) -> None:
    """Nothing is configured: in the first round because nothing was, later because it is deleted."""
    if scene.control.is_configured():
        _change(scene, "delete", "-f", str(FILES / "reviews-0-100.yaml"))
    else:
        scene.control.meshctl("endpoints", "reviews")
    scene.tell("two instances of v3, one each of v1 and v2; no rule prefers any")


def _apply(file: str) -> Callable[[Scene], None]:
    return lambda scene: _change(scene, "apply", "-f", str(FILES / file), "-m", file.removesuffix(".yaml"))


def _roll_back(scene: Scene) -> None:
    _change(scene, "rollback", str(scene.control.head() - 1), "-m", "v3 alone was too early")


def _change(scene: Scene, *words: str) -> None:
    applied = scene.control.change(*words)
    changes = ", ".join(f"{change.resource} {change.action}" for change in applied.changes)
    scene.tell(f"{changes}: every client has revision {applied.revision}")


def _kill(scene: Scene) -> None:
    scene.fleet.kill(VICTIM)
    scene.tell(f"{VICTIM} is gone without a goodbye: calls that it had, and those that still find its address, are retried")


def _replace(scene: Scene) -> None:
    scene.fleet.start_instance(VICTIM)
    scene.tell(f"{VICTIM} is back as a new process on another port, and takes its share")


def _restart(scene: Scene) -> None:
    away = max(1.0, scene.seconds / 3)
    scene.control.restart(away=away)
    scene.control.wait_synced(0)
    scene.tell(f"the control service was away for {away:.1f} s: calls went on with what every process knew")


V3 = {"v1": 0.0, "v3": 1.0}

STORY = (
    Step("no-rules", "No rules: reviews' instances share the traffic", _start_over),
    Step("canary-90-10", "Canary: 10 % of the traffic to v3", _apply("reviews-90-10.yaml"), {"v1": 0.9, "v3": 0.1}),
    Step("canary-50-50", "Half of the traffic to v3", _apply("reviews-50-50.yaml"), {"v1": 0.5, "v3": 0.5}),
    Step("canary-0-100", "All of the traffic to v3", _apply("reviews-0-100.yaml"), V3),
    Step("kill-instance", "One of two instances of v3 is killed under load", _kill, V3),
    Step("replace-instance", "Another instance takes its place", _replace, V3),
    Step("restart-control", "The control service is restarted under load", _restart, V3),
    Step("rollback", "Back to the revision before", _roll_back, {"v1": 0.5, "v3": 0.5}),
)
