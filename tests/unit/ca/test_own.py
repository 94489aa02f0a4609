"""Bring your own authority: roots and intermediates made by `openssl`, good ones and others."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from meshlib_control.ca import certificates
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.certificates import Issuer, Validity, pem
from meshlib_control.ca.errors import CaError, MaterialRefused, RotationRefused
from meshlib_control.ca.model import CaSettings
from meshlib_control.ca.own import check_own, read_own
from meshlib_control.store.memory import MemoryStore
from tests.support.authority import REVIEWS, TRUST_DOMAIN, new_kek, new_request, running_authority

CA = "basicConstraints=critical,CA:true"
SIGN = "keyUsage=critical,keyCertSign,cRLSign"
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


class Files:
    """Certificates and keys in a folder, as an operator makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def root(self, name: str, *extensions: str, key: tuple[str, ...] = EC, days: int = 3650) -> None:
        added = [part for extension in extensions or (CA, SIGN) for part in ("-addext", extension)]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        self.run("req", "-x509", *key, "-nodes", "-subj", f"/CN={name}", "-days", str(days), *added, *files)

    def intermediate(self, name: str, issuer: str, *extensions: str, key: tuple[str, ...] = EC, days: int = 365) -> None:
        """`NAME.pem` is the certificate, and the root after it."""
        (self.folder / f"{name}.ext").write_text("\n".join(extensions or (f"{CA},pathlen:0", SIGN)))
        self.run("req", "-new", *key, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial", "-days", str(days)]
        self.run("x509", "-req", "-in", f"{name}.csr", *signing, "-extfile", f"{name}.ext", "-out", f"{name}.only.pem")
        (self.folder / f"{name}.pem").write_text(self[f"{name}.only.pem"].read_text() + self[f"{issuer}.pem"].read_text())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.root("root")
    made.intermediate("middle", "root")
    return made


def verified(files: Files, chain: tuple[str, ...], roots: str) -> bool:
    for name, content in (("leaf", chain[0]), ("between", "".join(chain[1:])), ("roots", roots)):
        (files.folder / f"issued.{name}.pem").write_text(content)
    arguments = ["-CAfile", "issued.roots.pem", "-untrusted", "issued.between.pem", "issued.leaf.pem"]
    done = subprocess.run(["openssl", "verify", *arguments], cwd=files.folder, capture_output=True, check=False)
    return done.returncode == 0


async def test_an_own_root_signs_an_intermediate_of_ours(files: Files) -> None:
    own = read_own(files["root.pem"], files["root.key"])
    async with running_authority(settings=CaSettings(TRUST_DOMAIN, own=own)) as authority:
        issued = authority.issue(new_request()[0], REVIEWS, caller="test")
        assert issued.roots_pem == files["root.pem"].read_text()
        assert verified(files, issued.chain_pem, issued.roots_pem)
        assert authority.status().authorities[0].root_key_here


@pytest.mark.parametrize("key", [EC, ("-newkey", "rsa:2048")], ids=["EC", "RSA"])
async def test_an_own_intermediate_signs_itself(files: Files, key: tuple[str, ...]) -> None:
    files.intermediate("mine", "root", key=key)
    own = read_own(files["mine.pem"], files["mine.key"])
    async with running_authority(settings=CaSettings(TRUST_DOMAIN, own=own)) as authority:
        issued = authority.issue(new_request()[0], REVIEWS, caller="test")
        assert issued.chain_pem[1] == files["mine.only.pem"].read_text()
        assert verified(files, issued.chain_pem, issued.roots_pem)
        assert not authority.status().authorities[0].root_key_here


async def test_the_root_may_be_in_a_file_of_its_own(files: Files) -> None:
    files.root("other")
    (files.folder / "roots.pem").write_text(files["other.pem"].read_text() + files["root.pem"].read_text())
    own = read_own(files["middle.only.pem"], files["middle.key"], files["roots.pem"])
    assert own.root.subject.rfc4514_string() == "CN=root"
    with pytest.raises(MaterialRefused, match="none of its certificates issued"):
        read_own(files["middle.only.pem"], files["middle.key"], files["other.pem"])


async def test_a_renewed_intermediate_replaces_the_stored_one_and_an_older_one_does_not(files: Files) -> None:
    store, kek = MemoryStore(), new_kek()

    async def signing(name: str) -> str:
        own = read_own(files[f"{name}.pem"], files[f"{name}.key"])
        async with running_authority(store, kek, CaSettings(TRUST_DOMAIN, own=own)) as authority:
            return authority.issue(new_request()[0], REVIEWS, caller="test").chain_pem[1]

    root = read_own(files["root.pem"], files["root.key"])
    key = certificates.new_key()
    validity = Validity(time.time() - 3600, time.time() + 86400)
    older = pem(certificates.intermediate_certificate(key.public_key(), Issuer(root.root, root.key), TRUST_DOMAIN, validity))
    files["older.pem"].write_text(older + files["root.pem"].read_text())
    files["older.key"].write_bytes(certificates.key_pem(key))
    assert await signing("older") == older
    assert await signing("middle") == files["middle.only.pem"].read_text()
    assert await signing("older") == files["middle.only.pem"].read_text()


async def test_another_root_than_the_stores_has_to_be_rotated_in(files: Files) -> None:
    store, kek = MemoryStore(), new_kek()
    own = read_own(files["root.pem"], files["root.key"])
    async with running_authority(store, kek) as authority:
        with pytest.raises(RotationRefused, match="Bring the new root in with a rotation"):
            await CertificateAuthority(store, kek, CaSettings(TRUST_DOMAIN, own=own)).start()
        await authority.prepare(own)
        await authority.activate()
        assert verified(
            files, authority.issue(new_request()[0], REVIEWS, caller="test").chain_pem, files["root.pem"].read_text()
        )
    async with running_authority(store, kek, CaSettings(TRUST_DOMAIN, own=own)) as authority:
        assert authority.status().issuing


async def test_the_private_key_that_was_brought_is_stored_sealed(files: Files) -> None:
    store = MemoryStore()
    own = read_own(files["root.pem"], files["root.key"])
    async with running_authority(store, settings=CaSettings(TRUST_DOMAIN, own=own)):
        raw = b"".join(entry.value for entry in await store.scan(""))
    lines = files["root.key"].read_bytes().splitlines()[1:-1]
    assert all(line not in raw for line in lines)
    assert "PrivateKey" not in repr(own)


def refusal(files: Files, name: str, key: str = "") -> CaError:
    with pytest.raises(MaterialRefused) as caught:
        check_own(read_own(files[f"{name}.pem"], files[f"{key or name}.key"]), TRUST_DOMAIN, time.time())
    return caught.value


ROOTS = {
    "no CA": (("basicConstraints=critical,CA:false", SIGN), "may not sign certificates"),
    "no right to sign": ((CA, "keyUsage=critical,digitalSignature"), "may not sign certificates"),
    "no constraints": (("basicConstraints=critical,CA:true",), "lacks basic constraints or key usage"),
    "no room below it": ((f"{CA},pathlen:0", SIGN), "allows a path of 0 below it, and 1 are needed"),
    "another trust domain": ((CA, SIGN, "nameConstraints=critical,permitted;URI:other.test"), "is constrained to other names"),
    "other DNS names": ((CA, SIGN, "nameConstraints=critical,permitted;DNS:example.test"), "is constrained to other names"),
    "excluded": ((CA, SIGN, "nameConstraints=critical,excluded;URI:cluster.local"), "is constrained to other names"),
    "excluded DNS": ((CA, SIGN, "nameConstraints=critical,excluded;DNS:local"), "is constrained to other names"),
}


@pytest.mark.parametrize(("extensions", "why"), ROOTS.values(), ids=ROOTS.keys())
def test_roots_that_would_not_work_are_refused(files: Files, extensions: tuple[str, ...], why: str) -> None:
    files.root("bad", *extensions)
    assert why in str(refusal(files, "bad"))


@pytest.mark.parametrize(
    "constraint",
    [
        "permitted;URI:cluster.local",
        "permitted;URI:.local",
        "permitted;DNS:cluster.local",
        "permitted;DNS:local",
        "excluded;DNS:evil.test",
    ],
)
def test_roots_with_fitting_constraints_are_taken(files: Files, constraint: str) -> None:
    files.root("good", f"{CA},pathlen:1", SIGN, f"nameConstraints=critical,{constraint}")
    check_own(read_own(files["good.pem"], files["good.key"]), TRUST_DOMAIN, time.time())


def test_weak_keys_are_refused(files: Files) -> None:
    files.root("weak", key=("-newkey", "rsa:1024"))
    assert "1024 bits is not taken" in str(refusal(files, "weak"))


def test_an_expired_root_is_refused(files: Files) -> None:
    own = read_own(files["root.pem"], files["root.key"])
    check_own(own, TRUST_DOMAIN, time.time())
    with pytest.raises(MaterialRefused, match="is not valid now"):
        check_own(own, TRUST_DOMAIN, time.time() + 3651 * 86400)


def test_chains_that_do_not_hold_together_are_refused(files: Files) -> None:
    files.root("other")
    (files.folder / "mixed.pem").write_text(files["middle.only.pem"].read_text() + files["other.pem"].read_text())
    (files.folder / "reversed.pem").write_text(files["root.pem"].read_text() + files["middle.only.pem"].read_text())
    assert "is not issued by the one after it" in str(refusal(files, "mixed", "middle"))
    assert "the key is not that of the first certificate" in str(refusal(files, "reversed", "middle"))
    assert "does not end in a root" in str(refusal(files, "middle.only", "middle"))
    assert "the key is not that of the first certificate" in str(refusal(files, "root", "middle"))


def test_files_that_cannot_be_used_are_named(files: Files) -> None:
    files.run("pkey", "-in", "root.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    files.run("genpkey", "-algorithm", "ed25519", "-out", "ed25519.key")
    for chain, key, why in (
        ("missing.pem", "root.key", "missing.pem.*No such file"),
        ("root.pem", "missing.key", "missing.key.*No such file"),
        ("root.key", "root.key", "no certificates in PEM form"),
        ("root.pem", "root.pem", "no private key in PEM form"),
        ("root.pem", "locked.key", "has a passphrase.*openssl pkey"),
        ("root.pem", "ed25519.key", "neither an ECDSA nor an RSA key"),
    ):
        with pytest.raises(MaterialRefused, match=why):
            read_own(files[chain], files[key])
