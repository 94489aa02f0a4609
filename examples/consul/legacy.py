"""A service without meshlib, which registers itself with Consul as such services do: python -m examples.consul.legacy AGENT PORT"""

import http.server
import json
import sys
import urllib.request

AGENT, PORT = sys.argv[1], int(sys.argv[2])


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"I have never heard of meshlib"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Page) as server:
    service = {"Name": "legacy", "Address": "127.0.0.1", "Port": PORT}
    request = urllib.request.Request(f"{AGENT}/v1/agent/service/register", json.dumps(service).encode(), method="PUT")
    urllib.request.urlopen(request).close()
    server.serve_forever()
