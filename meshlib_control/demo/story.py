"""The story of the demo, step by step: what is done, what is told of it, and how the traffic is split afterwards."""

from __future__ import annotations

from collections.abc import Callable

from meshlib_control.demo.guarded import PERMISSION, call_without_permission, give_permission, knock_in_plaintext
from meshlib_control.demo.rotation import rotate
from meshlib_control.demo.scene import FILES, Scene, Step

VICTIM = "reviews-4"


def _start_over(scene: Scene) -> None:
    """No routes and no permission: in the first round because there were none, later because they are deleted."""
    if "VirtualService/default/reviews" in scene.control.configured():
        files = [str(FILES / name) for name in ("reviews-0-100.yaml", PERMISSION)]
        scene.change("delete", "-f", files[0], "-f", files[1])
    else:
        scene.control.meshctl("endpoints", "reviews")
    scene.tell("two instances of v3, one each of v1 and v2; no rule prefers any")


def _apply(file: str) -> Callable[[Scene], None]:
    return lambda scene: scene.apply(file)


def _roll_back(scene: Scene) -> None:
    scene.change("rollback", str(scene.control.head() - 1), "-m", "v3 alone was too early")


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
    Step("no-rules", "No routes: reviews' instances share the traffic", _start_over),
    Step("denied", "details asks ratings, which nobody allowed", call_without_permission),
    Step("allowed", "The same call is allowed while everything runs", give_permission),
    Step("plaintext", "A plain request around the mesh is refused", knock_in_plaintext),
    Step("canary-90-10", "Canary: 10 % of the traffic to v3", _apply("reviews-90-10.yaml"), {"v1": 0.9, "v3": 0.1}),
    Step("canary-50-50", "Half of the traffic to v3", _apply("reviews-50-50.yaml"), {"v1": 0.5, "v3": 0.5}),
    Step("canary-0-100", "All of the traffic to v3", _apply("reviews-0-100.yaml"), V3),
    Step("kill-instance", "One of two instances of v3 is killed under load", _kill, V3),
    Step("replace-instance", "Another instance takes its place", _replace, V3),
    Step("rotate", "Every certificate is replaced under load, and the root above them", rotate, V3),
    Step("restart-control", "The control service is restarted under load", _restart, V3),
    Step("rollback", "Back to the revision before", _roll_back, {"v1": 0.5, "v3": 0.5}),
)
