"""Django, called with a blocking client."""

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("catalog", "examples.django.site:app")
    mesh.call("examples.django.client")
