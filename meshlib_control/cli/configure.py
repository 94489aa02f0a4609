"""apply, get, delete, diff, history, rollback: the stored configuration and its revisions."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from meshlib_control.admin import views
from meshlib_control.cli import options, output, render
from meshlib_control.cli.client import Refused, segment
from meshlib_control.cli.failures import FAILED, OK, USAGE, Failure
from meshlib_control.cli.names import (
    complete_kind,
    complete_resource,
    complete_target,
    kind_named,
    known_kinds,
    resource_named,
    resources_named,
)
from meshlib_control.cli.options import Write
from meshlib_control.cli.session import Session

Texts = list[tuple[str, str]]


@click.command()
@options.files()
@options.namespace("Namespace of resources that name none.")
@options.write()
@options.session("table", "json", "yaml", "name")
def apply(*, texts: Texts, namespace: str, write: Write, session: Session) -> None:
    """Create or change resources from files, all of them or none.

    Everything is checked first, against what is stored; with an error, every finding is shown and nothing is stored.
    """
    body = _files(texts, namespace=namespace, message=write.message)
    _change(session, "/v1/config", body, write)


@click.command()
@click.argument("kind", required=False, shell_complete=complete_kind)
@click.argument("name", required=False, shell_complete=complete_resource)
@options.namespace("Only this namespace; for a NAME, default if not given.", default=None)
@options.session("table", "json", "yaml", "name")
def get(kind: str | None, name: str | None, *, namespace: str | None, session: Session) -> None:
    """Show stored resources: all, those of a KIND (vs, virtualservice, VirtualService), or one by NAME.

    \b
    Examples:
      meshctl get vs
      meshctl get vs reviews -o yaml
      meshctl get VirtualService/default/reviews
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if name or (kind and "/" in kind):
        key = resource_named(kind, name, namespace or "default")
        item = session.client.get("/v1/config/" + "/".join(map(segment, key)), views.Item)
        if session.form == "yaml":
            _print_yaml([item])
            return
        session.emit(
            item.document,
            human=lambda: render.listing(views.Listing(revision=0, items=[item])),
            names=lambda: [item.resource],
        )
        return
    wanted = kind_named(kind, known_kinds()) if kind else None
    found = session.client.get("/v1/config", views.Listing, kind=wanted, namespace=namespace)
    if session.form == "yaml":
        # What `apply -f -` takes, not what the API answered.
        _print_yaml(found.items)
        return
    session.emit(found, human=lambda: render.listing(found), names=lambda: [item.resource for item in found.items])


@click.command()
@click.argument("target", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]", shell_complete=complete_target)
@options.files(required=False, text="Delete the resources that these files name.")
@options.namespace()
@options.write(force=True)
@options.session("table", "json", "yaml", "name")
def delete(target: tuple[str, ...], *, texts: Texts, namespace: str, write: Write, session: Session) -> None:
    """Delete resources by name, or those that files name, in one revision."""
    keys = resources_named(target, namespace) if target else []
    if texts:
        from meshlib_control.cli.offline import keys_in

        keys += keys_in(texts, namespace)
    if not keys:
        raise Failure(
            "which resource?", why="expected KIND NAME or -f FILE", next_step="`meshctl get` lists all", exit_code=USAGE
        )
    names = ["/".join(key) for key in keys]
    body = views.DeleteRequest(resources=names, message=write.message, author=_author(), force=write.force)
    _change(session, "/v1/config/delete", body, write)


@click.command()
@options.files(required=False, text="Compare what is stored with what applying FILE would make of it.")
@click.option("--since", type=click.IntRange(min=0), metavar="REVISION", help="Compare this revision ...")
@click.option("--to", type=click.IntRange(min=0), metavar="REVISION", help="... with this one, the newest if not given.")
@options.namespace("Namespace of resources that name none.")
@options.session("table", "json", "yaml", "name")
def diff(*, texts: Texts, since: int | None, to: int | None, namespace: str, session: Session) -> None:
    """Show what apply would change, or what changed between revisions.  Exit code 1 if there is a difference."""
    if bool(texts) == (since is not None):
        raise Failure("what is to be compared?", why="expected either -f FILE or --since REVISION", exit_code=USAGE)
    with _findings_shown():
        if texts:
            found = session.client.post("/v1/diff", _files(texts, namespace=namespace), views.Difference)
        else:
            found = session.client.get("/v1/diff", views.Difference, since=since, to=to)
    different = [change for change in found.changes if change.action != "unchanged"]
    if different or session.form in ("json", "yaml"):
        session.emit(found, human=lambda: render.difference(different), names=lambda: [c.resource for c in different])
    if not different:
        output.say("No differences.")
    click.get_current_context().exit(FAILED if different else OK)


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@options.session("table", "json", "yaml", "name")
def history(*, limit: int, session: Session) -> None:
    """List revisions of the configuration, newest first."""
    log = session.client.get("/v1/revisions", views.History, limit=limit)
    session.emit(
        log, human=lambda: render.history(log, now=render.utc_now()), names=lambda: [str(e.revision) for e in log.items]
    )


@click.command()
@click.argument("revision", type=click.IntRange(min=0))
@options.write(dry_run=False)
@options.session("table", "json", "yaml", "name")
def rollback(revision: int, *, write: Write, session: Session) -> None:
    """Make the configuration of REVISION the newest one.  History is kept, so this too can be rolled back."""
    _change(session, "/v1/rollback", views.RollbackRequest(revision=revision, message=write.message, author=_author()), write)


def _print_yaml(items: Iterable[views.Item]) -> None:
    from meshlib_control.config import dump_document

    click.echo("---\n".join(dump_document(item.document) for item in items), nl=False)


def _files(texts: Texts, *, namespace: str, message: str = "") -> views.Files:
    files = [views.File(name=name, text=text) for name, text in texts]
    return views.Files(files=files, namespace=namespace, message=message, author=_author())


def _change(session: Session, path: str, body: object, write: Write) -> None:
    """Ask for a change and print what it did; findings are talk, the changes are data."""
    with _findings_shown():
        applied = session.client.post(path, body, views.Applied, dry_run=write.dry_run or None, expect=write.expect)
    if applied.findings:
        output.show(render.findings(applied.findings), err=True)
    session.emit(applied, human=lambda: render.changes(applied), names=lambda: [c.resource for c in applied.changes])


@contextmanager
def _findings_shown() -> Iterator[None]:
    """Prints the findings that a refusal carries, before the refusal itself is shown."""
    try:
        yield
    except Refused as refused:
        if refused.findings:
            output.show(render.findings(refused.findings), err=True)
        raise


def _author() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return ""
