"""What a command works with: the connection to the control service and the form of its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from meshlib_control.cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from meshlib_control.cli.client import ControlClient


class Session:
    """One command's run.  `client` connects on first use, so that offline commands import and open nothing."""

    def __init__(self, *, server: str, timeout: float, form: str) -> None:
        self.server = server
        self.timeout = timeout
        self.form = form
        self._client: ControlClient | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    @property
    def client(self) -> ControlClient:
        """The API of the control service.  A test hands its own httpx transport in as click's context object."""
        if self._client is None:
            import httpx

            from meshlib_control.cli.client import ControlClient

            transport = click.get_current_context().find_object(httpx.BaseTransport)
            self._client = ControlClient(self.server, timeout=self.timeout, transport=transport, token=_token())
        return self._client

    def emit(
        self, value: object, *, human: Callable[[], RenderableType], names: Callable[[], Iterable[str]] | None = None
    ) -> None:
        """Print the result in the form that was asked for."""
        output.emit(self.form, value, human=human, names=names)


def _token() -> str:
    """``MESHCTL_TOKEN``, else the one that a control service of this user has left in ``MESHCTL_TOKEN_FILE`` or its folder."""
    import os
    from pathlib import Path

    from meshlib_control.settings import admin_token_file, default_data_dir

    if token := os.environ.get("MESHCTL_TOKEN", "").strip():
        return token
    file = os.environ.get("MESHCTL_TOKEN_FILE", "")
    try:
        return (Path(file) if file else admin_token_file(default_data_dir())).read_text().strip()
    except OSError:
        return ""  # a service with --insecure-dev asks for none; any other says what is missing
