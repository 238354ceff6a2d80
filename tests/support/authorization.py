"""An authorization server for client credentials, and a gate before an engine that lets only its
tokens in.

The protocol is Authlib's, and not that of the library the bridge signs in with: each would share
its own mistakes.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

import requests
from authlib.common.security import generate_token
from authlib.oauth2.rfc6749 import AuthorizationServer as Protocol
from authlib.oauth2.rfc6749 import ClientMixin, OAuth2Request, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator

from tests.support.tls import Pair

PATH = "/realms/shop/token/"
Answer = tuple[int, dict[str, str], bytes]


class _Client(ClientMixin):  # type: ignore[misc]
    """A confidential client; any of its secrets serves while they are rotated."""

    def __init__(self, secrets: set[str], scope: str, methods: set[str]) -> None:
        self.secrets, self.scope, self.methods = secrets, scope, methods

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret in self.secrets

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in self.methods

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope: str | None) -> str | None:
        return scope or self.scope


class _Request(OAuth2Request):  # type: ignore[misc]
    def __init__(self, form: dict[str, str], headers: Mapping[str, str]) -> None:
        super().__init__("POST", f"https://authorization.test{PATH}", headers=headers)
        self.payload = BasicOAuth2Payload(form)
        self._form = form

    @property
    def form(self) -> dict[str, str]:
        return self._form


class _Grant(grants.ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class _Protocol(Protocol):  # type: ignore[misc]
    """Authlib's rules on requests of ours."""

    def __init__(self, owner: AuthorizationServer) -> None:
        super().__init__(scopes_supported=["engine", "tasks"])
        self._owner = owner
        self.register_grant(_Grant)
        generator = BearerTokenGenerator(
            lambda **_: generate_token(42), expires_generator=lambda *_: owner.seconds
        )
        self.register_token_generator("default", generator)

    def query_client(self, client_id: str) -> _Client | None:
        return self._owner.clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        self._owner.issued(token)

    def create_oauth2_request(self, request: _Request) -> _Request:
        return request

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Answer:
        return status, dict(headers), json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    """Reads a request and writes what the server makes of it."""

    protocol_version = "HTTP/1.1"
    answer: Callable[[_Handler, bytes], Answer]

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, content = type(self).answer(self, body)
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A refused handshake, or a caller that was killed, needs no traceback."""


class _Web:
    """A server on loopback that can be away for a while and comes back where it was."""

    def __init__(self, pair: Pair | None = None, ca_file: str | None = None) -> None:
        self._pair, self._ca_file = pair, ca_file
        self._port = 0
        self._server: _Server | None = None
        self._place: socket.socket | None = None  # keeps the port while it is away

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._take_back()

    @property
    def root(self) -> str:
        scheme, host = ("https", "localhost") if self._pair else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self._port}"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"answer": self.answer})
        self._take_back()
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        if self._pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._pair.cert, self._pair.key)
            if self._ca_file is not None:
                context.load_verify_locations(self._ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self._place = socket.socket()  # bound and deaf: who connects is refused
            self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._place.bind(("127.0.0.1", self._port))

    def _take_back(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None

    def answer(self, request: _Handler, body: bytes) -> Answer:
        raise NotImplementedError


class AuthorizationServer(_Web):
    """Gives tokens to its clients.  `seconds` is the life of the next ones; 0: it does not say."""

    def __init__(self, pair: Pair | None = None, ca_file: str | None = None) -> None:
        super().__init__(pair, ca_file)
        self.seconds = 3600
        self.clients: dict[str, _Client] = {}
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.instead: Answer | None = None
        self._tokens: dict[str, float] = {}
        self._protocol = _Protocol(self)

    @property
    def url(self) -> str:
        """The token endpoint; the slash at its end belongs to it."""
        return self.root + PATH

    @property
    def sign_ins(self) -> int:
        """How many tokens it has been asked for."""
        return len(self.forms)

    def add_client(self, name: str, secret: str, methods: str = "basic post") -> _Client:
        allowed = {f"client_secret_{method}" for method in methods.split()}
        self.clients[name] = _Client({secret}, "engine", allowed)
        return self.clients[name]

    def issued(self, token: dict[str, Any]) -> None:
        """A token is good from now on."""
        life = token.get("expires_in") or float("inf")
        self._tokens[token["access_token"]] = time.monotonic() + life

    def revoke_all(self) -> None:
        """No token so far is good any longer, whatever was said of its life."""
        self._tokens.clear()

    def accepts(self, authorization: str | None) -> bool:
        kind, _, token = (authorization or "").partition(" ")
        return kind == "Bearer" and self._tokens.get(token, 0.0) > time.monotonic()

    def answer(self, request: _Handler, body: bytes) -> Answer:
        form = dict(parse_qsl(body.decode()))
        self.forms.append(form)
        self.headers.append(dict(request.headers))
        if self.instead is not None:
            return self.instead
        if (request.command, request.path.partition("?")[0]) != ("POST", PATH):
            return 404, {"Content-Type": "text/html"}, b"<h1>not here</h1>"
        made: Answer = self._protocol.create_token_response(_Request(form, dict(request.headers)))
        return made


class TokenGate(_Web):
    """An engine's address that answers 401 to whoever has no good token of the server."""

    def __init__(self, engine_url: str, tokens: AuthorizationServer) -> None:
        super().__init__()
        self._engine, self._tokens = engine_url, tokens
        self.passed = 0
        self.refused = 0

    @property
    def url(self) -> str:
        return f"{self.root}/engine-rest"

    def answer(self, request: _Handler, body: bytes) -> Answer:
        if not self._tokens.accepts(request.headers.get("Authorization")):
            self.refused += 1
            return 401, {"Content-Type": "application/json"}, b'{"error":"invalid_token"}'
        self.passed += 1
        kind = {"Content-Type": request.headers.get("Content-Type") or "application/json"}
        path = request.path.removeprefix("/engine-rest")
        answer = requests.request(
            request.command, self._engine + path, data=body or None, headers=kind, timeout=90
        )
        kept = ("Content-Type", "Date", "Retry-After")
        headers = {name: answer.headers[name] for name in kept if name in answer.headers}
        return answer.status_code, headers, answer.content
