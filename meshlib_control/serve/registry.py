"""The registry service: workloads announce the ports that they serve, and keep saying that they are there."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from meshlib import SpiffeId
from meshlib.xds.proto import registry_pb2
from meshlib_control.ca.peers import address_of
from meshlib_control.catalog.leases import InvalidRegistration, Registration, Terms, UnknownInstance
from meshlib_control.compile.probes import probe_message
from meshlib_control.compile.workload_groups import NO_TEMPLATE, Template
from meshlib_control.reports import InvalidReport, Reports, TooMuch
from meshlib_control.serve.identity import Callers, NotAllowed, check_claims

logger = logging.getLogger("meshlib_control")

SERVICE = "meshlib.registry.v1.Registry"


class Registrations(Protocol):
    """What is done with them; see `catalog.registrations`."""

    async def register(self, registration: Registration) -> Terms: ...

    async def renew(self, instance_id: str, *, ready: bool = True) -> None:
        """Raises `UnknownInstance`."""
        ...

    async def deregister(self, instance_id: str) -> None: ...

    def registration(self, instance_id: str) -> Registration | None:
        """What is known under this id, whoever registered it and through whichever replica."""
        ...


MayServe = Callable[[SpiffeId, str], bool]
"""Whether an identity may register instances of a service (its short name) in its own namespace."""


def of_its_own_name(identity: SpiffeId, service: str) -> bool:
    """The rule without further grants: a service account registers the service that bears its name."""
    return identity.service_account == service


Groups = Callable[[str, str], "Template | None"]
"""The template of a WorkloadGroup by namespace and name; None: there is none."""


def without_groups(namespace: str, name: str) -> Template | None:
    """Of a service that knows no configuration."""
    return None


class RegistryService:
    """``meshlib.registry.v1.Registry`` over `registrations`.

    Where callers have identities, an identity registers only what `may_serve` lets it, as itself, and renews and ends only
    what it has registered.
    """

    def __init__(
        self,
        registrations: Registrations,
        callers: Callers | None = None,
        may_serve: MayServe = of_its_own_name,
        groups: Groups = without_groups,
        *,
        reports: Reports | None = None,
    ) -> None:
        """`reports`: where what callers tell is kept."""
        self._registrations = registrations
        self._callers = callers or Callers()
        self._may_serve = may_serve
        self._groups = groups
        self._reports = reports or Reports()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server needs."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Register": _unary(self._register, registry_pb2.RegisterRequest.FromString),
                "Renew": _unary(self._renew, registry_pb2.RenewRequest.FromString),
                "Deregister": _unary(self._deregister, registry_pb2.DeregisterRequest.FromString),
                "Report": _unary(self._report, bytes),  # its size is looked at before it is read
            },
        )

    async def _register(self, request: registry_pb2.RegisterRequest, context: Any) -> registry_pb2.RegisterResponse:
        identity = await self._caller(context)
        try:
            template = self._template(request, identity)
            registration = _registration(request, context.peer(), identity, template)
            self._check(registration, identity)
        except InvalidRegistration as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        except NotAllowed as error:
            await _refused(context, error)
            raise
        terms = await self._registrations.register(registration)
        if template.probe is not None:
            # Unready until it says otherwise: nobody is to call it before its first probe.
            await self._registrations.renew(registration.instance_id, ready=False)
        logger.info("registered %s: %s:%d", registration.instance_id, registration.address, registration.port)
        response = registry_pb2.RegisterResponse()
        response.ttl.FromMilliseconds(round(terms.ttl * 1000))
        response.renew_interval.FromMilliseconds(round(terms.renew_interval * 1000))
        if template.probe is not None:
            response.probe.CopyFrom(probe_message(template.probe))
        return response

    async def _renew(self, request: registry_pb2.RenewRequest, context: Any) -> registry_pb2.RenewResponse:
        await self._owner(request.instance_id, context)
        try:
            await self._registrations.renew(request.instance_id, ready=request.ready)
        except UnknownInstance as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return registry_pb2.RenewResponse()

    async def _deregister(self, request: registry_pb2.DeregisterRequest, context: Any) -> registry_pb2.DeregisterResponse:
        await self._owner(request.instance_id, context)
        await self._registrations.deregister(request.instance_id)
        logger.info("deregistered %s", request.instance_id)
        return registry_pb2.DeregisterResponse()

    async def _report(self, data: bytes, context: Any) -> registry_pb2.ReportResponse:
        """Kept under the identity that the caller's certificate says, whatever the report claims."""
        identity = await self._caller(context)
        try:
            self._reports.take(str(identity) if identity else "", data)
        except InvalidReport as error:
            logger.warning("%s: refused a report: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooMuch as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return registry_pb2.ReportResponse()

    async def _caller(self, context: Any) -> SpiffeId | None:
        try:
            return self._callers.caller(context)
        except NotAllowed as error:
            logger.warning("%s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            raise

    async def _owner(self, instance_id: str, context: Any) -> None:
        """Abort unless the caller is who registered the instance.  An instance that nobody registered has no owner."""
        identity = await self._caller(context)
        known = self._registrations.registration(instance_id)
        if identity is None or known is None:
            return
        if (known.namespace, known.service_account) != (identity.namespace, identity.service_account):
            await _refused(context, NotAllowed(f"{identity} has not registered {instance_id!r}"))

    def _template(self, request: registry_pb2.RegisterRequest, identity: SpiffeId | None) -> Template:
        """Of the group that is joined.  Raises `InvalidRegistration` when there is none, `NotAllowed` when it is for others."""
        if not request.group:
            return NO_TEMPLATE
        namespace = identity.namespace if identity else request.namespace or "default"
        template = self._groups(namespace, request.group)
        if template is None:
            raise InvalidRegistration(f"there is no WorkloadGroup {request.group} in the namespace {namespace}")
        if identity is not None and template.service_account not in ("", identity.service_account):
            account = template.service_account
            raise NotAllowed(
                f"{identity} may not join the WorkloadGroup {request.group}: it is for the service account {account}"
            )
        return template

    def _check(self, registration: Registration, identity: SpiffeId | None) -> None:
        """Raises `NotAllowed`."""
        if identity is None:
            return
        if registration.namespace != identity.namespace or not self._may_serve(identity, registration.service):
            raise NotAllowed(
                f"{identity} may not register {registration.service}.{registration.namespace}: a service account registers the"
                " service of its own name and namespace, and what registrationGrants of the MeshConfig let it"
            )
        known = self._registrations.registration(registration.instance_id)
        if known is not None and (known.namespace, known.service_account) != (identity.namespace, identity.service_account):
            raise NotAllowed(f"{registration.instance_id!r} was registered by another identity")


async def _refused(context: Any, error: NotAllowed) -> None:
    logger.warning("%s: %s", context.peer(), error)
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))


def _registration(
    request: registry_pb2.RegisterRequest, peer: str, identity: SpiffeId | None, template: Template
) -> Registration:
    """Raises `InvalidRegistration` and `NotAllowed`.

    A workload that does not know its address is taken at the one it calls from; what its certificate says of it is not asked.
    """
    check_claims(identity, namespace=request.namespace, service_account=request.service_account)
    locality = request.locality
    return Registration(
        instance_id=request.instance_id,
        service=request.service,
        address=request.address or address_of(peer),
        port=request.port,
        namespace=identity.namespace if identity else request.namespace,
        service_port=request.service_port,
        protocol=request.protocol,
        labels={**request.labels, **template.labels},
        locality=template.locality or "/".join((locality.region, locality.zone, locality.sub_zone)).rstrip("/"),
        weight=template.weight or request.weight,
        service_account=identity.service_account if identity else template.service_account or request.service_account,
        # Without an identity there is nothing that it could show to its callers.
        mtls=request.mtls and identity is not None,
        ports=template.ports,
    )


def _unary(method: Callable[..., Awaitable[Message]], read: Callable[[bytes], Message | bytes]) -> Any:
    return grpc.unary_unary_rpc_method_handler(method, request_deserializer=read, response_serializer=_serialize)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
