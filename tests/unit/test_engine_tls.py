"""TLS to the engine: the settings' CA and client certificate count, and nothing else; each refusal
is one sentence with its cure, the same from `run` and from `check`.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from bridge import plan, tls
from bridge.check import engine as look
from bridge.engine import EngineClient
from bridge.errors import EngineUnavailable, SettingsError
from bridge.settings import Settings, certificate_problems, load
from tests.support.bridge import toml
from tests.support.tls import Authority, Kind, Pair, assert_refused


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
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


Serve = Callable[..., str]


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    """Serve with a certificate, with or without asking for the client's; the address without its
    scheme.
    """
    servers: list[ThreadingHTTPServer] = []

    def serve(pair: Pair | None, *, mutual: bool = False) -> str:
        server = Quiet(("127.0.0.1", 0), Version)
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.cert, pair.key)
            if mutual:
                context.load_verify_locations(authority.ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"localhost:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def given(directory: Path, url: str, ca_file: Path | None, client: Pair | None = None) -> Settings:
    """Settings for an engine there."""
    engine: dict[str, Any] = {"url": url}
    if ca_file is not None:
        engine["ca_file"] = str(ca_file)
    if client is not None:
        engine |= {"client_cert_file": str(client.cert), "client_key_file": str(client.key)}
    file = directory / "bridge.toml"
    file.write_text(toml({"engine": engine, "topics": {"pay": {}}}))
    return load(file, {})


def version(settings: Settings) -> str:
    stopping = threading.Event()
    stopping.set()  # one try
    return EngineClient(plan.http_options(settings.engine), "bridge", stopping=stopping).version()


def refused(settings: Settings, key: str, words: str, cure: str) -> None:
    """Both `run` and `check` refuse, in these words and with this cure."""
    with pytest.raises(EngineUnavailable) as error:
        version(settings)
    assert_refused(str(error.value), look.look(settings), f"engine.{key}", words, cure)


def test_the_ca_of_the_settings_is_trusted(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    """`engine.ca_file`: an authority of one's own."""
    url = f"https://{serve(authority.server('good'))}"

    assert version(given(tmp_path, url, authority.ca_file)) == "7.24.0"


@pytest.mark.parametrize(
    ("kind", "key", "words", "cure"),
    [
        ("foreign", "ca_file", "certificate verify failed", "name the authority"),
        ("other host", "url", "not valid for 'localhost'", "a host name that stands in"),
        ("expired", "url", "certificate has expired", "renewed"),
        ("early", "url", "not yet valid", "correct the clocks"),
    ],
)
def test_a_bad_server_certificate_is_refused(
    *,
    serve: Serve,
    authority: Authority,
    tmp_path: Path,
    kind: Kind,
    key: str,
    words: str,
    cure: str,
) -> None:
    """Whoever shows it may be anybody: nothing is sent there."""
    url = f"https://{serve(authority.server(kind))}"

    refused(given(tmp_path, url, authority.ca_file), key, words, cure)


