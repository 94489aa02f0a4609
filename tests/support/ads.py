"""The smallest ADS server that real clients accept: state-of-the-world, one fixed set of resources, NACKs written down.

Independent of meshlib_control.serve on purpose: what it proves is that the *resources* are acceptable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message

from meshlib.xds.proto import discovery_pb2
from meshlib.xds.types import ADS_SERVICE, pack

Generate = Callable[[str, Collection[str] | None], Mapping[str, Message]]
"""(type URL, names or None for all) → resources by name."""


@dataclass
class AdsServer:
    """`nacks`: (short type, message) of everything that a client refused; `acked`: type URLs that one accepted."""

    port: int
    nacks: list[tuple[str, str]] = field(default_factory=list)
    acked: set[str] = field(default_factory=set)


@contextmanager
def serving(generate: Generate) -> Iterator[AdsServer]:
    state = AdsServer(0)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handler = grpc.stream_stream_rpc_method_handler(
        lambda requests, context: _answers(state, generate, requests),
        request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
        response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(ADS_SERVICE, {"StreamAggregatedResources": handler}),)
    )
    state.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield state
    finally:
        server.stop(0).wait(10)


def _answers(
    state: AdsServer, generate: Generate, requests: Iterator[discovery_pb2.DiscoveryRequest]
) -> Iterator[discovery_pb2.DiscoveryResponse]:
    lock = threading.Lock()
    sent: dict[str, tuple[str, ...]] = {}
    nonces: dict[str, str] = {}
    try:
        for request in requests:
            names = tuple(sorted(request.resource_names))
            with lock:
                if request.HasField("error_detail"):
                    state.nacks.append((request.type_url.rpartition(".")[2], request.error_detail.message))
                elif request.response_nonce and request.response_nonce == nonces.get(request.type_url):
                    state.acked.add(request.type_url)
                if sent.get(request.type_url) == names:
                    continue
                sent[request.type_url] = names
                nonces[request.type_url] = f"{request.type_url}/{len(nonces)}/{len(names)}"
                found = generate(request.type_url, names or None)
                yield discovery_pb2.DiscoveryResponse(
                    version_info="1",
                    type_url=request.type_url,
                    nonce=nonces[request.type_url],
                    resources=[pack(message) for message in found.values()],
                )
    except grpc.RpcError:
        return  # the client went away
