"""One GET, and what came of it: python -m meshlib_control.demo.call http://ratings/ratings/7

`--plain`: by httpx alone, without the mesh, as anybody does who knows an instance's address.
"""

from __future__ import annotations

import argparse
import sys

import httpx

from meshlib import Mesh
from meshlib.errors import MeshError


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--plain", action="store_true", help="without the mesh")
    options.add_argument("url")
    chosen = options.parse_args()
    try:
        status, text = (plain if chosen.plain else meshed)(chosen.url)
    except (MeshError, httpx.TransportError) as error:
        print(f"no answer: {type(error).__name__}: {error}")  # noqa: T201 - the program's output
        return 1
    print(f"{status} {text.strip()}")  # noqa: T201
    return 0 if status < 400 else 1


def meshed(url: str) -> tuple[int, str]:
    with Mesh.from_env() as mesh:
        response = mesh.request("GET", url, timeout=30.0)
        return response.status_code, response.text


def plain(url: str) -> tuple[int, str]:
    response = httpx.get(url, timeout=10.0, trust_env=False)
    return response.status_code, response.text


if __name__ == "__main__":
    sys.exit(main())