def test_an_unknown_authority_is_refused(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    """Without `engine.ca_file` the system's authorities count, whatever the environment says."""
    url = f"https://{serve(authority.server('good'))}"

    refused(
        given(tmp_path, url, None), "ca_file", "certificate verify failed", "name the authority"
    )


def test_the_environment_cannot_change_whom_to_trust(
    serve: Serve, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle named there for other programs would open the door to its authorities."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority.ca_file))
    url = f"https://{serve(authority.server('good'))}"

    with pytest.raises(EngineUnavailable, match="certificate verify failed"):
        version(given(tmp_path, url, None))


def test_the_client_certificate_of_the_settings_is_shown(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    """`engine.client_cert_file` and `client_key_file`: mutual TLS."""
    url = f"https://{serve(authority.server('good'), mutual=True)}"

    client = authority.client("good")
    assert version(given(tmp_path, url, authority.ca_file, client)) == "7.24.0"


@pytest.mark.parametrize("kind", [None, "foreign", "expired", "early"])
def test_a_bad_client_certificate_is_refused(
    *, serve: Serve, authority: Authority, tmp_path: Path, kind: Kind | None
) -> None:
    """Where the engine asks for one; it mostly just breaks off, and the setting is named."""
    url = f"https://{serve(authority.server('good'), mutual=True)}"
    client = authority.client(kind) if kind else None

    settings = given(tmp_path, url, authority.ca_file, client)

    refused(settings, "client_cert_file", "TLS: ", "client")


def test_https_to_a_plain_port_is_refused(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    """A wrong port, or the wrong scheme."""
    settings = given(tmp_path, f"https://{serve(None)}", authority.ca_file)

    refused(settings, "url", "wrong version number", "leave out the s")


def test_http_to_a_tls_port_is_refused(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """No TLS library is asked here: the other side just hangs up."""
    settings = given(tmp_path, f"http://{serve(authority.server('good'))}", None)

    with pytest.raises(EngineUnavailable, match=r"no connection|cut off"):
        version(settings)
    [found] = [finding for finding in look.look(settings) if finding.mark == "problem"]
    assert found.key == "engine.url"


# -- files ---------------------------------------------------------------------------------------


def broken_files(authority: Authority, directory: Path) -> dict[str, tuple[dict[str, Path], str]]:
    """Kinds of unusable files: the settings, and what is said of which key."""
    good, other = authority.client("good"), authority.client("foreign")
    junk, locked = directory / "junk.pem", directory / "locked.key"
    junk.write_text("no certificate")
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(
        key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"s3cret"))
    )
    return {
        "ca": ({"ca_file": junk}, "ca_file: {} holds no certificate; name a file in PEM form"),
        "cert": (
            {"client_cert_file": junk, "client_key_file": good.key},
            "client_cert_file: {} and ",
        ),
        "key": (
            {"client_cert_file": good.cert, "client_key_file": junk},
            "client_cert_file: ",
        ),
        "no key": ({"client_cert_file": good.cert}, "client_cert_file: {} hold no certificate"),
        "mismatch": (
            {"client_cert_file": good.cert, "client_key_file": other.key},
            "client_key_file: ",
        ),
        "encrypted": (
            {"client_cert_file": good.cert, "client_key_file": locked},
            "client_key_file: ",
        ),
    }


KINDS = ["ca", "cert", "key", "no key", "mismatch", "encrypted"]


@pytest.mark.parametrize("table", ["engine", "broker"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_file_is_named(
    authority: Authority, tmp_path: Path, table: str, kind: str
) -> None:
    """Before anything starts; an encrypted key would wait for somebody to type its password."""
    files, said = broken_files(authority, tmp_path)[kind]
    config = tmp_path / "bridge.toml"
    keys = {key: str(path) for key, path in files.items()}
    config.write_text(toml({table: keys, "topics": {"pay": {}}}))

    [problem] = certificate_problems(load(config, {}))

    first = next(iter(files.values()))
    assert problem.startswith(f"{table}.{said}".format(first))
    assert "; " in problem
    assert "no certificate\n" not in problem


@pytest.mark.parametrize("command", [["run"], ["check"]])
def test_an_unusable_file_ends_the_command(
    authority: Authority, tmp_path: Path, command: list[str]
) -> None:
    """Exit code 2 and one sentence: nothing was started."""
    files, _ = broken_files(authority, tmp_path)["mismatch"]
    config = tmp_path / "bridge.toml"
    keys = {key: str(path) for key, path in files.items()}
    config.write_text(toml({"engine": keys, "topics": {"pay": {}}}))

    done = subprocess.run(
        [sys.executable, "-m", "bridge", *command, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert done.returncode == 2
    assert "is not the key of" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, which may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("kind", ["missing", "a directory", "without rights"])
def test_a_file_that_cannot_be_read_is_named(
    authority: Authority, tmp_path: Path, kind: str
) -> None:
    """With the system's own reason; a key is readable by its owner only, and that is right."""
    good = authority.client("good")
    key = {"missing": tmp_path / "none.key", "a directory": tmp_path}.get(kind, good.key)
    reason = {"missing": "No such file", "a directory": "Is a directory"}.get(kind, "Permission")
    environ = {
        "BRIDGE_TOPICS": "pay",
        "BRIDGE_ENGINE__CLIENT_CERT_FILE": str(good.cert),
        "BRIDGE_ENGINE__CLIENT_KEY_FILE": str(key),
    }

    with nobody() if kind == "without rights" else nullcontext():
        problems = problems_of(environ)

    assert [p for p in problems if "CLIENT_KEY_FILE: " in p and reason in p and "; name" in p]


def problems_of(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        load(None, environ)
    return error.value.problems


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "Connection refused", "404", "[Errno 111] refused", "ConnectionResetError(104, 'reset')"],
)
def test_what_is_not_about_tls_is_not_called_so(text: str) -> None:
    """A wrong cure costs more time than none."""
    assert tls.explain(text) is None
