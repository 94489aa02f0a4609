"""ca and token: the certificate authority, who is banned from it, and what lets workloads in."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import click

from meshlib_control.cli import options, output
from meshlib_control.cli.client import segment
from meshlib_control.cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from meshlib_control.admin.authority_views import AuthorityView, TokenList


@click.group()
def ca() -> None:
    """The certificate authority: its roots, their rotation, and who gets nothing from it."""


@ca.command("status")
@options.session("table", "json", "yaml")
def ca_status(*, session: Session) -> None:
    """Roots, bans and problems."""
    from meshlib_control.admin.authority_views import AuthorityView

    found = session.client.get("/v1/ca", AuthorityView)
    session.emit(found, human=lambda: _authority(found))


@ca.command()
@options.session("pem", "sha256", "json", "yaml")
def bundle(*, session: Session) -> None:
    """The root certificates: what workloads verify the authority by (MESHLIB_CA_FILE, MESHLIB_CA_SHA256)."""
    from meshlib_control.admin.authority_views import BundleView

    found = session.client.get("/v1/ca/bundle", BundleView)
    if session.form == "pem":
        click.echo(found.pem, nl=False)
    elif session.form == "sha256":
        for text in found.sha256:
            click.echo(text)
    else:
        output.emit(session.form, found, human=lambda: found.pem)


def _step(name: str, text: str) -> None:
    @ca.command(name, help=text)
    @options.session("table", "json", "yaml")
    def step(*, session: Session) -> None:
        from meshlib_control.admin.authority_views import AuthorityView, StepRequest

        found = session.client.post("/v1/ca/rotation", StepRequest(name), AuthorityView)
        session.emit(found, human=lambda: _authority(found))


@ca.command()
@click.option("--chain", default="", metavar="FILE", help="Your own root or intermediate, with those above it (PEM).")
@click.option("--key", default="", metavar="FILE", help="The private key of --chain.")
@options.session("table", "json", "yaml")
def prepare(*, chain: str, key: str, session: Session) -> None:
    """Rotation, step 1: make a second root, which everybody trusts from now on.

    --chain and --key are files on the control service's machine: no key is ever sent.
    """
    from meshlib_control.admin.authority_views import AuthorityView, StepRequest

    found = session.client.post("/v1/ca/rotation", StepRequest("prepare", chain, key), AuthorityView)
    session.emit(found, human=lambda: _authority(found))


_step("activate", "Rotation, step 2: the new root issues.  Not before every workload trusts it: see `meshctl status`.")
_step("taint", "Rotation, step 3: workloads with a certificate of the old root renew it at once.")
_step("revoke", "Rotation, step 4: the old root is trusted no more.  Not before every workload has renewed.")
_step("restore", "Give an emptied store back the authority that this control service still has.")


@ca.command()
@click.argument("identity")
@click.option("-m", "--message", "reason", default="", metavar="TEXT", help="Why.")
@options.session("table", "json", "yaml")
def ban(identity: str, *, reason: str, session: Session) -> None:
    """Give IDENTITY (spiffe://...) no certificate any more, and end its streams."""
    from meshlib_control.admin.authority_views import AuthorityView, BanRequest

    found = session.client.post("/v1/ca/bans", BanRequest(identity, reason, by=getpass.getuser()), AuthorityView)
    session.emit(found, human=lambda: _authority(found))


@ca.command()
@click.argument("identity")
@options.session("table", "json", "yaml")
def unban(identity: str, *, session: Session) -> None:
    """Let IDENTITY have certificates again."""
    from meshlib_control.admin.authority_views import AuthorityView, BanRequest

    found = session.client.post("/v1/ca/bans/delete", BanRequest(identity), AuthorityView)
    session.emit(found, human=lambda: _authority(found))


@ca.command()
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, the newest first.")
@options.session("table", "json", "yaml")
def issued(*, limit: int, session: Session) -> None:
    """The certificates that were issued: to whom, and how they proved who they are."""
    from meshlib_control.admin.authority_views import IssuedList
    from meshlib_control.cli.render import table

    found = session.client.get("/v1/ca/issued", IssuedList, limit=limit)
    rows = [(each.serial, each.identity, each.caller, each.issued, each.expires) for each in found.certificates]
    session.emit(found, human=lambda: table(("SERIAL", "IDENTITY", "CALLER", "ISSUED", "EXPIRES"), rows))


@click.group()
def token() -> None:
    """Join tokens: each lets one workload get its first certificate, once."""


@token.command()
@click.option("--service-account", "--service", "service_account", required=True, metavar="NAME", help="Whose identity it is.")
@options.namespace("Namespace of the identity.")
@click.option("--ttl", type=float, default=600.0, show_default=True, metavar="SECONDS", help="At most 600.")
@click.option("--cidr", default="", metavar="CIDR", help="Only callers from here may use it.")
@options.session("text", "json", "yaml")
def create(*, service_account: str, namespace: str, ttl: float, cidr: str, session: Session) -> None:
    """Make a token and print it, this once.

    \b
    Example:
      meshctl token create --service reviews > /run/reviews/token
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from meshlib_control.admin.authority_views import TokenCreated, TokenRequest

    wanted = TokenRequest(service_account, namespace, ttl, cidr, author=getpass.getuser())
    made = session.client.post("/v1/tokens", wanted, TokenCreated)
    if session.form != "text":
        output.emit(session.form, made, human=lambda: made.token)
        return
    click.echo(made.token)
    if sys.stderr.isatty():
        output.say(f"for {made.identity}, once, until {made.expires}")


@token.command("list")
@options.session("table", "json", "yaml", "name")
def list_tokens(*, session: Session) -> None:
    """Tokens, the newest last: those that can be used, and those that were a short while ago."""
    from meshlib_control.admin.authority_views import TokenList

    found = session.client.get("/v1/tokens", TokenList)
    session.emit(found, human=lambda: _tokens(found), names=lambda: [each.id for each in found.tokens])


@token.command()
@click.argument("id")
@options.session("table", "json", "yaml")
def revoke(id: str, *, session: Session) -> None:
    """Make the token ID useless."""
    from meshlib_control.admin.authority_views import TokenList

    left = session.client.delete(f"/v1/tokens/{segment(id)}", TokenList)
    session.emit(left, human=lambda: _tokens(left))


def _tokens(found: TokenList) -> RenderableType:
    from meshlib_control.cli.render import table

    rows = [(each.id, each.identity, each.expires, each.cidr, each.used, each.by) for each in found.tokens]
    return table(("ID", "IDENTITY", "EXPIRES", "CIDR", "USED", "BY"), rows)


def _authority(found: AuthorityView) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from meshlib_control.cli.render import table

    rows = [(root.phase.upper(), root.sha256, root.since, root.signing_expires, root.root_expires) for root in found.roots]
    parts: list[RenderableType] = [
        Text(f"Trust domain {found.trust_domain}, {'issuing' if found.issuing else 'NOT ISSUING'}"),
        table(("PHASE", "ROOT SHA-256", "SINCE", "SIGNING UNTIL", "ROOT UNTIL"), rows),
    ]
    if found.bans:
        bans = [(each.identity, each.time, each.by, each.reason) for each in found.bans]
        parts += [Text(""), table(("BANNED", "SINCE", "BY", "WHY"), bans)]
    parts += [Text(f"Problem: {problem}", style="yellow") for problem in found.problems]
    return Group(*parts)
