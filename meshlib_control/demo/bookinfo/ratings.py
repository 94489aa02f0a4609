"""ratings: stars, by a plain WSGI application.  Calls nobody."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from meshlib import Mesh
from meshlib_integrations.wsgi import MeshMiddleware


def ratings(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    book = environ["PATH_INFO"].rpartition("/")[2]
    body = json.dumps({"id": book, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]


app = MeshMiddleware(ratings, Mesh.from_env())
