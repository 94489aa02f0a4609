"""meshctl ca and meshctl token against a real control service; several replicas with one authority over Consul."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from tests.support.certificates import TrustDomain
from tests.support.consul import ConsulAgent
from tests.support.control import Control, eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("control"), secure=True) as control:
        yield control


def ca(control: Control, *words: str) -> Any:
    result = control.meshctl("ca", *words, "-o", "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def step(control: Control, name: str, **files: str) -> Any:
    """The same over the API, which is quicker."""
    with control.http() as client:
        response = client.post("/v1/ca/rotation", json={"step": name, **files})
    assert response.is_success, response.text
    return response.json()


def phases(status: Any) -> list[str]:
    return [root["phase"] for root in status["roots"]]


def test_a_rotation_by_hand(control: Control) -> None:
    """Each step shows where it led; one that is not possible now says why, and changes nothing."""
    first = control.meshctl("ca", "bundle", "-o", "sha256").stdout.split()
    assert len(first) == 1
    refused = control.meshctl("ca", "revoke")
    assert refused.returncode == 4
    assert "next:" in refused.stderr
    assert phases(ca(control, "prepare")) == ["active", "prepared"]
    assert len(control.get("/v1/ca/bundle")["sha256"]) == 2
    assert phases(step(control, "activate")) == ["old", "active"]
    assert phases(step(control, "taint")) == ["tainted", "active"]
    assert phases(ca(control, "revoke")) == ["active"]
    assert control.meshctl("ca", "bundle", "-o", "sha256").stdout.split() != first
    shown = control.meshctl("ca", "status").stdout
    assert "ACTIVE" in shown
    assert "issuing" in shown


def test_a_root_of_ones_own_is_brought_in_by_a_rotation(control: Control, tmp_path: Path) -> None:
    own = TrustDomain(intermediate=False).root
    chain, key = tmp_path / "own.pem", tmp_path / "own.key"
    chain.write_bytes(own.pem)
    key.write_bytes(own.key_pem)
    assert control.meshctl("ca", "prepare", "--chain", str(chain)).returncode != 0, "half of it"
    assert phases(ca(control, "prepare", "--chain", str(chain), "--key", str(key))) == ["active", "prepared"]
    for name in ("activate", "taint", "revoke"):
        step(control, name)
    assert control.get("/v1/ca/bundle")["pem"].split() == own.pem.decode().split()


def test_tokens_are_shown_once(control: Control) -> None:
    made = control.meshctl("token", "create", "--service", "reviews", "-n", "prod", "--ttl", "60")
    token = made.stdout.strip()
    assert token.startswith("mjt_")
    listed = json.loads(control.meshctl("token", "list", "-o", "json").stdout)["tokens"]
    assert [each["identity"] for each in listed] == ["spiffe://cluster.local/ns/prod/sa/reviews"]
    assert token not in json.dumps(listed) + control.log
    assert control.meshctl("token", "revoke", listed[0]["id"]).returncode == 0
    assert control.meshctl("token", "revoke", listed[0]["id"]).returncode == 1
    too_long = control.meshctl("token", "create", "--service", "reviews", "--ttl", "601")
    assert too_long.returncode == 1
    assert "600" in too_long.stderr
    with control.http() as client:
        for account, namespace in (
            ("../admin", "x"),
            ("a b", "x"),
            ("", "x"),
            ("a", "b/c"),
            ("meshlib-control", "meshlib-system"),
        ):
            asked = {"service_account": account, "namespace": namespace}
            assert client.post("/v1/tokens", json=asked).status_code == 422, (
                "nobody becomes what is no workload, or this service"
            )


def test_bans_are_listed(control: Control) -> None:
    assert [ban["identity"] for ban in ca(control, "ban", "spiffe://cluster.local/ns/default/sa/x", "-m", "lost")["bans"]] == [
        "spiffe://cluster.local/ns/default/sa/x"
    ]
    assert "lost" in control.meshctl("ca", "status").stdout
    assert ca(control, "unban", "spiffe://cluster.local/ns/default/sa/x")["bans"] == []
    assert control.meshctl("ca", "unban", "spiffe://cluster.local/ns/default/sa/x").returncode == 1


def test_without_the_token_nothing_is_told(control: Control, tmp_path: Path) -> None:
    from tests.support.control import meshctl

    environment = {"MESHCTL_SERVER": control.admin, "MESHCTL_TOKEN_FILE": str(tmp_path / "missing"), "MESHCTL_TOKEN": ""}
    result = meshctl("ca", "status", env=environment)
    assert (result.returncode, result.stdout) == (3, "")
    assert "MESHCTL_TOKEN" in result.stderr


@pytest.mark.consul
def test_replicas_share_one_authority(tmp_path: Path, consul_agent: ConsulAgent) -> None:
    """A token made at one is used up at the other; a certificate of one is shown to the other; steps are followed by both."""
    key = tmp_path / "ca.key"
    key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    store = ("--store", consul_agent.url("authority"), "--ca-key", f"file:{key}")
    with Control(tmp_path / "a", *store, secure=True) as a, Control(tmp_path / "b", *store, secure=True) as b:
        bundle = a.get("/v1/ca/bundle")["pem"]
        assert bundle == b.get("/v1/ca/bundle")["pem"]
        (tmp_path / "ca.pem").write_text(bundle)
        token = tmp_path / "token"
        token.write_text(a.meshctl("token", "create", "--service", "caller").stdout)
        with Mesh(control=a.xds, ca=b.ca, ca_file=str(tmp_path / "ca.pem"), token_file=str(token), service="caller") as mesh:
            mesh.wait_ready(60)
            assert a.get("/v1/status")["clients"][0]["service"] == "caller"
        step(b, "prepare")
        eventually(lambda: phases(a.get("/v1/ca")) == ["active", "prepared"], what="the other replica follows")
        issued = [each["serial"] for each in a.get("/v1/ca/issued")["certificates"]]
        assert len(set(issued)) == len(issued)
    _, entries = consul_agent.request("GET", "/v1/kv/authority?recurse")
    stored = b"".join(base64.b64decode(entry["Value"]) for entry in entries)
    assert b"BEGIN CERTIFICATE" in stored
    assert b"PRIVATE" not in stored
    assert token.read_bytes().strip() not in stored
