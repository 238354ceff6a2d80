"""TLS to RabbitMQ, with and without a client certificate, on a node of its own; each refusal is
one sentence with its cure, the same from `run` and from `check`.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge import plan
from bridge.broker import BrokerOptions, Topology
from bridge.check import broker as check
from bridge.errors import BrokerUnavailable
from bridge.settings import Settings, load
from deploy.local.programs import PartError, free_port
from deploy.local.rabbitmq import start_rabbitmq
from tests.conftest import missing
from tests.support.bridge import toml
from tests.support.tls import Authority, Kind, Pair, assert_refused


@dataclass(frozen=True)
class Node:
    """A node that asks its clients for a certificate, and its listener without TLS."""

    tls_port: int
    plain_port: int


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def node(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Started with the first test; a private node is the only kind that can be set up so."""
    port, server = free_port(), authority.server("good")
    config = (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {authority.ca_file}",
        f"ssl_options.certfile = {server.cert}",
        f"ssl_options.keyfile = {server.key}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    )
    try:
        started = start_rabbitmq(base_dir=tmp_path_factory.mktemp("node"), config_lines=config)
    except PartError as error:
        missing(error)
        raise
    with started:
        yield Node(port, started.ports.amqp)


def given(directory: Path, address: str, ca_file: Path | None, client: Pair | None) -> Settings:
    """Settings for a broker there; `address` is scheme, host and port."""
    scheme, _, place = address.partition("://")
    broker: dict[str, Any] = {"url": f"{scheme}://guest:guest@{place}/%2F", "heartbeat": "2s"}
    if ca_file is not None:
        broker["ca_file"] = str(ca_file)
    if client is not None:
        broker |= {"client_cert_file": str(client.cert), "client_key_file": str(client.key)}
    file = directory / "bridge.toml"
    file.write_text(toml({"broker": broker, "topics": {"pay": {}}}))
    return load(file, {})


def look(settings: Settings) -> None:
    Topology(plan.broker_options(settings.broker), "missing", []).ensure()


def refused(settings: Settings, key: str, words: str, cure: str) -> None:
    """Both `run` and `check` refuse, in these words and with this cure, without credentials."""
    with pytest.raises(BrokerUnavailable) as error:
        look(settings)
    assert_refused(str(error.value), check.look(settings), f"broker.{key}", words, cure)


def test_ca_and_client_certificate_of_the_settings_open_the_door(
    node: Node, authority: Authority, tmp_path: Path
) -> None:
    """`broker.ca_file`, `client_cert_file`, `client_key_file`; `check` sees an open door too."""
    address = f"amqps://localhost:{node.tls_port}"
    settings = given(tmp_path, address, authority.ca_file, authority.client("good"))

    look(settings)

    assert not [finding for finding in check.look(settings) if finding.mark == "problem"]


def test_an_unknown_authority_is_refused(node: Node, authority: Authority, tmp_path: Path) -> None:
    """Without `broker.ca_file` the system's authorities count; and another one is none."""
    for ca_file in (None, authority.foreign_ca_file):
        settings = given(tmp_path, f"amqps://localhost:{node.tls_port}", ca_file, None)

        refused(settings, "ca_file", "certificate verify failed", "name the authority")


def test_another_host_is_refused(node: Node, authority: Authority, tmp_path: Path) -> None:
    """The certificate is for localhost, not for the address."""
    settings = given(tmp_path, f"amqps://127.0.0.1:{node.tls_port}", authority.ca_file, None)

    refused(settings, "url", "not valid for '127.0.0.1'", "a host name that stands in")


@pytest.mark.parametrize("kind", [None, "foreign", "expired", "early"])
def test_a_bad_client_certificate_is_refused(
    node: Node, authority: Authority, tmp_path: Path, kind: Kind | None
) -> None:
    """RabbitMQ says why, or just breaks off: the setting is named in either case."""
    client = authority.client(kind) if kind else None
    address = f"amqps://localhost:{node.tls_port}"

    settings = given(tmp_path, address, authority.ca_file, client)

    refused(settings, "client_cert_file", "TLS: ", "client")


def test_amqps_to_the_plain_port_is_refused(
    node: Node, authority: Authority, tmp_path: Path
) -> None:
    """A wrong port, or the wrong scheme."""
    settings = given(tmp_path, f"amqps://localhost:{node.plain_port}", authority.ca_file, None)

    refused(settings, "url", "wrong version number", "leave out the s")


def test_amqp_to_the_tls_port_is_refused(node: Node, tmp_path: Path) -> None:
    """It hangs up without a word; whoever reads the refusal is told what it may want."""
    settings = given(tmp_path, f"amqp://localhost:{node.tls_port}", None, None)

    refused(settings, "url", "not an AMQP 0-9-1 listener", "amqps://")


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
    *, authority: Authority, tmp_path: Path, kind: Kind, key: str, words: str, cure: str
) -> None:
    """Before the name and password are sent: any listener will do to see that."""
    with impostor(authority.server(kind)) as port:
        settings = given(tmp_path, f"amqps://localhost:{port}", authority.ca_file, None)

        refused(settings, key, words, cure)


def test_nothing_older_than_tls_1_2_is_spoken(authority: Authority) -> None:
    """Whatever the system's default allows."""
    url = "amqps://guest:guest@localhost/%2F"
    [parameters] = BrokerOptions((url,), ca_file=authority.ca_file).parameters("test")

    assert parameters.ssl_options.context.minimum_version >= ssl.TLSVersion.TLSv1_2


@contextmanager
def impostor(pair: Pair) -> Iterator[int]:
    """Shows this certificate to whoever comes; a client that goes on from there fails the test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError), context.wrap_socket(client, True) as secured:
                    heard.append(secured.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert b"".join(heard) == b""
