"""One kept-alive connection to the engine.  The only module that imports requests, of which it uses
the pool: what a session does anew for every call is done once here.

No redirects, no proxies or `.netrc` from the environment: credentials come from the settings alone.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Timeout
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from bridge import tls
from bridge.engine.auth import Auth, Renewable
from bridge.errors import EngineMisconfigured, EngineUnavailable

# Whatever a call can end with: requests' own errors and unusable certificate files are OSErrors.
CALL_ERRORS = (HTTPError, OSError)

_CHUNK_BYTES = 64 * 1024
_NO_HEADERS: Mapping[str, str] = {}
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
]


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


class Connection:
    """To be used in one thread.  Every method, and the making, raises one of CALL_ERRORS; after
    that the connection is of no more use, `translated` says what it means.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._timeout = self._patience(0.0)
        headers = {"Accept": "application/json", **options.headers}
        request = requests.Request("GET", options.url, headers).prepare()
        self._headers = {name: str(value) for name, value in request.headers.items()}
        self._path = request.path_url.rstrip("/")
        self._adapter = _Adapter(pool_maxsize=1)
        self._pool = self._adapter.pool(request, options)

    def send(self, method: str, path: str, body: Any = None, wait: float = 0.0) -> BaseHTTPResponse:
        """One call with a JSON body, or none; the engine may take `wait` seconds longer."""
        timeout = self._patience(wait) if wait else self._timeout
        if body is None:
            return self._ask(method, path, timeout)
        encoded = json.dumps(body, allow_nan=False, separators=(",", ":"))
        return self._ask(method, path, timeout, encoded, {"Content-Type": "application/json"})

    def post_form(self, path: str, form: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """One POST of an encoded form, with headers of its own."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, self._timeout, form, {**headers, **kind})

    def download(self, path: str, limit: int) -> tuple[int, bytes]:
        """Status and content, which is not read further once it is more than `limit` bytes."""
        response = self._ask("GET", path, self._timeout, preload_content=False)
        try:
            content = b"".join(_up_to(limit, response.stream(_CHUNK_BYTES)))
        finally:
            response.close()
        return response.status, content

    def close(self) -> None:
        """Close the connection, whatever its state."""
        self._adapter.close()

    def _ask(
        self,
        method: str,
        path: str,
        timeout: Timeout,
        body: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        *,
        preload_content: bool = True,
    ) -> BaseHTTPResponse:
        def ask(authorization: Mapping[str, str]) -> BaseHTTPResponse:
            return self._pool.urlopen(
                method,
                self._path + path,
                body,
                {**self._headers, **authorization, **headers},
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=timeout,
                preload_content=preload_content,
            )

        auth = self._options.auth
        if auth is None:
            return ask({})
        header = auth()
        response = ask({"Authorization": header})
        if response.status == 401 and isinstance(auth, Renewable) and auth.renewed(header):
            # What was refused so has not been carried out.
            response.drain_conn()
            response = ask({"Authorization": auth()})
        return response

    def _patience(self, wait: float) -> Timeout:
        options = self._options
        return Timeout(connect=options.connect_timeout, read=options.read_timeout + wait)


class _Adapter(HTTPAdapter):
    """requests' own pool, with its authorities and certificates."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # A half-open connection in a long poll must end.
        kwargs["socket_options"] = [*HTTPConnection.default_socket_options, *_KEEPALIVE]
        super().init_poolmanager(*args, **kwargs)

    def pool(self, request: requests.PreparedRequest, options: HttpOptions) -> HTTPConnectionPool:
        """The engine's connections; OSError where a certificate file cannot be used."""
        verify = True if options.ca_file is None else str(options.ca_file)
        cert: tuple[str, str] | str | None = None
        if isinstance(options.client_cert, tuple):
            cert = (str(options.client_cert[0]), str(options.client_cert[1]))
        elif options.client_cert is not None:
            cert = str(options.client_cert)
        pool: Any = self.get_connection_with_tls_context(request, verify, cert=cert)
        check_files: Any = self.cert_verify  # untyped
        check_files(pool, options.url, verify, cert)
        return cast(HTTPConnectionPool, pool)


def _up_to(limit: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, until they are more than `limit` bytes."""
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if size > limit:
            return


def translated(error: HTTPError | OSError) -> EngineUnavailable | EngineMisconfigured:
    """What a failed call means.  Its text can hold the URL, and ours never carries credentials."""
    match error:
        case SSLError():
            refusal = tls.explain(str(error))
            return EngineUnavailable(refusal.sentence if refusal else f"TLS: {error}", sent=False)
        case LocationValueError() | requests.RequestException():
            return EngineMisconfigured(f"{type(error).__name__}: {error}")
        case NewConnectionError():
            return EngineUnavailable(f"no connection: {_cause(error)}", sent=False)
        case ConnectTimeoutError():
            return EngineUnavailable("no connection in time", sent=False)
        case ReadTimeoutError():
            return EngineUnavailable("no answer in time")
        case ProtocolError():
            return EngineUnavailable(f"no connection: {_cause(error)}")
        case HTTPError():
            return EngineUnavailable(f"the answer was cut off: {type(error).__name__}")
    return EngineMisconfigured(f"[engine] certificate files: {error.strerror or error}")


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
