"""Kinds and resources in the spellings that people type."""

from __future__ import annotations

import pytest

from meshlib_control.cli.failures import USAGE, Failure
from meshlib_control.cli.names import kind_named, resource_named, resources_named

KINDS = ("DestinationRule", "ServiceEntry", "VirtualService", "PeerAuthenticationPolicy")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("VirtualService", "VirtualService"),
        ("virtualservice", "VirtualService"),
        ("virtualservices", "VirtualService"),
        ("vs", "VirtualService"),
        ("DR", "DestinationRule"),
        ("serviceentries", "ServiceEntry"),
        ("peerauthenticationpolicies", "PeerAuthenticationPolicy"),
    ],
)
def test_spellings(text: str, kind: str) -> None:
    assert kind_named(text, KINDS) == kind


def test_an_unknown_kind_is_a_usage_error_that_lists_the_known_ones() -> None:
    with pytest.raises(Failure) as caught:
        kind_named("pod", KINDS)
    assert caught.value.exit_code == USAGE
    assert "VirtualService" in caught.value.why


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("vs", "reviews", ("VirtualService", "prod", "reviews")),
        ("vs/reviews", None, ("VirtualService", "prod", "reviews")),
        ("VirtualService/default/reviews", None, ("VirtualService", "default", "reviews")),
    ],
)
def test_resource_names(kind: str, name: str | None, key: tuple[str, str, str]) -> None:
    assert resource_named(kind, name, "prod") == key


@pytest.mark.parametrize(("kind", "name"), [("vs", None), (None, None), ("vs/a/b/c", None)])
def test_what_names_no_resource_is_a_usage_error(kind: str | None, name: str | None) -> None:
    with pytest.raises(Failure) as caught:
        resource_named(kind, name, "default")
    assert caught.value.exit_code == USAGE


def test_several_at_once() -> None:
    of_one_kind = [("VirtualService", "default", "a"), ("VirtualService", "default", "b")]
    assert resources_named(("vs", "a", "b"), "default") == of_one_kind
    mixed = [("VirtualService", "default", "a"), ("DestinationRule", "prod", "b")]
    assert resources_named(("vs/a", "DestinationRule/prod/b"), "default") == mixed
