"""What Consul knows: python -m examples.consul.catalog AGENT"""

import sys

import httpx

services = httpx.get(f"{sys.argv[1]}/v1/catalog/services", trust_env=False).json()
print("Consul's catalog:", ", ".join(sorted(services)))
