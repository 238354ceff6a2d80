"""The status server: /live, /ready, /metrics, the page at / and its JSON documents.

Answers GET and HEAD, to anybody who can reach the address.  On a loopback address it answers for
the page and the documents only who calls it by a loopback name: a browser on this machine may be
led here by a foreign site whose name has been made to point to it.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from bridge.clock import monotonic
from bridge.errors import BridgeError
from bridge.status.page import page

log = structlog.get_logger(__name__)

SILENCE_SECONDS = 10.0
REQUEST_SECONDS = 30.0
CONNECTIONS_MAX = 64
_FIELDS_MAX = 10
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Document = Callable[[Mapping[str, str]], Any]


class NotAnswered(BridgeError):
    """A document that cannot be had: the status to answer with, and one sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class StatusServer:
    """Serves on `host:port` from `start` to `stop`; `port` is the real one where 0 was asked.

    `problems` says what /ready does; `documents` are functions of the query's fields by path.
    Raises OSError where it cannot listen.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        problems: Callable[[], Mapping[str, str]],
        documents: Mapping[str, Document] | None = None,
    ) -> None:
        class Handler(_Handler):
            ready = staticmethod(problems)
            metrics = registry
            served = documents or {}
            names = _LOOPBACK | {host} if _is_loopback(host) else None

        self._server = (_Server6 if ":" in host else _Server)((host, port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="status", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, for so many and for so long: whoever sends a byte now and then
    must not hold one for ever.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self._open: dict[Any, float] = {}
        super().__init__(address, handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks the name service for a name nobody uses

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return len(self._open) < CONNECTIONS_MAX

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open[request] = monotonic() + REQUEST_SECONDS
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second by the serving thread."""
        now = monotonic()
        for request, until in list(self._open.items()):
            if now > until:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news, and standard error is the log's."""
        if isinstance(sys.exception(), OSError):
            log.debug("status request broke off", exc_info=True)
        else:
            log.exception("status request failed")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    ready: Callable[[], Mapping[str, str]]
    metrics: CollectorRegistry
    served: Mapping[str, Document]
    names: frozenset[str] | None  # by which a browser may call; None: by any
    timeout = SILENCE_SECONDS
    server_version = "external-task-bridge"
    sys_version = ""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/live":
            self._answer(200, "text/plain", b"alive\n")
        elif path == "/ready":
            problems = dict(self.ready())
            self._answer_json(503 if problems else 200, _readiness(problems))
        elif path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.metrics))
        elif path == "/" or path in self.served:
            self._answer_browser(path, query)
        else:
            served = ", ".join(["/live", "/ready", "/metrics", "/", *self.served])
            self._answer(404, "text/plain", f"served here: {served}\n".encode())

    do_HEAD = do_GET  # noqa: N815 (http.server calls it so)

    def end_headers(self) -> None:
        for name, value in (
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """A probe every few seconds is no news."""

    def _answer_browser(self, path: str, query: str) -> None:
        if refused := self._refusal(path):
            self._answer_json(refused.status, {"error": str(refused)})
        elif path == "/":
            self._answer(200, "text/html; charset=utf-8", page().body, page().policy)
        else:
            self._answer_document(self.served[path], query)

    def _answer_document(self, document: Document, query: str) -> None:
        try:
            self._answer_json(200, document(_fields(query)))
        except NotAnswered as refused:
            self._answer_json(refused.status, {"error": str(refused)})

    def _refusal(self, path: str) -> NotAnswered | None:
        """Why a browser must not have it: a foreign name, or a foreign page that asks."""
        host = self.headers.get("Host")
        if self.names is not None and host is not None and _name(host) not in self.names:
            return NotAnswered(421, "this server listens on loopback: call it by localhost")
        if path != "/" and self.headers.get("Sec-Fetch-Site") == "cross-site":
            return NotAnswered(403, "pages of other sites are not answered")
        return None

    def _answer_json(self, status: int, value: Any) -> None:
        body = json.dumps(value, indent=2).encode() + b"\n"
        self._answer(status, "application/json", body)

    def _answer(
        self, status: int, content_type: str, body: bytes, policy: str = "default-src 'none'"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _readiness(problems: Mapping[str, str]) -> dict[str, Any]:
    return {"ready": not problems, "problems": problems}


def _fields(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS_MAX))
    except ValueError as error:
        raise NotAnswered(400, f"the query has more than {_FIELDS_MAX} fields") from error


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str | None:
    """The host of a Host header, without its port; None where it is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
