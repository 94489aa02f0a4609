"""meshlib's errors as a client library's own.

What a transport raises is both: ``except httpx.ConnectError`` and ``except meshlib.errors.ConnectFailed`` each catch it, with
all fields of the one and the request of the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.errors import CallError, MeshError, TimeoutExceeded, TimeoutName


class Translation:
    """`kinds` says which of the client's errors each of ours is; a subclass that is not listed goes where its parent goes.

    A timeout goes by its name: `timeouts`, or `kinds` for the names that are not listed there.
    """

    def __init__(
        self, kinds: Mapping[type[MeshError], type[Exception]], timeouts: Mapping[TimeoutName, type[Exception]]
    ) -> None:
        self._kinds = kinds
        self._timeouts = timeouts

    def translate(self, error: MeshError, **context: object) -> MeshError:
        """The same error as one that the client's users catch.  `context` goes to the client's own constructor."""
        kind = mixed(type(error), self._theirs(error))
        if not isinstance(error, CallError):
            return kind(str(error), **context)
        fields = {name: value for name, value in vars(error).items() if not name.startswith("_")}
        return kind(fields.pop("message"), **fields, **context)

    def _theirs(self, error: MeshError) -> type[Exception]:
        if isinstance(error, TimeoutExceeded) and error.which in self._timeouts:
            return self._timeouts[error.which]
        for kind in type(error).__mro__:
            if kind in self._kinds:
                return self._kinds[kind]
        raise LookupError(f"{type(error).__name__} has no place in this translation") from error


_MIXED: dict[tuple[type[MeshError], type[Exception]], type[MeshError]] = {}


def mixed(ours: type[MeshError], theirs: type[Exception]) -> type[MeshError]:
    """One class for each pair, made once, so that every ``except`` sees the same one."""
    found = _MIXED.get((ours, theirs))
    return found if found is not None else _MIXED.setdefault((ours, theirs), _mix(ours, theirs))


def _mix(ours: type[MeshError], theirs: type[Exception]) -> type[MeshError]:
    def reduce(self: MeshError) -> tuple[object, ...]:
        return _remake, (ours, theirs, self.args), vars(self)

    # Such a class cannot be found by its name, so its instances say what they are made of: they go through process pools and
    # task queues as the errors that they mix do.
    return type(ours.__name__, (ours, theirs), {"__doc__": ours.__doc__, "__module__": ours.__module__, "__reduce__": reduce})


def _remake(ours: type[MeshError], theirs: type[Exception], arguments: tuple[str, ...]) -> MeshError:
    return mixed(ours, theirs)(*arguments)
