"""The key under which all private keys of the authority are stored, and how they are sealed with it.

Sealed with AES-256-GCM (NIST SP 800-38D, random 96-bit nonces), bound to the place in the store and a version: a ciphertext
that was moved, replaced or changed does not open.  The key itself is never stored beside what it seals.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import secrets
import shlex
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from meshlib_control.ca.errors import KeyUnusable

log = logging.getLogger(__name__)

KEY_BYTES = 32
NONCE_BYTES = 12
COMMAND_TIMEOUT = 30.0  # seconds
MAKE_ONE = "Make a key with `openssl rand -base64 32`"


class Sealed(msgspec.Struct, frozen=True):
    """A secret at rest.  `kek` tells which key opens it; `box` is nonce and ciphertext."""

    kek: str
    version: int
    box: bytes


class KeyEncryptionKey:
    """256 bits.  `origin` says where they came from, for messages; `id` names the key without telling anything about it."""

    __slots__ = ("_aead", "_authentication", "id", "origin")

    def __init__(self, key: bytes, origin: str) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"expected {KEY_BYTES} bytes")
        self._aead = AESGCM(_derived(key, b"seal"))
        self._authentication = _derived(key, b"authenticate")
        self.id = _derived(key, b"id").hex()[:16]
        self.origin = origin

    def seal(self, path: str, version: int, secret: bytes) -> Sealed:
        """`path`: where in the store it will be."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Sealed(self.id, version, nonce + self._aead.encrypt(nonce, secret, _bound(path, version)))

    def unseal(self, path: str, sealed: Sealed) -> bytes:
        """Raises `KeyUnusable`."""
        self.check(path, sealed.kek)
        try:
            return self._aead.decrypt(sealed.box[:NONCE_BYTES], sealed.box[NONCE_BYTES:], _bound(path, sealed.version))
        except (InvalidTag, ValueError) as error:
            raise self._changed(path) from error

    def authenticate(self, path: str, content: bytes) -> bytes:
        """HMAC-SHA256 of what is stored in clear but must not be changed by whoever can write to the store."""
        return hmac.digest(self._authentication, path.encode() + b"\0" + content, "sha256")

    def verify(self, path: str, content: bytes, tag: bytes) -> None:
        """Raises `KeyUnusable`."""
        if not hmac.compare_digest(self.authenticate(path, content), tag):
            raise self._changed(path)

    def check(self, path: str, kek: str) -> None:
        """Raises `KeyUnusable` when something was sealed with another key than this."""
        if kek != self.id:
            raise KeyUnusable(
                f"the key encryption key {self.id} does not open the certificate authority's keys",
                where=f"{self.origin}; {path} in the store",
                why=f"they were sealed with the key {kek[:16]}",
                next_step="Start with that key; nothing is issued without it, and a new one cannot replace it.",
            )

    def _changed(self, path: str) -> KeyUnusable:
        return KeyUnusable(
            "the certificate authority's state is not what was stored",
            where=f"{path} in the store",
            why=f"its authentication with the key {self.id} ({self.origin}) fails: it was changed, moved or cut short",
            next_step="Restore the store from a backup, and find out who can write to it.",
        )

    def __repr__(self) -> str:
        return f"<KeyEncryptionKey {self.id} from {self.origin}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key encryption key is not pickled")


def kek_from(source: str, *, environ: Mapping[str, str] = os.environ) -> KeyEncryptionKey:
    """``file:PATH`` (or only the path), ``env:NAME`` or ``command:PROGRAM ARGUMENTS`` (no shell; the key on stdout).

    The key is 32 random bytes, as they are or as hex or base64 text: passphrases are not taken.  Raises `KeyUnusable`.
    """
    kind, separator, rest = source.partition(":")
    if separator and kind == "env":
        if not environ.get(rest):
            raise _unreadable(f"environment variable {rest}", "it is not set", f"{MAKE_ONE} and set it.")
        return _parsed(environ[rest].encode(), f"environment variable {rest}")
    if separator and kind == "command":
        return _parsed(_output(rest), f"command {shlex.split(rest)[0]}")
    return _read(Path(rest if separator and kind == "file" else source))


def generated_kek(path: Path) -> KeyEncryptionKey:
    """The key in the file, which is made (mode 0600) when there is none: for the embedded store of one machine.

    Of several processes that start together one makes it, and all use that.  Raises `KeyUnusable`.
    """
    if not path.exists():
        try:
            _create(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        except OSError as error:
            raise _unreadable(str(path), f"it cannot be made: {error.strerror}", "Make its folder writable.") from error
    return _read(path)


def _create(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or, if somebody was faster, not at all.
        os.link(draft, path)
        log.info("made the key encryption key %s; back it up apart from the store: without it nothing can be issued", path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _read(path: Path) -> KeyEncryptionKey:
    try:
        mode = path.stat().st_mode
        raw = path.read_bytes()
    except OSError as error:
        raise _unreadable(str(path), error.strerror or str(error), f"{MAKE_ONE} > {path}, mode 0600.") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("%s, the key of all keys, can be read by others than its owner: chmod 600", path)
    return _parsed(raw, str(path))


def _output(command: str) -> bytes:
    words = shlex.split(command)
    if not words:
        raise _unreadable("command", "it is empty", "Give one that prints the key, for example a secrets manager's client.")
    where = f"command {words[0]}"
    try:
        done = subprocess.run(words, capture_output=True, timeout=COMMAND_TIMEOUT, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = "it did not end in time" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise _unreadable(where, reason, "Run it by hand as the user of this service.") from None
    if done.returncode:
        # Only what it said on stderr: its output may be the key.
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise _unreadable(where, f"it ended with {done.returncode}: {said}", "Run it by hand as the user of this service.")
    return done.stdout


def _parsed(raw: bytes, where: str) -> KeyEncryptionKey:
    for key in (raw, _hex(raw.strip()), _base64(raw.strip())):
        if len(key) == KEY_BYTES:
            if len(set(key)) < KEY_BYTES // 4:
                raise _unreadable(where, "its bytes are not random", f"{MAKE_ONE}.")
            return KeyEncryptionKey(key, where)
    raise _unreadable(where, f"expected 32 bytes, or those as hex or base64; found {len(raw)} bytes of neither", f"{MAKE_ONE}.")


def _hex(text: bytes) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        return b""


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


def _unreadable(where: str, why: str, next_step: str) -> KeyUnusable:
    return KeyUnusable("there is no usable key encryption key", where=where, why=why, next_step=next_step)


def _derived(key: bytes, purpose: bytes) -> bytes:
    # HKDF-Expand of RFC 5869 with one block: the key is uniformly random, so there is nothing to extract.
    return hmac.digest(key, b"meshlib certificate authority " + purpose + b"\x01", "sha256")


def _bound(path: str, version: int) -> bytes:
    return f"meshlib sealed key\0{path}\0{version}".encode()
