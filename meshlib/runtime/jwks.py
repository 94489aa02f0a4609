"""Key sets that this process fetches by itself, in threads of their own: no request and no event loop ever waits for them.

Until the first answer tokens of the issuer are refused (401); `RemoteKeys.ready` says when there was one.  A set that cannot be
refreshed is believed for a while, see `policy.jwt_refresh`.  The addresses are the control service's, so they are not checked
against a list; there are no redirects all the same, and an answer is read up to a limit.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from meshlib.model.authentication import JwtProvider
from meshlib.policy.jwt_keys import NOT_FETCHED, KeySet, parse_key_set
from meshlib.policy.jwt_refresh import Freshness
from meshlib.policy.rng import Rng
from meshlib.runtime.clock import SYSTEM, Clock
from meshlib.runtime.fork import forget_in_child

if TYPE_CHECKING:
    import http.client

logger = logging.getLogger("meshlib")

MAX_BYTES = 1024 * 1024

Fetch = Callable[[str, float], bytes]
"""Address and seconds that it may take -> the document.  Raises `NotFetched`."""


class NotFetched(Exception):
    """No document; the message never holds what was answered."""


class _Entry:
    """One address."""

    __slots__ = ("document", "fetching", "freshness", "keys", "problem", "timeout", "uri")

    def __init__(self, provider: JwtProvider) -> None:
        self.uri = provider.jwks_uri
        self.timeout = provider.jwks_timeout
        self.freshness = Freshness(provider.jwks_refresh)
        self.keys: KeySet | str = NOT_FETCHED
        self.document = b""
        self.problem = ""
        self.fetching = False


class RemoteKeys:
    """A `KeySource` (policy.jwt_keys): the first question about a provider starts fetching its keys."""

    def __init__(self, *, fetch: Fetch | None = None, clock: Clock = SYSTEM, rng: Rng | None = None) -> None:
        self._fetch = fetch or fetch_document
        self._clock = clock
        self._rng = rng or random.Random()
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._tried = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        forget_in_child(self)

    def keys(self, provider: JwtProvider) -> KeySet | str:
        """The keys, or why there are none."""
        entry = self._entries.get(provider.jwks_uri)
        if entry is None or self._thread is None:
            entry = self._begin(provider)
        return entry.keys

    def key_missed(self, provider: JwtProvider) -> None:
        """Look for a newer set, unless that was done within the last minute."""
        entry = self._entries.get(provider.jwks_uri)
        if entry is None:
            return
        with self._lock:
            entry.freshness = entry.freshness.hurried(self._clock.monotonic())
        self._wake.set()

    def retain(self, uris: Collection[str]) -> None:
        """Forget all other addresses."""
        with self._lock:
            self._entries = {uri: entry for uri, entry in self._entries.items() if uri in uris}

    def ready(self, timeout: float) -> bool:
        """Block until there was an answer, good or bad, for each address that was asked about; False after `timeout` s."""
        with self._tried:
            return self._tried.wait_for(self._all_tried, timeout)

    @property
    def problems(self) -> dict[str, str]:
        """By address: why its newest attempt failed."""
        return {entry.uri: entry.problem for entry in list(self._entries.values()) if entry.problem}

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def forget(self) -> None:
        """In a forked child: the threads are the parent's; the keys are true here, too."""
        self._lock = threading.Lock()
        self._tried = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._thread = None
        for entry in self._entries.values():
            entry.fetching = False

    def _all_tried(self) -> bool:
        return all(entry.freshness.attempted is not None for entry in self._entries.values())

    def _begin(self, provider: JwtProvider) -> _Entry:
        with self._lock:
            entry = self._entries.get(provider.jwks_uri)
            if entry is None:
                entry = self._entries[provider.jwks_uri] = _Entry(provider)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="meshlib-jwks", daemon=True)
                self._thread.start()
        self._wake.set()
        return entry

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                pause = self._start_due()
            except Exception:
                logger.exception("keeping key sets fresh failed")
                pause = 5.0
            self._wake.wait(pause)

    def _start_due(self) -> float:
        """Start what is due, each in a thread of its own, so that a slow issuer delays no other.  Seconds to the next."""
        now = self._clock.monotonic()
        with self._lock:
            waiting = [entry for entry in self._entries.values() if not entry.fetching]
            due = [entry for entry in waiting if entry.freshness.due <= now]
            for entry in due:
                entry.fetching = True
            following = min((entry.freshness.due for entry in waiting if not entry.fetching), default=now + 60.0)
        for entry in due:
            threading.Thread(target=self._refresh, args=(entry,), name="meshlib-jwks-fetch", daemon=True).start()
        return min(max(following - now, 0.0), 60.0)

    def _refresh(self, entry: _Entry) -> None:
        keys: KeySet | str = entry.keys
        document, problem = b"", ""
        try:
            document = self._fetch(entry.uri, entry.timeout)
        except NotFetched as error:
            problem = str(error)
        except Exception as error:
            logger.exception("fetching %s failed", entry.uri)
            problem = type(error).__name__
        else:
            if document != entry.document:
                keys = parse_key_set(document.decode("utf-8", "replace"))
        if isinstance(keys, str):
            problem = problem or keys
        with self._tried:
            self._settle(entry, keys, document, problem)
            entry.fetching = False
            self._tried.notify_all()
        self._wake.set()

    def _settle(self, entry: _Entry, keys: KeySet | str, document: bytes, problem: str) -> None:
        now = self._clock.monotonic()
        if problem:
            entry.freshness = entry.freshness.failed(now, self._rng)
            if isinstance(entry.keys, KeySet) and entry.freshness.is_stale(now):
                entry.keys, entry.document = NOT_FETCHED, b""
            if problem != entry.problem:
                kept = "those fetched before stay in use" if isinstance(entry.keys, KeySet) else "its tokens are refused"
                logger.warning("keys cannot be fetched from %s, %s: %s", entry.uri, kept, problem)
        else:
            entry.freshness = entry.freshness.succeeded(now, self._rng)
            entry.keys, entry.document = keys, document
        entry.problem = problem


