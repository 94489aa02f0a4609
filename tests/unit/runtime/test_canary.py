"""T17: a private key shows nowhere: not in texts, logs, pickles or copies, nor in what error reporters take of tracebacks."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.model.cluster import UpstreamTls
from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.errors import IssuingFailed
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.identity.storage import IdentityFolder
from meshlib.runtime.tls import loading
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.testing import StaticControl
from tests.support.certificates import TrustDomain
from tests.support.tls import material

DOMAIN = TrustDomain()
MINE = material(DOMAIN.leaf("us"), DOMAIN.bundle)
IDENTITY = StaticIdentity(MINE)


def secrets_of(key: PrivateKey) -> list[str]:
    """The forms in which it could get out: PEM in base64, DER in hex and as Python shows bytes, the number."""
    lines = key.pem().decode().splitlines()[1:-1]
    number = key._key.private_numbers().private_value  # type: ignore[union-attr]
    return [*lines[:-1], f"{number:x}", str(number), repr(number.to_bytes(32, "big"))[2:-1]]


SECRETS = secrets_of(MINE.key)


def shows(text: str) -> bool:
    return any(secret in text for secret in SECRETS)


def test_the_canary_is_seen_when_it_sings() -> None:
    assert shows(MINE.key.pem().decode())
    assert shows(repr(MINE.key.pem()))
    assert shows(str(MINE.key._key.private_numbers().private_value))  # type: ignore[union-attr]


HOLDERS: dict[str, Callable[[], object]] = {
    "the key": lambda: MINE.key,
    "the material": lambda: MINE,
    "its source": lambda: IDENTITY,
    "contexts": lambda: TlsContexts(IDENTITY),
    "a context": lambda: TlsContexts(IDENTITY).client(UpstreamTls()),
    "a side": lambda: TlsContexts(IDENTITY).downstream(),
    "a mesh": lambda: Mesh(control=StaticControl(), service="tests", identity=IDENTITY),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_T17_no_text_of_what_holds_it(name: str) -> None:
    holder = HOLDERS[name]()
    texts = [repr(holder), str(holder), f"{holder}", "%s %r" % (holder, holder), repr({"holder": [holder]})]  # noqa: UP031
    texts.append(repr(getattr(holder, "__dict__", {})))
    assert not shows("\n".join(texts))


@pytest.mark.parametrize("name", ["the key", "the material"])
@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps], ids=lambda way: way.__qualname__)
def test_T17_no_copy(name: str, way: Callable[[object], object]) -> None:
    """`copy.copy` of the material is the material's, with the very same key."""
    holder = HOLDERS[name]()
    if name == "the material" and way is copy.copy:
        assert copy.copy(MINE).key is MINE.key
        return
    with pytest.raises(TypeError):
        way(holder)


def test_T17_no_log_at_the_finest_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    contexts = TlsContexts(IDENTITY)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts.client(UpstreamTls()).wrap_bio(back, there)
    server = contexts.server().wrap_bio(there, back, server_side=True)
    for _ in range(6):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    logging.getLogger("tests").error("%r %s %s", MINE, contexts, IDENTITY)
    assert not shows(caplog.text + "".join(str(vars(record)) for record in caplog.records))


def reported(error: BaseException) -> str:
    """As an error reporter does it: the whole chain, with the local variables of every frame."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_T17_no_traceback_of_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = IdentityFolder(tmp_path / "identity")
    with folder.locked(give_up=lambda: True):
        folder.write(MINE)  # as it should be
        assert folder.read() is not None

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(IssuingFailed) as caught:
            folder.write(MINE)
    text = reported(caught.value)
    assert "No space left" in text
    assert "material = Material(" in text  # variables are there
    assert not shows(text)


@pytest.mark.parametrize("way", ["_through_memory", "_through_encrypted_file"])
def test_T17_no_traceback_of_a_key_that_does_not_fit(way: str) -> None:
    other = DOMAIN.leaf("other")
    wrong = Material(MINE.identity, other.chain_der, MINE.key, TrustBundles({}), MINE.not_before, MINE.not_after)
    with pytest.raises(ssl.SSLError) as caught:
        getattr(loading, way)(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), wrong)
    text = reported(caught.value)
    assert "material = Material(" in text
    assert not shows(text)


def test_T17_no_message_about_a_key_that_cannot_be_read() -> None:
    pem = MINE.key.pem().decode()
    for broken in (pem.replace("PRIVATE", "PUBLIC"), pem.replace(pem.splitlines()[1][:20], ""), pem.replace("BEGIN", "")):
        with pytest.raises(ValueError, match="private key cannot be read") as caught:
            PrivateKey.parse(broken.encode())
        assert not shows(str(caught.value))
        assert caught.value.__cause__ is None
