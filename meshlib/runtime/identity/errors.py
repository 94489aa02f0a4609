"""Why there is no (new) certificate."""

from __future__ import annotations


class IssuingFailed(Exception):
    """Raised by issuers; the message says what failed, where, and what may help.  Trying again later may."""


class CredentialRefused(IssuingFailed):
    """The CA was reached, and does not take what we prove ourselves with."""


class AuthorityNotTrusted(IssuingFailed):
    """Whoever answers at the CA's address is not who it should be.  Nothing was told to them."""
