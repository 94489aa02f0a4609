"""The discovery service and the registry on a real port: in a thread of the test, or as a process that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import meshlib_control.compile as compiler
from meshlib_control.catalog.leases import Registration, Terms, UnknownInstance
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import World
from meshlib_control.serve.ads import DiscoveryService
from meshlib_control.serve.cache import Compiler
from meshlib_control.serve.push import Debounce
from meshlib_control.serve.registry import RegistryService
from meshlib_control.serve.server import GrpcServer
from meshlib_control.serve.status import ServerStatus
from tests.support.configuring import registered, world

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds to wait for anything: generous, since the machine may be busy."""

NOTHING = world()


def until(condition: Callable[[], T], what: str) -> T:
    """The first truthy result of `condition()`."""
    deadline = time.monotonic() + DEADLINE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.02)
    return result


def shop(*texts: str, **ports: Sequence[int]) -> World:
    """Services by name, each with instances on these ports of this machine."""
    return world(
        *texts,
        services=[
            registered(name, *(Instance(f"{name}-{port}", "127.0.0.1", port) for port in numbers))
            for name, numbers in ports.items()
        ],
    )


class MemoryRegistrations:
    """Registrations without leases that end; clearing `known` is what a lost store does."""

    def __init__(self) -> None:
        self.terms = Terms(ttl=3.0, renew_interval=0.1)
        self.known: dict[str, Registration] = {}
        self.ready: dict[str, bool] = {}
        self.heard: list[str] = []

    async def register(self, registration: Registration) -> Terms:
        self.heard.append("register")
        self.known[registration.instance_id] = registration
        self.ready[registration.instance_id] = True
        return self.terms

    async def renew(self, instance_id: str, *, ready: bool = True) -> None:
        self.heard.append("renew")
        if instance_id not in self.known:
            raise UnknownInstance(instance_id)
        self.ready[instance_id] = ready

    async def deregister(self, instance_id: str) -> None:
        self.heard.append("deregister")
        self.known.pop(instance_id, None)

    def registration(self, instance_id: str) -> Registration | None:
        return self.known.get(instance_id)


class ControlPlane:
    """In a thread with an event loop of its own.  Stopped and started again, it is on the same port."""

    def __init__(
        self, served: World = NOTHING, *, settle: float = 0.0, empty: bool = False, compile_with: Compiler[World] = compiler
    ) -> None:
        self.world = served
        self.registrations = MemoryRegistrations()
        self.port = 0
        self.settle = settle
        self.empty = empty
        self._compiler = compile_with
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._service: DiscoveryService[World] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="control-plane", daemon=True)
        self._thread.start()
        assert started.wait(DEADLINE), "the control plane does not start"

    def stop(self) -> None:
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        self._thread = None

    def publish(self, served: World, *, empty: bool = False) -> None:
        self.world = served
        self._do(self._publish(served, empty))

    def status(self) -> ServerStatus:
        return self._do(self._status())

    async def _run(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._service = DiscoveryService(
            self._compiler, self.world, debounce=Debounce(0.01, 0.1), settle=self.settle, empty=self.empty
        )
        async with self._service:
            registry = RegistryService(self.registrations, groups=lambda *key: self.world.workload_groups.find(*key))
            server = GrpcServer([self._service.handler(), registry.handler()])
            self.port = await server.start(f"127.0.0.1:{self.port}")
            started.set()
            await self._stop.wait()
            await server.stop(0.0)

    async def _publish(self, served: World, empty: bool) -> None:
        assert self._service is not None
        self._service.publish(served, empty=empty)

    async def _status(self) -> ServerStatus:
        assert self._service is not None
        return self._service.status()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)


class ControlProcess:
    """The same in a process of its own, which can be killed, stopped and continued."""

    def __init__(self, **ports: Sequence[int]) -> None:
        self.ports: Mapping[str, Sequence[int]] = ports
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> ControlProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.control_plane", str(self.port), json.dumps(self.ports)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._process = process
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(DEADLINE), "the control process says nothing"
        self.port = int(process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """The sockets stay open and nothing answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


def main(port: str, ports: str) -> None:
    plane = ControlPlane(shop(**json.loads(ports)))
    plane.port = int(port)
    plane.start()
    print(plane.port, flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
