"""The step of the story in which the certificate authority's root is replaced, and with it every certificate."""

from __future__ import annotations

from collections import Counter

from meshlib_control.admin.authority_views import AuthorityView, IssuedList, RootView
from meshlib_control.demo.certificates import Certificate, presented
from meshlib_control.demo.control import SYNC_TIMEOUT, ControlService
from meshlib_control.demo.scene import Scene


def rotate(scene: Scene) -> None:
    """Each of its four steps, with a moment of traffic after it."""
    control = scene.control
    old, before = _active(control), _shown(scene)
    scene.tell(f"until now the root is {old.sha256[:16]}..., by its SHA-256")
    for act, outcome in _STEPS:
        act(control)
        scene.tell(outcome)
        control.pause(scene.seconds / 6)
    control.save_bundle()  # for processes that start from now on
    new, after = _active(control), _shown(scene)
    for name, certificate in before.items():
        scene.quote(f"{name:14} serial {_short(certificate.serial)}... -> {_short(after[name].serial)}...")
    scene.expect(new.sha256 != old.sha256, "the root is the one before")
    same = [name for name in before if before[name].serial == after[name].serial]
    scene.expect(not same, f"certificates were not renewed: {', '.join(same)}")
    scene.tell(f"the root is {new.sha256[:16]}... now, every certificate is another one, and no process was restarted")
    serials = {name: [f"{before[name].serial:x}", f"{after[name].serial:x}"] for name in before}
    scene.facts.update(roots=[old.sha256, new.sha256], serials=serials)


def _prepare(control: ControlService) -> None:
    before = _trust(control)
    control.meshctl("ca", "prepare")
    _wait_trust(control, before)


def _activate(control: ControlService) -> None:
    control.meshctl("ca", "activate")


def _taint(control: ControlService) -> None:
    """Returns when every process has another certificate: as many were issued to each identity as it has clients."""
    before = {each.serial for each in _issued(control).certificates}
    control.meshctl("ca", "taint")

    def renewed() -> bool:
        issued = Counter(
            each.identity.rpartition("/")[2] for each in _issued(control).certificates if each.serial not in before
        )
        return Counter(client.service for client in control.status().clients) <= issued

    control.wait(renewed, "every process to renew its certificate", SYNC_TIMEOUT)


def _revoke(control: ControlService) -> None:
    before = _trust(control)
    control.meshctl("ca", "revoke")
    _wait_trust(control, before)


_STEPS = (
    (_prepare, "a second root, which issues nothing yet: every process trusts it"),
    (_activate, "new certificates are of the second root from now on"),
    (_taint, "every process has renewed its certificate"),
    (_revoke, "no process trusts the first root any more"),
)


def _trust(control: ControlService) -> dict[str, str]:
    """Which version of the roots each client has."""
    return {client.id: client.types["SDS"].acked for client in control.status().clients if "SDS" in client.types}


def _wait_trust(control: ControlService, before: dict[str, str]) -> None:
    """Until every client has confirmed other roots than `before`."""

    def told() -> bool:
        now = _trust(control)
        return bool(now) and all(before.get(client) != version for client, version in now.items())

    control.wait(told, "every client to confirm the roots", SYNC_TIMEOUT)
    control.wait_synced(0)


def _issued(control: ControlService) -> IssuedList:
    return control.get("/v1/ca/issued?limit=1000", IssuedList)


def _active(control: ControlService) -> RootView:
    return next(root for root in control.get("/v1/ca", AuthorityView).roots if root.phase == "active")


def _shown(scene: Scene) -> dict[str, Certificate]:
    """The certificate that each instance shows, verified against the roots of the moment."""
    return {name: presented(port, scene.control.bundle) for name, port in sorted(scene.fleet.ports.items())}


def _short(serial: int) -> str:
    return f"{serial:032x}"[:16]
