"""``meshctl`` and ``python -m meshlib_control``."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("click", "rich", "msgspec", "yaml", "httpx", "starlette", "uvicorn")


def main() -> None:
    """The command line; without the `control` extra, the line that installs it."""
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        sys.stderr.write(
            f"meshctl needs packages that are not installed here ({', '.join(missing)}).\n"
            "They come with the extra `control`; from a checkout of meshlib:\n\n    pip install '.[control]'\n"
        )
        sys.exit(2)

    from meshlib_control.cli.main import cli

    cli(prog_name="meshctl")


if __name__ == "__main__":
    main()
