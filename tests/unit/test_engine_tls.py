"""TLS to the engine: the settings' CA and client certificate count, and nothing else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from bridge.engine import EngineClient
from bridge.engine.http import HttpOptions
from bridge.errors import EngineError, EngineUnavailable


class Version(BaseHTTPRequestHandler):
    """Answers every GET like `GET /version`."""

    def do_GET(self) -> None:
        body = b'{"version": "7.24.0"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Quiet(ThreadingHTTPServer):
    """A refused handshake is what these tests want; it needs no traceback."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


Serve = Callable[[str, bool], str]


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Serve]:
    """Serve HTTPS with a certificate for a host, with or without asking for the client's."""
    servers: list[ThreadingHTTPServer] = []

    def serve(host: str, mutual: bool) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(context)
        if mutual:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        server = Quiet(("127.0.0.1", 0), Version)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"https://localhost:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def version(url: str, ca_file: Path | None, cert: tuple[Path, Path] | None = None) -> str:
    options = HttpOptions(url, ca_file=ca_file, client_cert=cert, connect_timeout=3, read_timeout=3)
    stopping = threading.Event()
    stopping.set()  # one try
    return EngineClient(options, "bridge", stopping=stopping).version()


def client_files(authority: trustme.CA, directory: Path) -> tuple[Path, Path]:
    issued = authority.issue_cert("bridge@example.org")
    cert, key = directory / "client.crt", directory / "client.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key


def test_the_ca_of_the_settings_is_trusted(serve: Serve, ca_file: Path) -> None:
    """`engine.ca_file`: an authority of one's own."""
    assert version(serve("localhost", False), ca_file) == "7.24.0"


def test_an_unknown_authority_is_refused(serve: Serve) -> None:
    """Without `engine.ca_file` the system's authorities count."""
    with pytest.raises(EngineUnavailable, match=r"TLS: .*certificate verify failed"):
        version(serve("localhost", False), None)


def test_a_certificate_of_another_host_is_refused(serve: Serve, ca_file: Path) -> None:
    """A right signature under a wrong name is somebody else."""
    with pytest.raises(EngineUnavailable, match="TLS: "):
        version(serve("other.example.org", False), ca_file)


def test_the_client_certificate_of_the_settings_is_shown(
    serve: Serve, ca_file: Path, authority: trustme.CA, tmp_path: Path
) -> None:
    """`engine.client_cert_file` and `client_key_file`: mutual TLS."""
    cert = client_files(authority, tmp_path)

    assert version(serve("localhost", True), ca_file, cert) == "7.24.0"


def test_no_client_certificate_is_refused(serve: Serve, ca_file: Path) -> None:
    """Where the engine asks for one."""
    with pytest.raises(EngineUnavailable):
        version(serve("localhost", True), ca_file)


def test_a_certificate_file_that_is_none_is_one_clear_error(serve: Serve, tmp_path: Path) -> None:
    """And no exception that ends a loop."""
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("not a certificate")

    with pytest.raises(EngineError):
        version(serve("localhost", False), nonsense)
