"""Tells the control service which port this process serves, and keeps telling it.

A thread of its own with plain unary calls on the channel of the ADS stream.  Nothing that happens here ever reaches the
application: a control service that is away is tried again, one that forgot us (NOT_FOUND) is told anew.
"""

from __future__ import annotations

import logging
import os
import threading
from random import Random
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from meshlib.model.workload import Workload
from meshlib.policy.backoff import Backoff
from meshlib.policy.rng import Rng
from meshlib.runtime.channel import ControlChannel
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.runtime.readiness import ReadinessProbe
from meshlib.runtime.settings import Settings
from meshlib.xds.proto import core_pb2, registry_pb2

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger("meshlib")

R = TypeVar("R", bound=Message)

BACKOFF = Backoff(initial=0.5, cap=10.0)
"""Shorter than that of the stream: a lease ends some 15 s after the last renewal."""

CALL_TIMEOUT = 5.0
"""Seconds for one call, the time to connect included."""

_METHODS = "/meshlib.registry.v1.Registry/"
_SPREAD = 0.1  # of the renewal interval: a fleet that was started at once must not renew at once


class Registration:
    """One served port.  All methods may be called from any thread, and none raises because of the control service."""

    def __init__(
        self,
        channel: ControlChannel,
        settings: Settings,
        workload: Workload,
        port: int,
        *,
        mtls: bool = False,
        rng: Rng | None = None,
    ) -> None:
        """`mtls`: the port speaks the mesh's mTLS."""
        self._channel = channel
        self._settings = settings
        self._workload = workload
        self._port = port
        self._mtls = mtls
        self._rng = rng or Random()
        self._origin = os.getpid()
        self.registered = False
        self.error = ""  # why the newest attempt failed; empty: it did not
        self._interval = 5.0
        self._ready = True
        self._probe: ReadinessProbe | None = None  # of the group that this process has joined
        self._closing = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        forget_in_child(self)

    def start(self) -> None:
        """Register, in the background."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="meshlib-registration", daemon=True)
                self._thread.start()

    def set_ready(self, *, ready: bool) -> None:
        """Whether this process wants calls now; told at once."""
        if self._ready != ready:
            self._ready = ready
            self._wake.set()

    def close(self, timeout: float = 2.0) -> None:
        """Deregister.  Waits at most `timeout` seconds for the control service to know."""
        with self._lock:
            self._closing = True
            thread = self._thread
        self._wake.set()
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def forget(self) -> None:
        """In a forked child: what was registered is the parent's."""
        self.registered = False
        self._closing = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = None
        keep_for_ever(self._probe)
        self._probe, self._ready = None, True

    @property
    def instance_id(self) -> str:
        """Of this process and port: a forked child is another instance."""
        child = "" if os.getpid() == self._origin else f"-{os.getpid()}"
        return f"{self._workload.instance}{child}-{self._port}"

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            self._wake.clear()
            try:
                interval = self._renew() if self.registered else self._register()
                failures, self.error = 0, ""
                pause = interval * (1.0 + _SPREAD * (2.0 * self._rng.random() - 1.0))
            except Exception as error:
                failures += 1
                pause = self._failed(error, failures)
            if not self._closing:
                self._wake.wait(pause)
        if self.registered:
            self._deregister()

    def _register(self) -> float:
        response = self._call("Register", self._request(), registry_pb2.RegisterResponse)
        self._interval = response.renew_interval.ToMilliseconds() / 1000 or 5.0
        self.registered = True
        if self._probe is None and response.HasField("probe") and not self._closing:
            self._ready = False
            self._probe = ReadinessProbe(response.probe, self._told, address=self._settings.address)
        logger.info("registered as %s of %s, port %d", self.instance_id, self._settings.service, self._port)
        # Whether it is ready is what the control service does not know of one that is probed.
        return self._interval if self._ready and self._probe is None else 0.0

    def _told(self, ready: bool) -> None:
        self.set_ready(ready=ready)

    def _renew(self) -> float:
        self._call(
            "Renew", registry_pb2.RenewRequest(instance_id=self.instance_id, ready=self._ready), registry_pb2.RenewResponse
        )
        return self._interval

    def _deregister(self) -> None:
        self.registered = False
        try:
            self._call(
                "Deregister", registry_pb2.DeregisterRequest(instance_id=self.instance_id), registry_pb2.DeregisterResponse
            )
        except Exception as error:
            logger.warning("%s could not be deregistered, its lease will run out: %s", self.instance_id, _reason(error))

    def _failed(self, error: Exception, failures: int) -> float:
        """Seconds to wait before the next attempt."""
        if self.registered and _code(error) == "NOT_FOUND":
            self.registered = False
            logger.info("the control service does not know %s any more, registering again", self.instance_id)
            return 0.0
        reason = _reason(error)
        if reason != self.error:  # said once, not at every attempt
            logger.warning("%s is not registered with the control service: %s", self.instance_id, reason)
        self.error = reason
        return BACKOFF.delay(failures, self._rng)

    def _request(self) -> registry_pb2.RegisterRequest:
        settings, workload = self._settings, self._workload
        locality = workload.locality
        return registry_pb2.RegisterRequest(
            instance_id=self.instance_id,
            service=settings.service,
            namespace=workload.namespace,
            address=settings.address,
            port=self._port,
            service_port=settings.service_port,
            protocol=settings.protocol,
            labels=dict(workload.labels),
            locality=core_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone),
            weight=settings.weight,
            group=workload.group,
            service_account=workload.service_account,
            mtls=self._mtls,
        )

    def _call(self, method: str, request: Message, answer: type[R]) -> R:
        call = self._channel.get().unary_unary(
            _METHODS + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        response: R = call(request, timeout=CALL_TIMEOUT)
        return response


def _code(error: Exception) -> str:
    """The gRPC status of a failed call; empty for anything else."""
    code = getattr(error, "code", None)
    status: grpc.StatusCode | None = code() if callable(code) else None
    return status.name if status is not None else ""


def _reason(error: Exception) -> str:
    details = getattr(error, "details", None)
    return f"{_code(error)}: {details()}" if callable(details) else f"{type(error).__name__}: {error}"
