"""A workload's identity and the control service's real certificate authority: first contact, workers, forks, roots."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from meshlib.runtime.identity import pem
from meshlib.runtime.identity.bootstrap import Anchor
from meshlib.runtime.identity.issuer import ControlIssuer
from meshlib.runtime.identity.storage import IdentityFolder
from meshlib.runtime.identity.workload import WorkloadIdentity
from tests.integration.test_ca_service import Mesh, meshed
from tests.support.authority import REVIEWS
from tests.support.certificates import Minted, TrustDomain
from tests.support.servers import ROOT
from tests.support.tls import careless, tls_server

PATIENCE = 60.0


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as exits:
        yield await meshed(exits)


async def token(mesh: Mesh, folder: Path) -> str:
    file = folder / "token"
    file.write_text((await mesh.tokens.create(REVIEWS)).secret + "\n")
    return str(file)


def sha256(mesh: Mesh) -> str:
    return hashlib.sha256(pem.certificates(mesh.authority.trust_bundle.pem)[0]).hexdigest()


@contextmanager
def started(issuer: ControlIssuer, folder: IdentityFolder | None = None) -> Iterator[WorkloadIdentity]:
    identity = WorkloadIdentity(issuer, folder=folder)
    identity.start()
    try:
        yield identity
    finally:
        identity.close(PATIENCE)


@pytest.mark.parametrize("how", ["file", "sha256", "both", "sha256 with colons"])
async def test_first_contact_and_renewal(mesh: Mesh, tmp_path: Path, how: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(mesh.authority.trust_bundle.pem)
    digest = sha256(mesh)
    anchor = {
        "file": Anchor(file=str(file)),
        "sha256": Anchor(sha256=digest),
        "both": Anchor(str(file), digest),
        "sha256 with colons": Anchor(sha256=":".join(digest[i : i + 2].upper() for i in range(0, 64, 2))),
    }[how]
    issuer = ControlIssuer(mesh.bootstrap, (mesh.mutual,), token_file=await token(mesh, tmp_path), anchor=anchor)
    with started(issuer) as identity:
        assert await asyncio.to_thread(identity.wait, PATIENCE)
        first = identity.current
        assert first is not None
        assert first.identity == REVIEWS
        renewed = threading.Event()
        identity.listen(lambda _: renewed.set())
        identity.renew_now()
        assert await asyncio.to_thread(renewed.wait, PATIENCE)
        assert identity.current is not first
        assert identity.current is not None
        assert identity.current.identity == REVIEWS


@contextmanager
def man_in_the_middle(shown: Minted, folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server that takes whatever it is told; its address and what it was told."""
    heard: list[bytes] = []
    context = careless(shown, folder, server=True)
    context.set_alpn_protocols(["h2"])
    with tls_server(context, lambda _, data: heard.append(data)) as port:
        yield f"127.0.0.1:{port}", heard


@pytest.mark.parametrize("how", ["file", "sha256"])
@pytest.mark.parametrize("who", ["own CA", "own CA, our root appended", "a workload of the mesh"])
async def test_T16_a_man_in_the_middle_hears_nothing(mesh: Mesh, tmp_path: Path, how: str, who: str) -> None:
    """With a CA of his own, with the mesh's root at the end of his chain, with a workload's certificate of the mesh's CA."""
    domain = TrustDomain()
    file = tmp_path / "ca.pem"
    if who == "a workload of the mesh":
        anchored, shown = domain.root, domain.leaf("reviews")
    elif who == "own CA":
        anchored, shown = TrustDomain().root, domain.leaf("meshlib-control", "meshlib-system")
    else:
        anchored = TrustDomain().root
        leaf = domain.leaf("meshlib-control", "meshlib-system")
        shown = Minted(leaf.certificate, leaf.key, Minted(anchored.certificate, anchored.key, anchored))
    file.write_bytes(anchored.pem)
    anchor = Anchor(file=str(file)) if how == "file" else Anchor(sha256=hashlib.sha256(anchored.der).hexdigest())
    with man_in_the_middle(shown, tmp_path) as (address, heard):
        issuer = ControlIssuer(address, (address,), token_file=await token(mesh, tmp_path), anchor=anchor)
        with started(issuer) as identity:
            assert await asyncio.to_thread(identity.wait_settled, PATIENCE)
            assert identity.current is None
            assert "not the expected one" in identity.state
    assert b"".join(heard) == b""
    # The control: the same token, at the right address.
    right = ControlIssuer(
        mesh.bootstrap, (mesh.mutual,), token_file=str(tmp_path / "token"), anchor=Anchor(sha256=sha256(mesh))
    )
    with started(right) as identity:
        assert await asyncio.to_thread(identity.wait, PATIENCE)


