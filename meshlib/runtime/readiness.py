"""A process that asks itself whether it is ready, as the WorkloadGroup that it has joined says.

As Istio's agent does it beside a virtual machine's service: the probe is made here, and only what comes of it is told to the
control service.  It comes without a certificate: under STRICT, what answers it has a port of its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from meshlib.model.cluster import Cluster, Discovery, HealthCheck
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.health_probes import Probes, Target
from meshlib.xds.health_checks import decode_health_checks
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import cluster_pb2, registry_pb2

logger = logging.getLogger("meshlib")

LOOPBACK = "127.0.0.1"


class Streak:
    """Ready after some successes in a row, unready after some failures in a row; in the beginning unready."""

    def __init__(self, check: HealthCheck) -> None:
        self.ready = False
        self._check = check
        self._count = 0

    def take(self, *, passed: bool) -> bool:
        """The result of a probe; whether it changed anything."""
        self._count = self._count + 1 if passed != self.ready else 0
        needed = self._check.healthy_threshold if passed else self._check.unhealthy_threshold
        if passed == self.ready or self._count < needed:
            return False
        self.ready, self._count = passed, 0
        return True


class ReadinessProbe:
    """Probes in a daemon thread of its own, from now on."""

    def __init__(self, probe: registry_pb2.Probe, tell: Callable[[bool], object], *, address: str = "") -> None:
        """`tell` is called from the thread, with each change; `address`: of this process, where the probe names none."""
        self._check = readiness_check(probe)
        self._delay = probe.initial_delay.ToMilliseconds() / 1000
        self._endpoint = Endpoint(probe.address or address or LOOPBACK, probe.port)
        self._tell = tell
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="meshlib-readiness", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when no more probes are made."""
        self._stopped = True
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            try:
                loop.call_soon_threadsafe(wake.set)
            except RuntimeError:  # it has just ended by itself
                pass
        if self._thread is not threading.current_thread():
            self._thread.join(self._check.timeout + 1.0)

    async def _run(self) -> None:
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        cluster = Cluster("readiness", discovery=Discovery.STATIC, connect_timeout=self._check.timeout)
        target, probes, streak = Target(cluster, self._endpoint, self._check), Probes(None), Streak(self._check)
        try:
            await self._pause(self._delay)
            while not self._stopped:
                failure = await probes.probe(target)
                if not self._stopped and streak.take(passed=failure is None):
                    logger.info("this process is %s", "ready" if failure is None else f"not ready: {failure.reason}")
                    self._tell(streak.ready)
                await self._pause(self._check.interval)
        finally:
            probes.forget(target)
            probes.close()

    async def _pause(self, seconds: float) -> None:
        assert self._wake is not None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


def readiness_check(probe: registry_pb2.Probe) -> HealthCheck:
    """Raises ValueError for what this version cannot execute."""
    problems = Problems()
    (check,) = decode_health_checks(cluster_pb2.Cluster(health_checks=[probe.check]), problems)
    if problems:
        raise ValueError(f"the readiness probe of the group: {'; '.join(map(str, problems.found))}")
    return check
