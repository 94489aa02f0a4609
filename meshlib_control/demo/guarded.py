"""Steps of the story about who may do what: a call that nobody allowed, the same call allowed, a call without mTLS."""

from __future__ import annotations

import re

from meshlib_control.demo.certificates import presented
from meshlib_control.demo.scene import FILES, Scene

CALLER, CALLED = "details", "ratings"
URL = f"http://{CALLED}/{CALLED}/7"
PERMISSION = "details-ratings.yaml"


def set_rules(scene: Scene) -> None:
    """Before anything runs: what is not allowed by name is denied."""
    scene.read("mesh.yaml")
    files = [str(FILES / name) for name in ("mesh.yaml", "callers.yaml")]
    scene.control.change("apply", "-f", files[0], "-f", files[1], "-m", "who may call whom")
    scene.tell("and callers.yaml allows each edge of the application by name, to read:")
    rules = re.findall(r"app: (\w+)\}.*?/sa/(\w+)", (FILES / "callers.yaml").read_text(), re.DOTALL)
    scene.quote("\n".join(f"{caller} -> {service}" for service, caller in rules))


def call_without_permission(scene: Scene) -> None:
    """A process with the identity of details: it could be a compromised one."""
    scene.fleet.enrol(CALLER)
    said = scene.fleet.call_as(CALLER, URL)
    scene.quote(said)
    scene.expect(said.startswith("403 "), f"{CALLER} was not denied: {said}")
    scene.tell(f"that is all a caller is told; the log of {CALLED} says why:")
    logged = scene.fleet.wait_log(f"{CALLED}-1", f"denied GET {CALLED}/{CALLED}/7 from ")
    scene.quote(logged)
    scene.facts.update(answer=said, log=logged)
    _ask_why(scene, "denied")


def give_permission(scene: Scene) -> None:
    """Live: nothing is restarted."""
    before = scene.fleet.pids[f"{CALLED}-1"]
    scene.read(PERMISSION)
    scene.apply(PERMISSION)
    said = scene.fleet.call_as(CALLER, URL)
    scene.quote(said)
    scene.expect(said.startswith("200 "), f"{CALLER} was not let in: {said}")
    scene.facts.update(answer=said, restarted=scene.fleet.pids[f"{CALLED}-1"] != before)
    _ask_why(scene, "allowed")


def _ask_why(scene: Scene, expected: str) -> None:
    """`meshctl authz check`, which decides by the same code as the workload."""
    identity = f"spiffe://cluster.local/ns/default/sa/{CALLER}"
    question = ("authz", "check", "--from", identity, "--to", f"{CALLED}:80", "GET", f"/{CALLED}/7")
    explained = scene.control.meshctl(*question, form="table", codes=(0, 1))
    scene.quote(explained)
    found = re.search(r"^(ALLOWED|DENIED)", explained, re.MULTILINE)
    verdict = found[1].lower() if found else ""
    scene.expect(verdict == expected, f"authz check says {verdict}, expected {expected}")
    scene.facts["authz_check"] = verdict


def knock_in_plaintext(scene: Scene) -> None:
    """Around the mesh: HTTP to the port of an instance, which serves the mesh all the while."""
    name = f"{CALLER}-1"
    port = scene.fleet.ports[name]
    said = scene.fleet.call_plain(f"http://127.0.0.1:{port}/{CALLER}/7")
    scene.quote(said)
    scene.expect(said.startswith("no answer"), f"{name} answers in plaintext: {said}")
    logged = scene.fleet.wait_log(name, "plain")
    scene.quote(logged)
    certificate = presented(port, scene.control.bundle)
    scene.tell(f"the same port in TLS: {certificate.identity}, serial {certificate.serial:x}")
    scene.facts.update(port=port, answer=said, identity=certificate.identity)
