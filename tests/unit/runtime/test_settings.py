"""What a Mesh is built from: every mistake is named, in the terms of whoever made it."""

from __future__ import annotations

import logging
import os

import pytest

from meshlib import Mesh
from meshlib.errors import ConfigError
from meshlib.model.endpoint import Locality
from meshlib.runtime.settings import Settings

EVERYTHING = {
    "MESHLIB_CONTROL": "10.0.0.1:15010, 10.0.0.2:15010",
    "MESHLIB_SERVICE": "reviews",
    "MESHLIB_NAMESPACE": "shop",
    "MESHLIB_SERVICE_ACCOUNT": "robot.shop",
    "MESHLIB_LABELS": "version=v1, app.kubernetes.io/name=reviews,empty=",
    "MESHLIB_LOCALITY": "eu/eu-1/rack-7",
    "MESHLIB_PORT": "8080",
    "MESHLIB_ADDRESS": "10.0.0.9",
    "MESHLIB_SERVICE_PORT": "9080",
    "MESHLIB_PROTOCOL": "http",
    "MESHLIB_INSTANCE": "reviews-1",
    "MESHLIB_WEIGHT": "3",
    "MESHLIB_WORKLOAD_GROUP": "vms",
    "MESHLIB_DRAIN_SECONDS": "2.5",
}


def test_every_variable_is_read() -> None:
    settings = Mesh.from_env({**EVERYTHING, "PATH": "/bin"}).settings
    assert settings == Settings(
        control="10.0.0.1:15010, 10.0.0.2:15010",
        service="reviews",
        namespace="shop",
        service_account="robot.shop",
        labels={"version": "v1", "app.kubernetes.io/name": "reviews", "empty": ""},
        locality="eu/eu-1/rack-7",
        port=8080,
        address="10.0.0.9",
        service_port=9080,
        protocol="http",
        instance="reviews-1",
        weight=3,
        group="vms",
        drain_seconds=2.5,
    )


def test_without_variables_the_defaults_hold() -> None:
    assert Mesh.from_env({}).settings == Mesh().settings == Settings()
    assert Mesh.from_env(dict.fromkeys(EVERYTHING, " ")).settings == Settings()  # set to nothing is not set


def test_arguments_win() -> None:
    mesh = Mesh.from_env(EVERYTHING, service="ratings", port=None)
    assert (mesh.settings.service, mesh.settings.port, mesh.settings.namespace) == ("ratings", None, "shop")


def test_what_is_missing_may_come_as_an_argument() -> None:
    assert Mesh.from_env({"MESHLIB_PORT": "80"}, service="ratings").settings.port == 80
    with pytest.raises(ConfigError, match="MESHLIB_SERVICE"):
        Mesh.from_env({"MESHLIB_PORT": "80"})


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MESHLIB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MESHLIB_SERVICE", "reviews")
    assert Mesh.from_env().settings.service == "reviews"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("control", "localhost"),
        ("control", "10.0.0.1:15010,"),
        ("control", ":15010"),
        ("control", "10.0.0.1:0"),
        ("control", "10.0.0.1:70000"),
        ("control", "http://10.0.0.1:x"),
        ("service", "Reviews"),
        ("service", "reviews.shop"),
        ("service", "-reviews"),
        ("service", "x" * 64),
        ("namespace", "the shop"),
        ("service_account", "robot@shop"),
        ("service_account", "robot..shop"),
        ("labels", "version"),
        ("labels", "=v1"),
        ("labels", "version=v 1"),
        ("labels", "version=v1,,"),
        ("port", "http"),
        ("port", "0"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "80.5"),
        ("port", "tcp://10.0.0.1:80"),  # what Kubernetes sets for a service that is called "meshlib"
        ("service_port", "65536"),
        ("service_port", "-1"),
        ("weight", "0"),
        ("weight", "many"),
        ("drain_seconds", "soon"),
        ("drain_seconds", "-1"),
        ("drain_seconds", "nan"),
        ("drain_seconds", "inf"),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    """Also where the value can be read and only makes no sense, and beside others that are right."""
    variable = f"MESHLIB_{name.upper()}"
    with pytest.raises(ConfigError, match=variable) as caught:
        Mesh.from_env({**EVERYTHING, variable: text})
    others = [other for other in EVERYTHING if other != variable and other in str(caught.value).replace(variable, "")]
    assert others == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("control", ""),
        ("service", "Reviews"),
        ("namespace", "A"),
        ("service_account", "A B"),
        ("ca_sha256", "abc"),
        ("ca", "nowhere"),
        ("mesh_port", 70000),
        ("labels", {"version": "v 1"}),
        ("labels", {"": "v1"}),
        ("labels", {"version": 1}),
        ("port", 0),
        ("port", "8080"),  # as os.environ has it
        ("weight", 0.5),
        ("drain_seconds", "1"),
        ("service_port", -1),
        ("weight", 0),
        ("drain_seconds", -0.1),
    ],
)
def test_a_wrong_argument_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        Mesh(**{"service": "reviews", name: value})  # type: ignore[arg-type]


def test_a_misspelt_variable_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "meshlib"):
        Mesh.from_env({"MESHLIB_SERVICES": "reviews"})
    assert "MESHLIB_SERVICES" in caplog.text


def test_a_workload_has_an_instance_of_its_own() -> None:
    settings = Settings(service="reviews", locality="eu/eu-1/rack-7", labels={"version": "v1"})
    first, second = settings.workload(), settings.workload()
    assert first.instance.startswith("reviews-")
    assert first.instance != second.instance
    assert first.locality == Locality("eu", "eu-1", "rack-7")
    assert Settings().workload().instance.startswith("client-")
    assert Settings(instance="web-1").workload().instance == "web-1"
