"""A service without meshlib, which registers itself with Consul: python -m examples.consul.legacy AGENT"""

import http.server
import json
import sys
import urllib.request

AGENT = sys.argv[1]


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"I have never heard of meshlib"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
    service = {"Name": "legacy", "Address": "127.0.0.1", "Port": server.server_port}
    request = urllib.request.Request(f"{AGENT}/v1/agent/service/register", json.dumps(service).encode(), method="PUT")
    urllib.request.urlopen(request).close()
    server.serve_forever()
