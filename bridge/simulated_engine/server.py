"""The HTTP face: sockets, keep-alive, basic authentication, faults and the call log."""

import base64
import contextlib
import hmac
import json
import socket
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from bridge.simulated_engine.clock import Clock
from bridge.simulated_engine.errors import RestError
from bridge.simulated_engine.faults import (
    Action,
    Answer,
    Call,
    CallLog,
    Drop,
    Faults,
    Hold,
    When,
)
from bridge.simulated_engine.routes import ENGINE_NAME, OutsideError, Routes
from bridge.simulated_engine.wire import (
    Request,
    Response,
    Route,
    error_response,
    json_response,
)

_CLOSING = {400, 408, 411, 413, 414, 500, 501, 503}  # after these Tomcat ends the connection

_PAGE = b"<!doctype html><title>HTTP Status 404</title><h1>HTTP Status 404</h1>"


class Dropped(Exception):
    """Close the connection without an answer."""


class EngineServer(ThreadingHTTPServer):
    """Listens on loopback; one thread per connection; knows its connections to close them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        routes: Routes,
        faults: Faults,
        calls: CallLog,
        basic_auth: tuple[str, str] | None,
    ) -> None:
        super().__init__(address, _Handler)
        self.routes = routes
        self.faults = faults
        self.calls = calls
        self.clock: Clock = routes.store.clock
        self.wanted_authorization = _basic(basic_auth)
        self._guard = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._idle = threading.Condition()
        self._working = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection before its thread starts."""
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection when its thread ends."""
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; a defect of ours is printed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        """Bind without asking a name server who 127.0.0.1 is, as the base class would."""
        TCPServer.server_bind(self)

    def working(self, change: int) -> None:
        """Count a request in (1) or out (-1)."""
        with self._idle:
            self._working += change
            self._idle.notify_all()

    def close_connections(self, grace_s: float) -> None:
        """Let the requests at work answer for that long, then cut every open connection."""
        with self._idle:
            self._idle.wait_for(lambda: not self._working, grace_s)
        with self._guard:
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: EngineServer
    protocol_version = "HTTP/1.1"
    server_version = "SimulatedEngine"
    disable_nagle_algorithm = True
    wbufsize = -1  # one segment per answer

    def do_GET(self) -> None:
        self.server.working(1)
        try:
            self._handle()
        finally:
            self.server.working(-1)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the call log has it."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header, from the engine's clock."""
        moment = self.server.clock.now_ms() // 1000 if timestamp is None else timestamp
        return formatdate(moment, usegmt=True)

    def _handle(self) -> None:
        content = self._content()
        verb, task_id = "unknown", None
        try:
            try:
                route, names, query = self.server.routes.find(self.command, self.path)
                verb = route.verb
                task_id = names[0] if names and "/external-task/" in self.path else None
                content_type = self.headers.get("Content-Type") or ""
                request = Request(self.command, self.path, names, query, content_type, content)
                response = self._answer(route, request, task_id)
            except OutsideError:
                response = Response(404, _PAGE, "text/html;charset=utf-8")
            except RestError as error:
                response = self._after(error_response(error), verb, task_id)
        except Dropped:
            self._record(verb, task_id, None, content)
            self._cut()
            return
        broken = self.server.faults.strike(verb, "response", task_id)
        status = None if isinstance(broken, Drop) else response.status
        self._record(verb, task_id, status, content)  # before the client can know of it
        try:
            self._send(response, broken)
            if self.server.faults.strike(verb, "idle", task_id) is not None:
                self._cut()
        except (Dropped, OSError):
            self._cut()

    def _content(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, route: Route, request: Request, task_id: str | None) -> Response:
        given = self._strike(route.verb, "before", task_id)
        if given is not None:
            return given
        wanted = self.server.wanted_authorization
        if wanted is not None:
            offered = self.headers.get("Authorization") or ""
            if not hmac.compare_digest(offered.encode(), wanted.encode()):
                realm = {"WWW-Authenticate": f'Basic realm="{ENGINE_NAME}"'}
                return Response(401, None, headers=realm)
        response = self.server.routes.answer(route, request)
        return self._after(response, route.verb, task_id)

    def _after(self, response: Response, verb: str, task_id: str | None) -> Response:
        return self._strike(verb, "after", task_id) or response

    def _strike(self, verb: str, when: When, task_id: str | None) -> Response | None:
        action = self.server.faults.strike(verb, when, task_id)
        if isinstance(action, Drop):
            raise Dropped
        if isinstance(action, Hold):
            action.stand()
        if not isinstance(action, Answer):
            return None
        if isinstance(action.body, str):
            content = action.body.encode()
            return Response(action.status, content, "text/html", action.headers)
        if action.body is None:
            return Response(action.status, None, headers=action.headers)
        ready = json_response(action.status, action.body)
        return Response(ready.status, ready.content, ready.content_type, action.headers)

    def _send(self, response: Response, broken: Action | None) -> None:
        content = response.content or b""
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.content is not None:
            self.send_header("Content-Type", response.content_type)
        if response.status != 204:
            self.send_header("Content-Length", str(len(content)))
        if response.status in _CLOSING:
            self.send_header("Connection", "close")
        self.end_headers()
        half = 0 if broken is None else len(content) // 2
        if broken is not None:
            self.wfile.write(content[:half])
            self.wfile.flush()
        if isinstance(broken, Drop):
            raise Dropped
        if isinstance(broken, Hold):
            broken.stand()
        self.wfile.write(content[half:])
        self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _record(self, verb: str, task_id: str | None, status: int | None, content: bytes) -> None:
        try:
            body = json.loads(content) if content else None
        except ValueError:
            body = None
        at_ms = self.server.clock.now_ms()
        call = Call(verb, task_id, status, self.command, self.path, body, at_ms)
        self.server.calls.record(call)


def _basic(credentials: tuple[str, str] | None) -> str | None:
    if credentials is None:
        return None
    return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
