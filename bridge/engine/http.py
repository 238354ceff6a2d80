"""HTTP to the engine.  The only module that imports requests; knows nothing of tasks.

One session per thread, one kept-alive connection per session.  No redirects, no proxies or
`.netrc` from the environment: credentials come from the settings alone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_delay, stop_any, stop_base, stop_when_event_set
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from bridge import tls
from bridge.clock import monotonic
from bridge.engine.answers import classify
from bridge.engine.auth import Auth
from bridge.engine.clock import EngineClock
from bridge.errors import (
    EngineConflict,
    EngineError,
    EngineMisconfigured,
    EngineUnauthorized,
    EngineUnavailable,
)

CONFLICT_TRIES = 10
LOST_TRIES = 3
RETRY_SECONDS = 10.0

_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
]


class _Adapter(HTTPAdapter):
    """A half-open connection in a long poll must end: TCP keep-alive on every connection."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs["socket_options"] = [*HTTPConnection.default_socket_options, *_KEEPALIVE]
        super().init_poolmanager(*args, **kwargs)


@dataclass(frozen=True)
class HttpOptions:
    """Where the engine is and how to get there; times in seconds."""

    url: str
    auth: Auth | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    client_cert: tuple[Path, Path] | Path | None = None
    connect_timeout: float = 3.0
    read_timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: when (monotonic) the call began and ended, and what time the engine says it
    was then (`dated`, seconds since the epoch).
    """

    status: int
    body: bytes
    began: float
    ended: float
    dated: float


class EngineHttp:
    """Calls to one engine.  Every error leaves as an EngineError; safe to use from every thread."""

    def __init__(
        self,
        options: HttpOptions,
        clock: EngineClock,
        stopping: threading.Event,
        answered: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`answered` is told the monotonic time of every answer that is the engine's own."""
        self._options = options
        self._clock = clock
        self._stopping = stopping
        self._answered = answered
        self._local = threading.local()

    def call(self, method: str, path: str, json: Any = None, *, repeat_lost: bool = True) -> Answer:
        """One call, repeated with full jitter for at most ten seconds, and not once we stop: after
        a conflict, which the engine has rolled back, and after a lost answer unless
        `repeat_lost` is False because a second execution would do harm.
        """
        try:
            return self.once(method, path, json)
        except (EngineConflict, EngineUnavailable) as error:
            if self._stopping.is_set() or not _passing(error, repeat_lost):
                raise
        retrying = Retrying(
            retry=retry_if_exception(lambda error: _passing(error, repeat_lost)),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            stop=stop_any(
                _TriesSpent(), stop_after_delay(RETRY_SECONDS), stop_when_event_set(self._stopping)
            ),
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        )
        return retrying(self.once, method, path, json)

    def download(self, path: str, limit: int) -> bytes | None:
        """The bytes at a path, tried once; None, and not read further, if more than `limit`."""
        options = self._options
        timeout = (options.connect_timeout, options.read_timeout)
        try:
            with self._session().get(
                options.url + path, timeout=timeout, stream=True, allow_redirects=False
            ) as response:
                body = b"".join(_up_to(limit, response.iter_content(64 * 1024)))
        except OSError as error:  # requests' own errors, and unusable certificate files
            self._forget_session()
            raise _translated(error) from error
        if not 200 <= response.status_code < 300:
            raise classify(response.status_code, body) or EngineUnavailable("no file")
        return body if len(body) <= limit else None

    def once(self, method: str, path: str, json: Any = None, *, wait: float = 0.0) -> Answer:
        """One call, tried once; the engine may take `wait` seconds longer on purpose.  Raises the
        EngineError that the answer, or its lack, means.
        """
        options = self._options
        began = monotonic()
        try:
            response = self._session().request(
                method,
                options.url + path,
                json=json,
                timeout=(options.connect_timeout, options.read_timeout + wait),
                allow_redirects=False,
            )
        except OSError as error:  # requests' own errors, and unusable certificate files
            self._forget_session()
            raise _translated(error) from error
        ended = monotonic()
        headers, content = response.headers, response.content
        error_answer = classify(response.status_code, content, headers.get("Retry-After"))
        if _is_engines_own(error_answer):
            self._answered(ended)
        if error_answer is not None:
            raise error_answer
        dated = self._clock.observe(headers.get("Date"), ended)
        return Answer(response.status_code, content, began, ended, dated)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._new_session()
        return session

    def _new_session(self) -> requests.Session:
        options = self._options
        session = requests.Session()
        session.trust_env = False
        session.mount("https://", _Adapter(pool_maxsize=1))
        session.mount("http://", _Adapter(pool_maxsize=1))
        session.auth = options.auth
        session.headers.update({"Accept": "application/json", **options.headers})
        if options.ca_file is not None:
            session.verify = str(options.ca_file)
        if isinstance(options.client_cert, tuple):
            session.cert = (str(options.client_cert[0]), str(options.client_cert[1]))
        elif options.client_cert is not None:
            session.cert = str(options.client_cert)
        return session

    def _forget_session(self) -> None:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is not None:
            self._local.session = None
            session.close()


def _up_to(limit: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, until they are more than `limit` bytes."""
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if size > limit:
            return


def _is_engines_own(error: EngineError | None) -> bool:
    """Whether an answer shows that the engine is there and takes our credentials."""
    return not isinstance(error, EngineUnavailable | EngineUnauthorized | EngineMisconfigured)


def _passing(error: BaseException, repeat_lost: bool) -> bool:
    if isinstance(error, EngineUnavailable):
        # Who is asked to wait longer than here frees its thread for that.
        return not error.retry_after and (repeat_lost or not error.sent)
    return isinstance(error, EngineConflict)


class _TriesSpent(stop_base):
    """A conflict is worth ten tries, a lost answer three: the caller has better to do then."""

    def __call__(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        tries = CONFLICT_TRIES if isinstance(error, EngineConflict) else LOST_TRIES
        return state.attempt_number >= tries - 1  # the first try came before the retrying


def _translated(error: OSError) -> EngineUnavailable | EngineMisconfigured:
    # The text of a requests exception can hold the whole URL; ours never carries credentials.
    if not isinstance(error, requests.RequestException):
        return EngineMisconfigured(f"[engine] certificate files: {error.strerror or error}")
    if isinstance(error, requests.exceptions.SSLError):
        refusal = tls.explain(str(error))
        return EngineUnavailable(refusal.sentence if refusal else f"TLS: {error}", sent=False)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return EngineMisconfigured(f"{type(error).__name__}: {error}")
    if isinstance(error, requests.ConnectTimeout):
        return EngineUnavailable("no connection in time", sent=False)
    if isinstance(error, requests.ReadTimeout):
        return EngineUnavailable("no answer in time")
    if isinstance(error, OSError) and isinstance(error, requests.ConnectionError):
        return EngineUnavailable(f"no connection: {_cause(error)}", sent=not _unconnected(error))
    return EngineUnavailable(f"the answer was cut off: {type(error).__name__}")


def _unconnected(error: requests.ConnectionError) -> bool:
    """Whether no connection was made at all: nobody listens, or the name is unknown."""
    return isinstance(getattr(next(iter(error.args), None), "reason", None), NewConnectionError)


def _cause(error: BaseException) -> str:
    """The innermost reason, such as "Connection refused", instead of a chain of class names."""
    text = str(error)
    for known in (
        "Connection refused",
        "Name or service not known",
        "Connection reset by peer",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "Remote end closed connection",
        "No route to host",
    ):
        if known in text:
            return known
    return type(error).__name__
