# gunicorn -c python:meshlib_integrations.gunicorn -k meshlib_integrations.gunicorn.ThreadMeshWorker examples.flask.server:app
from flask import Flask

from meshlib import Mesh
from meshlib_integrations.wsgi import MeshMiddleware

app = Flask(__name__)
app.wsgi_app = MeshMiddleware(app.wsgi_app, Mesh.from_env())  # type: ignore[method-assign]  # how Flask has it done


@app.get("/square/<int:number>")
def square(number: int) -> dict[str, int]:
    return {"number": number, "square": number * number}
