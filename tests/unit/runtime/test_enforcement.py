"""From snapshots to what is in force: which issuers' keys a process keeps fresh."""

from __future__ import annotations

from dataclasses import replace

from meshlib.model.authentication import JwtAuthentication, JwtProvider, Provider
from meshlib.model.listener import INBOUND_PREFIX, InboundListener
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.enforcement import Enforcement
from meshlib.runtime.serving import POLICY_UNKNOWN, Inbound


def listener(*uris: str) -> InboundListener:
    providers = {uri: JwtProvider(uri, "https://issuer.test", jwks_uri=uri) for uri in uris}
    asked = JwtAuthentication("jwt", providers, Provider(uris[0])) if uris else JwtAuthentication("jwt")
    return InboundListener(f"{INBOUND_PREFIX}8080", 8080, filters=(asked,))


def test_the_key_sets_are_those_of_the_listeners_in_force() -> None:
    """An issuer that no policy names any more is not fetched from for ever."""
    enforcement = Enforcement(Inbound(POLICY_UNKNOWN))
    assert enforcement.key_sets == frozenset()
    for uris in (("https://a.test/keys", "https://b.test/keys"), ("https://b.test/keys",), ()):
        enforcement.publish(replace(Snapshot(), inbound={8080: listener(*uris)}))
        assert enforcement.key_sets == frozenset(uris)
