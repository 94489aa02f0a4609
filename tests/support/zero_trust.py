"""A mesh with identities: a real control service with its CA, workloads in processes of their own, and a Mesh in the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from meshlib import Mesh
from meshlib_control.demo.processes import free_ports
from tests.support.control import Control, eventually
from tests.support.servers import ROOT

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def allow(service: str, *callers: str, namespace: str = "default") -> str:
    """An AuthorizationPolicy: the workloads of `service` (label app) let these service accounts GET."""
    principals = ", ".join(f"cluster.local/ns/{namespace}/sa/{caller}" for caller in callers)
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {service}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {service}}}}}
  rules:
  - from: [{{source: {{principals: [{principals}]}}}}]
    to: [{{operation: {{methods: [GET]}}}}]
"""


class Workload:
    """One uvicorn with `MeshProtocol` that serves `tests.support.whoami`."""

    def __init__(self, town: SecureMesh, service: str, number: int, **environment: str) -> None:
        self.service = service
        (self.port,) = free_ports(1)
        self.reached_file = town.folder / f"{service}-{number}.reached"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
        environ |= town.environment(service)
        environ |= {
            "PYTHONPATH": str(ROOT),
            "MESHLIB_PORT": str(self.port),
            "REACHED": str(self.reached_file),
            **environment,
        }
        command = [sys.executable, "-m", "uvicorn", "tests.support.whoami:app", "--port", str(self.port)]
        command += ["--http", "meshlib_integrations.uvicorn:MeshProtocol", "--log-level", "info"]
        self._log = (town.folder / f"{service}-{number}.log").open("wb")
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stderr=self._log)

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def reached(self) -> list[str]:
        """A line for each request that the application saw."""
        return self.reached_file.read_text().splitlines() if self.reached_file.exists() else []

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


class SecureMesh:
    """Use as a context manager."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.control = Control(folder / "control", *arguments, secure=True)
        self._workloads: list[Workload] = []
        self._token_files: dict[Path, tuple[str, str]] = {}

    def __enter__(self) -> SecureMesh:
        (self.folder / "control").mkdir(exist_ok=True)
        self.control.start()
        self.save_bundle()
        return self

    def __exit__(self, *_: object) -> None:
        for workload in self._workloads:
            workload.stop()
        self.control.kill()

    def save_bundle(self) -> None:
        (self.folder / "ca.pem").write_text(self.control.get("/v1/ca/bundle")["pem"])

    def post(self, path: str, document: object) -> Any:
        with self.control.http() as client:
            response = client.post(path, json=document)
        assert response.is_success, response.text
        return response.json()

    def token_file(self, service: str, namespace: str = "default") -> Path:
        """A file with a join token for this service account."""
        path = self.folder / f"{service}-{len(self._token_files)}.token"
        self._token_files[path] = (service, namespace)
        self._write_token(path)
        return path

    def renew_tokens(self) -> None:
        """A new join token in each file, as an operator has to put it there once a certificate was lost."""
        for path in self._token_files:
            self._write_token(path)

    def _write_token(self, path: Path) -> None:
        service, namespace = self._token_files[path]
        path.write_text(self.post("/v1/tokens", {"service_account": service, "namespace": namespace})["token"])

    def environment(self, service: str, namespace: str = "default") -> dict[str, str]:
        return {
            "MESHLIB_CONTROL": self.control.xds,
            "MESHLIB_CA": self.control.ca,
            "MESHLIB_CA_FILE": str(self.folder / "ca.pem"),
            "MESHLIB_TOKEN_FILE": str(self.token_file(service, namespace)),
            "MESHLIB_SERVICE": service,
        }

    def mesh(self, service: str, namespace: str = "default") -> Mesh:
        """A caller in this process with an identity of its own."""
        return Mesh.from_env(self.environment(service, namespace))

    def serve(self, service: str, **environment: str) -> Workload:
        """A running instance, registered and healthy."""
        workload = Workload(self, service, len(self._workloads), **environment)
        self._workloads.append(workload)

        def registered() -> bool:
            assert workload.process.poll() is None, workload.log
            endpoints = self.control.get("/v1/endpoints")["endpoints"]
            return any(each["port"] == workload.port and each["health"] == "healthy" for each in endpoints)

        eventually(registered, what=f"{service} to register")
        return workload
