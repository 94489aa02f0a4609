"""The key encryption key: where it comes from, and that what it seals opens there and nowhere else."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import secrets
import stat
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from meshlib_control.ca.errors import KeyUnusable
from meshlib_control.ca.keys import KeyEncryptionKey, generated_kek, kek_from

KEY = bytes(range(32))
PATH = "ca/trust/authority/1"


def kek(key: bytes = KEY) -> KeyEncryptionKey:
    return KeyEncryptionKey(key, "test")


def test_what_is_sealed_opens_in_its_place() -> None:
    assert kek().unseal(PATH, kek().seal(PATH, 1, b"secret")) == b"secret"


def test_the_ciphertext_shows_neither_secret_nor_key() -> None:
    sealed = kek().seal(PATH, 1, b"secret secret secret")
    assert b"secret" not in sealed.box
    assert KEY not in sealed.box
    assert sealed.kek not in (KEY.hex(), base64.b64encode(KEY).decode())


def test_sealing_the_same_twice_gives_different_ciphertexts() -> None:
    assert kek().seal(PATH, 1, b"secret").box != kek().seal(PATH, 1, b"secret").box


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("ca/trust/authority/2", {}),
        (PATH, {"version": 2}),
        (PATH, {"box": b"short"}),
        (PATH, {"box": b""}),
    ],
    ids=["moved", "other version", "cut short", "empty"],
)
def test_a_ciphertext_that_was_moved_or_changed_does_not_open(path: str, change: dict[str, object]) -> None:
    sealed = replace(kek().seal(PATH, 1, b"secret"), **change)
    with pytest.raises(KeyUnusable, match=f"{path} in the store.*changed, moved or cut short.*Restore the store"):
        kek().unseal(path, sealed)


def test_every_changed_byte_is_noticed() -> None:
    sealed = kek().seal(PATH, 1, b"secret")
    for index in range(len(sealed.box)):
        box = bytearray(sealed.box)
        box[index] ^= 1
        with pytest.raises(KeyUnusable):
            kek().unseal(PATH, replace(sealed, box=bytes(box)))


def test_another_key_is_called_that_and_shown_by_its_id_only() -> None:
    other = kek(bytes(reversed(KEY)))
    sealed = kek().seal(PATH, 1, b"secret")
    with pytest.raises(KeyUnusable, match=f"key {other.id} does not open.*sealed with the key {kek().id}") as caught:
        other.unseal(PATH, sealed)
    assert KEY.hex() not in str(caught.value)


def test_what_is_authenticated_must_not_change_nor_move() -> None:
    tag = kek().authenticate(PATH, b"roots")
    kek().verify(PATH, b"roots", tag)
    for path, content in ((PATH, b"other roots"), ("elsewhere", b"roots")):
        with pytest.raises(KeyUnusable, match="is not what was stored"):
            kek().verify(path, content, tag)


def test_a_key_shows_itself_to_nobody() -> None:
    text = repr(kek())
    assert KEY.hex() not in text
    assert base64.b64encode(KEY).decode() not in text
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(kek())


@pytest.mark.parametrize(
    "content",
    [KEY, KEY.hex().encode(), base64.b64encode(KEY) + b"\n", base64.urlsafe_b64encode(KEY).rstrip(b"=")],
    ids=["raw", "hex", "base64", "base64url"],
)
@pytest.mark.parametrize("source", ["file:{}", "{}", "command:cat {}"])
def test_keys_from_files_and_commands(tmp_path: Path, content: bytes, source: str) -> None:
    path = tmp_path / "kek"
    path.write_bytes(content)
    path.chmod(0o600)
    assert kek_from(source.format(path)).id == kek().id


def test_a_key_from_the_environment() -> None:
    assert kek_from("env:KEK", environ={"KEK": KEY.hex()}).id == kek().id


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("env:KEK", r"environment variable KEK\): it is not set"),
        ("env:SHORT", "expected 32 bytes, or those as hex or base64; found 5 bytes"),
        ("env:PASSPHRASE", "found 28 bytes of neither.*openssl rand -base64 32"),
        ("env:ZEROES", "its bytes are not random"),
        ("file:/nonexistent/kek", "/nonexistent/kek.*No such file"),
        ("/nonexistent/kek", "No such file"),
        ("command:", r"command\): it is empty"),
        ("command:/nonexistent/program", "command /nonexistent/program.*No such file"),
        (f"command:{sys.executable} -c 'import sys; sys.exit(3)'", "it ended with 3"),
    ],
)
def test_what_is_no_key_is_refused_with_the_next_step(source: str, message: str) -> None:
    environ = {"SHORT": "short", "PASSPHRASE": "correct horse battery staple", "ZEROES": "00" * 32}
    with pytest.raises(KeyUnusable, match=message):
        kek_from(source, environ=environ)


def test_what_a_failing_command_prints_is_not_shown() -> None:
    with pytest.raises(KeyUnusable) as caught:
        kek_from(f"command:{sys.executable} -c 'print(\"CANARY\"); raise SystemExit(1)'")
    assert "CANARY" not in str(caught.value)


def test_a_key_file_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kek"
    path.write_bytes(KEY)
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        kek_from(str(path))
        assert not caplog.records
        path.chmod(0o644)
        kek_from(str(path))
    assert "chmod 600" in caplog.text


def test_a_generated_key_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kek"
    first = generated_kek(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert generated_kek(path).id == first.id
    assert [each.name for each in path.parent.iterdir()] == ["kek"]


def test_of_several_that_generate_at_once_all_get_the_same(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def generate() -> None:
        barrier.wait()
        found.append(generated_kek(tmp_path / "kek").id)

    threads = [threading.Thread(target=generate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyUnusable, match="file/kek"):
        generated_kek(tmp_path / "file" / "kek")


def test_a_key_file_that_was_cut_short_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_bytes(secrets.token_bytes(7))
    os.chmod(path, 0o600)  # noqa: PTH101 - as an operator would
    with pytest.raises(KeyUnusable, match="found 7 bytes"):
        generated_kek(path)
    assert len(path.read_bytes()) == 7
