"""Hands a certificate and its key to OpenSSL, which through Python's `ssl` reads files only, without leaving the key in one."""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile

from meshlib.runtime.identity.material import Material


def load_material(context: ssl.SSLContext, material: Material) -> None:
    """The chain that `context` presents, and its key.  Raises ssl.SSLError."""
    if hasattr(os, "memfd_create"):
        _through_memory(context, material)
    else:
        _through_encrypted_file(context, material)


def _through_memory(context: ssl.SSLContext, material: Material) -> None:
    """By a file that has no name and no disk, and is gone when it is closed (Linux)."""
    descriptor = os.memfd_create("meshlib", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(material.chain_pem + material.key.pem())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _through_encrypted_file(context: ssl.SSLContext, material: Material) -> None:
    """By a file of our own (mode 0600) that lives for a moment, under a password that only this call knows."""
    password = secrets.token_bytes(24).hex()
    with tempfile.NamedTemporaryFile(prefix="meshlib-") as file:
        file.write(material.chain_pem + material.key.encrypted_pem(password.encode()))
        file.flush()
        context.load_cert_chain(file.name, password=password)
