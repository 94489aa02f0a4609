"""A stub's methods on a mesh's channel, for callers that block their thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet, ref

import grpc

from meshlib import Mesh
from meshlib.errors import MeshError
from meshlib.lowlevel import GrpcTry, OpenTry
from meshlib_integrations._grpc_channel import Method, Options, asked, code_of, pushback, translation
from meshlib_integrations._grpc_metadata import edited


class Failure(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # grpcio has no types
    """A call that the mesh has not made, or given up: with what callers ask of any other failed call."""

    def __init__(self, message: str, *, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        super().__init__(message)
        self._code = code
        self._text = message

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return str(self)

    def debug_error_string(self) -> str:
        return str(self)

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return pushback(self)

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


_TRANSLATION = translation(Failure)


class Calls:
    """The calls of one channel."""

    def __init__(self, mesh: Mesh, target: str, options: Options, compression: grpc.Compression | None) -> None:
        self.mesh = mesh
        self.target = target
        self.options = options
        self.compression = compression
        self.closed = False
        self._open: WeakSet[grpc.Call] = WeakSet()  # what nobody refers to any more is cancelled, as ever

    def unary(self, kind: str, method: Method, request: Any, *, repeatable: bool, **how: Any) -> tuple[Any, grpc.Call]:
        """The response, and the call that it belongs to."""
        self._check()
        timeout, metadata, rest = self._taken_apart(how)
        call = asked(self.target, method.path, metadata, timeout, repeatable=repeatable, options=self.options)

        def send(current: GrpcTry) -> tuple[Any, grpc.Call]:
            made = current.method(kind, *method)
            try:
                response, over = made.with_call(request, timeout=current.timeout, metadata=current.metadata, **rest)
            except grpc.RpcError as error:
                edited(error, current)
                raise
            return response, edited(over, current)

        try:
            return self.mesh.grpc_client.unary(call, send)
        except MeshError as error:
            raise self._translated(error) from error.__cause__

    def begin(self, kind: str, method: Method, request: Any, *, future: bool = False, **how: Any) -> Any:
        """A call that goes on by itself, as gRPC's own object."""
        self._check()
        timeout, metadata, rest = self._taken_apart(how)
        call = asked(self.target, method.path, metadata, timeout, options=self.options)
        try:
            current, opened = self.mesh.grpc_client.begin(call)
        except MeshError as error:
            raise self._translated(error) from error.__cause__
        made = current.method(kind, *method)
        try:
            begun = (made.future if future else made)(request, timeout=current.timeout, metadata=current.metadata, **rest)
        except BaseException:
            opened.abandon()
            raise
        self._watch(begun, opened)
        return edited(begun, current)

    def close(self) -> None:
        """Cancel what goes on by itself."""
        self.closed = True
        for call in list(self._open):
            call.cancel()

    def _watch(self, call: Any, opened: OpenTry) -> None:
        self._open.add(call)
        reference = ref(call)

        def over() -> None:
            found = reference()
            code = (found.code() if found is not None else None) or grpc.StatusCode.CANCELLED
            opened.end(code.value[0], (found.details() if found is not None else None) or "", found)

        if not call.add_callback(over):  # it is over already
            over()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")  # as gRPC's own

    def _taken_apart(self, how: dict[str, Any]) -> tuple[float | None, Any, dict[str, Any]]:
        # Waiting for one endpoint to be ready is not what the caller means by it: there may be others.
        how.pop("wait_for_ready", None)
        if how.get("compression") is None:
            how["compression"] = self.compression
        return how.pop("timeout", None), how.pop("metadata", None), how

    @staticmethod
    def _translated(error: MeshError) -> MeshError:
        return _TRANSLATION.translate(error, code=code_of(error))


class UnaryUnary(grpc.UnaryUnaryMultiCallable):  # type: ignore[misc]
    """``stub.Method(request)``."""

    def __init__(self, calls: Calls, method: Method) -> None:
        self._calls = calls
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **how: Any) -> Any:
        return self.with_call(request, timeout, metadata, **how)[0]

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **how: Any) -> tuple[Any, grpc.Call]:
        how.update(timeout=timeout, metadata=metadata)
        return self._calls.unary("unary_unary", self._method, request, repeatable=True, **how)

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **how: Any) -> Any:
        """One try: who awaits the result elsewhere cannot be kept waiting for another."""
        how.update(timeout=timeout, metadata=metadata)
        return self._calls.begin("unary_unary", self._method, request, future=True, **how)


class UnaryStream(grpc.UnaryStreamMultiCallable):  # type: ignore[misc]
    def __init__(self, calls: Calls, method: Method) -> None:
        self._calls = calls
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **how: Any) -> Any:
        how.update(timeout=timeout, metadata=metadata)
        return self._calls.begin("unary_stream", self._method, request, **how)


class StreamUnary(grpc.StreamUnaryMultiCallable):  # type: ignore[misc]
    def __init__(self, calls: Calls, method: Method) -> None:
        self._calls = calls
        self._method = method

    def __call__(self, request_iterator: Iterable[Any], timeout: float | None = None, metadata: Any = None, **how: Any) -> Any:
        return self.with_call(request_iterator, timeout, metadata, **how)[0]

    def with_call(
        self, request_iterator: Iterable[Any], timeout: float | None = None, metadata: Any = None, **how: Any
    ) -> tuple[Any, grpc.Call]:
        how.update(timeout=timeout, metadata=metadata)
        return self._calls.unary("stream_unary", self._method, request_iterator, repeatable=False, **how)

    def future(self, request_iterator: Iterable[Any], timeout: float | None = None, metadata: Any = None, **how: Any) -> Any:
        how.update(timeout=timeout, metadata=metadata)
        return self._calls.begin("stream_unary", self._method, request_iterator, future=True, **how)


class StreamStream(grpc.StreamStreamMultiCallable):  # type: ignore[misc]
    def __init__(self, calls: Calls, method: Method) -> None:
        self._calls = calls
        self._method = method

    def __call__(self, request_iterator: Iterable[Any], timeout: float | None = None, metadata: Any = None, **how: Any) -> Any:
        how.update(timeout=timeout, metadata=metadata)
        return self._calls.begin("stream_stream", self._method, request_iterator, **how)
