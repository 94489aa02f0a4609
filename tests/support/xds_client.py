"""The smallest delta ADS client: asks, keeps what it was sent, confirms or refuses."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from meshlib.xds.proto import core_pb2, discovery_pb2
from meshlib.xds.types import ADS_DELTA

Refuse = Callable[[discovery_pb2.DeltaDiscoveryResponse], str]
"""What to answer a response with: the words of a refusal, or nothing to accept it."""


class XdsClient:
    """`versions`: (type URL, name) → the version that was sent last.  Use as a context manager."""

    def __init__(self, address: str, *, node: str, service: str = "web", refuse: Refuse = lambda response: "") -> None:
        self.versions: dict[tuple[str, str], str] = {}
        self._node = core_pb2.Node(id=node, user_agent_name="meshlib", metadata=_struct({"SERVICE": service}))
        self._refuse = refuse
        self._channel = grpc.insecure_channel(address)
        self._requests: queue.SimpleQueue[discovery_pb2.DeltaDiscoveryRequest | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> XdsClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._channel.close()
        self._thread.join(30)

    def subscribe(self, type_url: str, *names: str) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(node=self._node, type_url=type_url, resource_names_subscribe=list(names))
        self._requests.put(request)

    def _run(self) -> None:
        call = self._channel.stream_stream(
            ADS_DELTA,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        try:
            for response in call(self._outgoing()):
                self._take(response)
        except grpc.RpcError:
            pass  # closed

    def _outgoing(self) -> Iterator[discovery_pb2.DeltaDiscoveryRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def _take(self, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        words = self._refuse(response)
        if words:
            answer.error_detail.code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
            answer.error_detail.message = words
        else:
            self.versions.update({(response.type_url, each.name): each.version for each in response.resources})
            for name in response.removed_resources:
                self.versions.pop((response.type_url, name), None)
        self._requests.put(answer)


def _struct(content: Mapping[str, object]) -> Struct:
    return ParseDict(dict(content), Struct())
