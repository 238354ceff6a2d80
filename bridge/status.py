"""The status server: /live, /ready and /metrics.  Reads the rooms, changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

log = structlog.get_logger(__name__)


class StatusServer:
    """Serves on `host:port` from `start` to `stop`; `port` is the real one where 0 was asked."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        class Handler(_Handler):
            ready = staticmethod(problems)
            metrics = registry

        self._server = _Server((host, port), Handler)
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
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news, and standard error is the log's."""
        log.debug("status request broke off", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    ready: Callable[[], Mapping[str, str]]
    metrics: CollectorRegistry
    server: BaseServer
    timeout = 10.0  # seconds of silence after which a client loses its thread
    server_version = "external-task-bridge"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/live":
            self._answer(200, "text/plain", b"alive\n")
        elif path == "/ready":
            problems = dict(self.ready())
            body = json.dumps({"ready": not problems, "problems": problems}, indent=2).encode()
            self._answer(503 if problems else 200, "application/json", body + b"\n")
        elif path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.metrics))
        else:
            self._answer(404, "text/plain", b"/live, /ready and /metrics are served here\n")

    def log_message(self, *_: object) -> None:
        """A probe every few seconds is no news."""

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)