def fetch_document(uri: str, timeout: float) -> bytes:
    """The document at `uri`.  `timeout`: seconds for all of it.  Raises `NotFetched`."""
    from http.client import HTTPException  # most processes fetch nothing, and it takes a while to load

    deadline = time.monotonic() + timeout
    try:
        parts = urlsplit(uri)
        connection = _connection(parts, timeout)
        with closing(connection):
            connection.connect()
            body = _ask(connection, parts, deadline)
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise NotFetched(f"no complete answer within {timeout:g} s") from error
        raise NotFetched(str(error) or type(error).__name__) from error
    if time.monotonic() >= deadline:
        raise NotFetched(f"no complete answer within {timeout:g} s")
    return body


def _ask(connection: http.client.HTTPConnection, parts: SplitResult, deadline: float) -> bytes:
    # A socket's timeout is about each read: who sends a byte a second would hold the connection for ever.
    watchdog = threading.Timer(max(deadline - time.monotonic(), 0.0), _abort, (connection.sock,))
    watchdog.daemon = True
    watchdog.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"accept": "application/json", "accept-encoding": "identity"})
        with closing(connection.getresponse()) as response:
            return _read(response)
    finally:
        watchdog.cancel()


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    import ssl
    from http.client import HTTPConnection, HTTPSConnection

    host = parts.hostname or ""
    if parts.scheme == "https":
        return HTTPSConnection(host, parts.port, timeout=timeout, context=ssl.create_default_context())
    return HTTPConnection(host, parts.port, timeout=timeout)


def _abort(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:  # closed already
        pass


def _read(response: http.client.HTTPResponse) -> bytes:
    if response.status != 200:
        raise NotFetched(f"the answer has status {response.status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotFetched("the answer is compressed, although that was not asked for")
    body = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise NotFetched(f"the answer is larger than {MAX_BYTES} bytes")
    return body
