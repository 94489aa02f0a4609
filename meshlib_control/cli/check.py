"""analyze, compile, codes: configuration before anybody uses it.  Offline unless `--live` is given."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec

from meshlib_control.admin import views
from meshlib_control.cli import offline, options, output, render
from meshlib_control.cli.failures import FAILED, OK, USAGE, Failure
from meshlib_control.cli.session import Session

Texts = list[tuple[str, str]]


@click.command()
@options.files(required=False)
@click.option("--live", is_flag=True, help="Look at the files as a change to what the control service has stored.")
@options.namespace("Namespace of resources that name none.")
@click.option("-S", "--suppress", multiple=True, metavar="CODE", help="Leave findings with this code out; may be repeated.")
@options.session("table", "json", "yaml")
def analyze(*, texts: Texts, live: bool, namespace: str, suppress: tuple[str, ...], session: Session) -> None:
    """Find mistakes in configuration.  Exit code 0 when there are none, 1 when there are findings.

    \b
    Examples:
      meshctl analyze -f mesh/                the files alone, no control service needed
      meshctl analyze -f canary.yaml --live   what the mesh would be with this file applied
      meshctl analyze --live                  what is stored now
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if not texts and not live:
        raise Failure("what is to be analyzed?", why="expected -f FILE, --live, or both", exit_code=USAGE)
    if live:
        files = [views.File(name=name, text=text) for name, text in texts]
        found = session.client.post("/v1/analyze", views.Files(files=files, namespace=namespace), views.Findings).findings
    else:
        found = offline.analyzed(texts, namespace).findings
    found = [finding for finding in found if finding.code not in suppress]
    if found or session.form != "table":
        session.emit(found, human=lambda: render.findings(found))
    output.say(f"{render.summary(found)}. `meshctl codes CODE` says what a code means." if found else "No findings.")
    click.get_current_context().exit(FAILED if found else OK)


@click.command("compile")
@options.files()
@click.option(
    "--node",
    "node_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="NODE.json",
    help='The client: {"flavour": "meshlib"|"envoy"|"grpc", "service", "namespace", "service_account", "labels", "locality",'
    ' "ports": [9080]} (of an Envoy, with the port of the application behind it: "9080:8080").',
)
@options.namespace("Namespace of resources that name none.")
@options.output("json", "yaml")
def compile_command(*, texts: Texts, node_file: Path, namespace: str, form: str) -> None:
    """Print, offline, the xDS resources that a node would get: one list of protobuf-JSON with Envoy's @type names.

    Services and instances come from the files too (ServiceEntry, WorkloadEntry). Inbound listeners, with the filters of its
    policies, are shown for the node's ports; where it names none, for those of its service in the files, or as an example for
    port 80 (and the TCP port 9000 of an Envoy) if policies hold for it.
    """
    node = _read_node(node_file)
    analyzed = offline.analyzed(texts, namespace)
    if analyzed.findings:
        output.show(render.findings(analyzed.findings), err=True)
    if analyzed.is_refused:
        raise Failure(
            "the configuration has errors",
            why=render.summary(analyzed.findings),
            next_step="correct them; `meshctl codes CODE` explains a code",
        )
    found = offline.compiled(analyzed.config, node)
    if found.assumed:
        ports = ", ".join(map(str, found.assumed))
        output.say(f'{node_file} names no ports; inbound listeners are shown for {ports}. Name its own with "ports": [9080].')
    resources = found.resources
    click.echo(json.dumps(resources, indent=2, ensure_ascii=False) if form == "json" else output.yaml_text(resources))


def _read_node(path: Path) -> views.NodeView:
    try:
        return msgspec.json.decode(path.read_bytes(), type=views.NodeView)
    except (OSError, msgspec.MsgspecError) as error:
        raise Failure(
            f"{path} does not describe a node",
            why=str(error),
            next_step='for example {"flavour": "meshlib", "service": "web", "namespace": "default"}',
            exit_code=USAGE,
        ) from error


@click.command()
@click.argument("code", required=False)
@options.output("table", "json", "yaml")
def codes(code: str | None, *, form: str) -> None:
    """Say what a finding's code (MSH0101) means and what to do about it; without a CODE, list them all."""
    found = offline.explained(code.upper() if code else None)
    if code and not found:
        raise Failure(f"there is no code {code}", next_step="`meshctl codes` lists them all")
    output.emit(form, found, human=lambda: render.codes(found) if code is None else render.code(found[0]))
