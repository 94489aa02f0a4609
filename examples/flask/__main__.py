"""Flask under gunicorn, called with requests."""

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("numbers", "examples.flask.server:app", wsgi=True)
    mesh.call("examples.flask.client")
