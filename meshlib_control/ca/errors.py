"""What the certificate authority raises.

CaError              the authority itself cannot work: the operator has to act
  KeyUnusable          the key encryption key is missing, malformed, the wrong one, or what it sealed was changed
  AuthorityLost        the store has forgotten an authority that existed; a new root would split the mesh
  MaterialRefused      certificates or keys that the operator brought do not fit
  RotationRefused      this step of a rotation is not possible now
  IssuersInvalid       the file of JWT issuers cannot be used
RequestRefused       one request is not served; the blame is in the type
  CsrRefused           malformed, weak key, broken signature
  IdentityRefused      no certificate is issued for this identity
  IdentityBanned       an operator banned it
  CallerRefused        the caller did not prove who it is; the message is for the log, not for the caller
  IssuingStopped       nobody gets a certificate at the moment
"""

from __future__ import annotations

from meshlib_control.errors import ControlServiceError, OperatorError


class CaError(OperatorError):
    """The authority cannot work."""


class KeyUnusable(CaError):
    """The key encryption key, or what was sealed with it."""


class AuthorityLost(CaError):
    """There was an authority, and the store does not have it any more."""


class MaterialRefused(CaError):
    """Certificates or keys that the operator brought."""


class RotationRefused(CaError):
    """Not the step that comes next."""


class IssuersInvalid(CaError):
    """The file of JWT issuers."""


class RequestRefused(ControlServiceError):
    """One request; the message never holds a secret."""


class CsrRefused(RequestRefused):
    """The certificate signing request."""


class IdentityRefused(RequestRefused):
    """No certificate is issued for this identity, whoever asks."""


class IdentityBanned(RequestRefused):
    """An operator banned it."""


class CallerRefused(RequestRefused):
    """Not proved who it is.  `str()` says why, for the log: the caller is told no more than that."""


class IssuingStopped(RequestRefused):
    """The authority does not issue at the moment, and why."""
