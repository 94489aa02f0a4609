"""The registry service: workloads announce the ports that they serve, and keep saying that they are there."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from meshlib.xds.proto import registry_pb2
from meshlib_control.catalog.leases import InvalidRegistration, Registration, Terms, UnknownInstance

logger = logging.getLogger("meshlib_control")

SERVICE = "meshlib.registry.v1.Registry"


class Registrations(Protocol):
    """What is done with them; see `catalog.registrations`."""

    async def register(self, registration: Registration) -> Terms: ...

    async def renew(self, instance_id: str, *, ready: bool = True) -> None:
        """Raises `UnknownInstance`."""
        ...

    async def deregister(self, instance_id: str) -> None: ...


class RegistryService:
    """``meshlib.registry.v1.Registry`` over `registrations`."""

    def __init__(self, registrations: Registrations) -> None:
        self._registrations = registrations

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server needs."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Register": _unary(self._register, registry_pb2.RegisterRequest.FromString),
                "Renew": _unary(self._renew, registry_pb2.RenewRequest.FromString),
                "Deregister": _unary(self._deregister, registry_pb2.DeregisterRequest.FromString),
            },
        )

    async def _register(self, request: registry_pb2.RegisterRequest, context: Any) -> registry_pb2.RegisterResponse:
        try:
            registration = _registration(request, context.peer())
        except InvalidRegistration as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        terms = await self._registrations.register(registration)
        logger.info("registered %s: %s:%d", registration.instance_id, registration.address, registration.port)
        response = registry_pb2.RegisterResponse()
        response.ttl.FromMilliseconds(round(terms.ttl * 1000))
        response.renew_interval.FromMilliseconds(round(terms.renew_interval * 1000))
        return response

    async def _renew(self, request: registry_pb2.RenewRequest, context: Any) -> registry_pb2.RenewResponse:
        try:
            await self._registrations.renew(request.instance_id, ready=request.ready)
        except UnknownInstance as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return registry_pb2.RenewResponse()

    async def _deregister(self, request: registry_pb2.DeregisterRequest, context: Any) -> registry_pb2.DeregisterResponse:
        await self._registrations.deregister(request.instance_id)
        logger.info("deregistered %s", request.instance_id)
        return registry_pb2.DeregisterResponse()


def _registration(request: registry_pb2.RegisterRequest, peer: str) -> Registration:
    """Raises `InvalidRegistration`.  A workload that does not know its address is taken at the one it calls from."""
    locality = request.locality
    return Registration(
        instance_id=request.instance_id,
        service=request.service,
        address=request.address or peer_address(peer),
        port=request.port,
        namespace=request.namespace,
        service_port=request.service_port,
        protocol=request.protocol,
        labels=dict(request.labels),
        locality="/".join((locality.region, locality.zone, locality.sub_zone)).rstrip("/"),
        weight=request.weight,
        service_account=request.service_account,
    )


def peer_address(peer: str) -> str:
    """The IP address in gRPC's name of a peer: ``ipv4:10.0.0.7:51234``, ``ipv6:%5B::1%5D:51234``; else empty."""
    match = re.fullmatch(r"ipv[46]:\[?([0-9a-fA-F.:]+?)\]?:\d+", unquote(peer))
    return match[1] if match else ""


def _unary(method: Callable[..., Awaitable[Message]], read: Callable[[bytes], Message]) -> Any:
    return grpc.unary_unary_rpc_method_handler(method, request_deserializer=read, response_serializer=_serialize)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
