from meshlib import Mesh

with Mesh.from_env() as mesh:
    for url in ("http://hello/world", "http://legacy/"):
        print(url, "->", mesh.request("GET", url, timeout=5.0).text)
