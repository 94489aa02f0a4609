"""Who asks for a certificate: by a join token, by a JWT of a configured issuer, or by the certificate that it has already."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.errors import CallerRefused
from meshlib_control.ca.json_tokens import JsonTokens
from meshlib_control.ca.peers import AuthContext, peer_of
from meshlib_control.ca.tokens import MARK, JoinTokens


@dataclass(frozen=True, slots=True)
class Attested:
    """Proved.  `caller`: how, for the log of issued certificates; `at`: when, in Unix seconds.

    `repeatable`: the same proof can be given again, so how often it is has to be limited.
    """

    identity: SpiffeId
    caller: str
    at: float
    repeatable: bool = True


class Attestation:
    """All ways that are configured.

    `max_chain_age`: seconds for which renewals may follow one another before a workload has to prove itself anew; None for no
    limit.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        tokens: JoinTokens,
        json_tokens: JsonTokens,
        *,
        max_chain_age: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._json_tokens = json_tokens
        self._max_chain_age = max_chain_age
        self._clock = clock

    async def bearer(self, credential: str, *, address: str) -> Attested:
        """A join token, which is used up by this, or a JWT.  Raises `CallerRefused` and `StoreError`."""
        now = self._clock()
        if credential.startswith(MARK):
            record = await self._tokens.redeem(credential, address=address)
            return Attested(SpiffeId.parse(record.identity), f"join token {record.id} from {address}", now, repeatable=False)
        identity, issuer = await self._json_tokens.identity(credential)
        return Attested(identity, f"JWT of {issuer} from {address}", now)

    def certificate(self, context: AuthContext) -> Attested:
        """The caller's SVID, for the same identity.  Raises `CallerRefused`."""
        now = self._clock()
        peer = peer_of(context, self._authority.trust_domain, self._authority.trust_bundle.der, now)
        at = peer.not_before if peer.attested_at is None else peer.attested_at
        if self._max_chain_age is not None and now - at > self._max_chain_age:
            raise CallerRefused(f"{peer.identity} proved itself too long ago: it has to do so again with a token")
        return Attested(peer.identity, f"certificate {peer.serial:032x}", at)
