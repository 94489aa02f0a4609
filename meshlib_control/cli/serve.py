"""serve: settings from the command line, then the control service until a signal ends it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click

from meshlib_control.cli import output
from meshlib_control.cli.failures import FAILED, OK, USAGE, Failure
from meshlib_control.settings import (
    DEFAULT_ADMIN_PORT,
    DEFAULT_CA_PORT,
    DEFAULT_INSECURE_XDS_PORT,
    DEFAULT_XDS_PORT,
    Address,
    Security,
    Settings,
    SettingsError,
    default_data_dir,
    sqlite_url,
)


@click.command()
@click.option(
    "--listen",
    default="",
    metavar="IP:PORT",
    help=f"xDS and registry for clients; port 0: any.  [default: 127.0.0.1:{DEFAULT_XDS_PORT}; with --insecure-dev"
    f" 127.0.0.1:{DEFAULT_INSECURE_XDS_PORT}]",
)
@click.option(
    "--ca-listen",
    default=f"127.0.0.1:{DEFAULT_CA_PORT}",
    show_default=True,
    metavar="IP:PORT",
    help="Certificates, for callers that have none yet; port 0: any.",
)
@click.option(
    "--admin",
    default=f"127.0.0.1:{DEFAULT_ADMIN_PORT}",
    show_default=True,
    metavar="IP:PORT",
    help="REST for meshctl; port 0: any.",
)
@click.option(
    "--store",
    default="",
    envvar="MESHCTL_STORE",
    metavar="URL",
    help="sqlite:///PATH or consul://HOST:PORT; by default SQLite in --data.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the embedded store is.  [default: $XDG_STATE_HOME/meshlib]",
)
@click.option(
    "--consul-catalog",
    default="",
    metavar="URL",
    help="Take services and their health from this Consul agent too.  [default: the one of --store, if any; none: do not]",
)
@click.option(
    "--config",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A file or folder read beside the store, and again when it changes; may be repeated.",
)
@click.option("--mesh-domain", default="cluster.local", show_default=True, metavar="DOMAIN", help="Suffix of service names.")
@click.option(
    "--debounce", type=float, default=0.1, show_default=True, metavar="SECONDS", help="Quiet time before a change is pushed."
)
@click.option(
    "--debounce-max",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait while changes keep coming.",
)
@click.option(
    "--lease-ttl",
    type=float,
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="A registered instance that is silent for this long is dropped.",
)
@click.option(
    "--trust-domain", default="cluster.local", show_default=True, metavar="NAME", help="Of all identities: spiffe://NAME/..."
)
@click.option(
    "--ca-key",
    default="",
    envvar="MESHCTL_CA_KEY",
    metavar="SOURCE",
    help="What encrypts the CA's keys in the store: file:PATH, env:NAME or command:WORDS.  [default: a file in --data]",
)
@click.option(
    "--ca-chain",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own root or intermediate, with those above it (PEM), instead of a root that is made here.",
)
@click.option("--ca-chain-key", type=click.Path(path_type=Path), metavar="FILE", help="The private key of --ca-chain (PEM).")
@click.option(
    "--certificate-ttl",
    type=float,
    default=86400.0,
    show_default=True,
    metavar="SECONDS",
    help="How long certificates of workloads are good; they are renewed at half of it.",
)
@click.option(
    "--max-chain-age",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long certificates may follow one another before a token or JWT is needed again; 0: for ever.",
)
@click.option(
    "--jwt-issuers", type=click.Path(path_type=Path), metavar="FILE", help="Who else may say who a caller is: OIDC, Kubernetes."
)
@click.option(
    "--allow-fetch",
    multiple=True,
    metavar="TARGET",
    help="A host, *.suffix or network that jwksUri may lead to although it is not public; may be repeated.",
)
@click.option(
    "--insecure-dev",
    is_flag=True,
    help="Without any certificates, on loopback only: whoever can connect is trusted, for everything.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged, on stderr.",
)
@click.option(
    "-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", help="Form of the line with the addresses."
)
def serve(**options: Any) -> None:
    """Run the control service until SIGTERM or Ctrl-C.

    One line on stdout says where it listens: xds=127.0.0.1:15012 ca=127.0.0.1:15013 admin=http://127.0.0.1:15014
    """
    logging.basicConfig(
        stream=sys.stderr, level=options["log_level"].upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel("WARNING")  # its start and end are ours
    try:
        settings = _settings(options)
    except SettingsError as error:
        raise Failure(f"{error.what} ({error.where})", why=error.why, next_step=error.next_step, exit_code=USAGE) from error
    click.get_current_context().exit(_run(settings, options["form"]))


def _settings(options: dict[str, Any]) -> Settings:
    data: Path = options["data"] or default_data_dir()
    store: str = options["store"] or sqlite_url(data)
    port = DEFAULT_INSECURE_XDS_PORT if options["insecure_dev"] else DEFAULT_XDS_PORT
    return Settings(
        store=store,
        listen=Address.parse(options["listen"] or f"127.0.0.1:{port}", where="--listen"),
        admin=Address.parse(options["admin"], where="--admin"),
        security=None if options["insecure_dev"] else _security(options, data),
        consul_catalog=options["consul_catalog"],
        mesh_domain=options["mesh_domain"],
        config=options["config"],
        fetch_allow=options["allow_fetch"],
        debounce_quiet=options["debounce"],
        debounce_max=options["debounce_max"],
        lease_ttl=options["lease_ttl"],
    )


def _security(options: dict[str, Any], data: Path) -> Security:
    return Security(
        trust_domain=options["trust_domain"],
        ca_listen=Address.parse(options["ca_listen"], where="--ca-listen"),
        ca_key=options["ca_key"],
        ca_chain=options["ca_chain"],
        ca_chain_key=options["ca_chain_key"],
        certificate_ttl=options["certificate_ttl"],
        max_chain_age=options["max_chain_age"],
        jwt_issuers=options["jwt_issuers"],
        data=data,
    )


def _run(settings: Settings, form: str) -> int:
    """Serve until a signal comes; the exit code."""
    import asyncio

    from meshlib_control.app import ControlService
    from meshlib_control.errors import ControlServiceError

    def announce(service: ControlService) -> None:
        addresses = {"xds": service.xds_address, "ca": service.ca_address, "admin": f"http://{service.admin_address}"}
        if not service.ca_address:
            del addresses["ca"]
        click.echo(
            json.dumps(addresses) if form == "json" else " ".join(f"{name}={value}" for name, value in addresses.items())
        )
        sys.stdout.flush()

    if settings.security is None:
        output.say(_WARNING)
    try:
        asyncio.run(ControlService(settings).run(ready=announce))
    except (ControlServiceError, OSError) as error:
        raise Failure("the control service cannot start", why=str(error), exit_code=FAILED) from error
    return OK


_WARNING = (
    "WARNING: --insecure-dev: NOTHING IS ENCRYPTED OR AUTHENTICATED: every process on this machine can read and change"
    " the mesh. For development only."
)
