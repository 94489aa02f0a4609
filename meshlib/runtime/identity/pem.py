"""PEM and DER, without a parser of certificates."""

from __future__ import annotations

import base64
import binascii
import re
import textwrap
from collections.abc import Iterable

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def certificates(pem: bytes | str) -> tuple[bytes, ...]:
    """DER of every certificate in `pem`, in its order.  Raises ValueError if one is no base64; other text is passed over."""
    data = pem.encode() if isinstance(pem, str) else pem
    found = []
    for block in _BLOCK.findall(data):
        try:
            found.append(base64.b64decode(b"".join(block.split()), validate=True))
        except binascii.Error as error:
            raise ValueError(f"certificate {len(found) + 1} of the PEM text is no base64: {error}") from None
    return tuple(found)


def encode(chain: Iterable[bytes]) -> bytes:
    """PEM of DER certificates."""
    blocks = []
    for der in chain:
        lines = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
        blocks.append(f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    return "".join(blocks).encode()
