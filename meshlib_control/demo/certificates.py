"""What certificate an instance shows to whoever connects."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from cryptography import x509

TIMEOUT = 10.0  # seconds for a handshake


@dataclass(frozen=True, slots=True)
class Certificate:
    identity: str  # spiffe://...
    serial: int


def presented(port: int, roots: str) -> Certificate:
    """The certificate on a port of this machine, verified against `roots` (PEM).  Raises `OSError`, of which ssl's are.

    In TLS 1.3 a server shows it before it has seen the client's; without one, nobody gets any further.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # identities are URIs; who it is, is what is asked here
    context.load_verify_locations(cadata=roots)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain, context.wrap_socket(plain) as connection:
        found = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return Certificate(names.get_values_for_type(x509.UniformResourceIdentifier)[0], found.serial_number)