async def test_what_is_missing_is_said(mesh: Mesh, tmp_path: Path) -> None:
    known = Anchor(sha256=sha256(mesh))
    for issuer, words in (
        (ControlIssuer(mesh.bootstrap, (mesh.mutual,), token_file=str(tmp_path / "none"), anchor=known), "token_file="),
        (ControlIssuer(mesh.bootstrap, (mesh.mutual,), token_file=await token(mesh, tmp_path)), "ca_sha256"),
        (ControlIssuer(mesh.bootstrap, (mesh.mutual,), anchor=known), "give token_file"),
        (ControlIssuer("127.0.0.1:1", (), token_file=await token(mesh, tmp_path), anchor=known), "cannot be reached"),
    ):
        with started(issuer) as identity:
            assert await asyncio.to_thread(identity.wait_settled, PATIENCE)
            assert words in identity.state


WORKER = """
import json, os, sys
from meshlib.runtime.identity.bootstrap import Anchor
from meshlib.runtime.identity.issuer import ControlIssuer
from meshlib.runtime.identity.storage import IdentityFolder
from meshlib.runtime.identity.workload import WorkloadIdentity
bootstrap, mutual, token, digest, folder, forks = sys.argv[1:]
def identity():
    issuer = ControlIssuer(bootstrap, (mutual,), token_file=token, anchor=Anchor(sha256=digest))
    return WorkloadIdentity(issuer, folder=IdentityFolder(folder) if folder else None)
def tell(mine):
    print(json.dumps([str(mine.current.identity), mine.current.key.public_der().hex()]), flush=True)
mine = identity()
mine.start()
assert mine.wait(60), mine.state
tell(mine)
children = []
for _ in range(int(forks)):
    child = os.fork()
    if not child:
        inherited = mine.current
        mine.start()
        assert mine.wait_settled(60), mine.state
        assert mine.current is not inherited, mine.state
        tell(mine)
        mine.close()
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
mine.close()
"""


async def run_workers(mesh: Mesh, token_file: str, *, count: int, folder: str = "", forks: int = 0) -> list[list[str]]:
    """Identity and public key of each."""
    arguments = [mesh.bootstrap, mesh.mutual, token_file, sha256(mesh), folder, str(forks)]
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, *arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(count)
    ]
    outputs = [await worker.communicate() for worker in workers]
    for worker, (_, errors) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, errors.decode()
    return [json.loads(line) for output, _ in outputs for line in output.splitlines()]


async def test_four_workers_redeem_one_token_once(mesh: Mesh, tmp_path: Path) -> None:
    """Started at the same moment: one proof, four keys."""
    file = await token(mesh, tmp_path)
    found = await run_workers(mesh, file, count=4, folder=str(tmp_path / "identity"))
    assert {identity for identity, _ in found} == {str(REVIEWS)}
    assert len({key for _, key in found}) == 4


async def test_F31_forked_children_get_certificates_of_their_own(mesh: Mesh, tmp_path: Path) -> None:
    """Without a folder: with what they inherit, as the token is used already."""
    found = await run_workers(mesh, await token(mesh, tmp_path), count=1, forks=2)
    assert {identity for identity, _ in found} == {str(REVIEWS)}
    assert len({key for _, key in found}) == 3
