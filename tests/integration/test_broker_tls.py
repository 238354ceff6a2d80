"""TLS to RabbitMQ, with and without a client certificate, on a node of its own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from bridge.broker import BrokerOptions, Topology
from bridge.errors import BrokerUnavailable
from deploy.local.programs import PartError, free_port
from deploy.local.rabbitmq import start_rabbitmq
from tests.conftest import missing


@dataclass(frozen=True)
class Tls:
    """A node that asks its clients for a certificate, and the files of the right ones."""

    url: str
    ca_file: Path
    cert_file: Path
    key_file: Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """Started with the first test; a private node is the only kind that can be set up so."""
    files, authority, port = tmp_path_factory.mktemp("tls"), trustme.CA(), free_port()
    made = {"ca": files / "ca.pem"}
    authority.cert_pem.write_to_path(made["ca"])
    for name, issued in {
        "server": authority.issue_cert("localhost"),
        "client": authority.issue_cert("bridge@example.org", common_name="bridge"),
    }.items():
        made[f"{name}.crt"], made[f"{name}.key"] = files / f"{name}.crt", files / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(made[f"{name}.crt"])
        issued.private_key_pem.write_to_path(made[f"{name}.key"])
    config = (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {made['ca']}",
        f"ssl_options.certfile = {made['server.crt']}",
        f"ssl_options.keyfile = {made['server.key']}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    )
    try:
        node = start_rabbitmq(base_dir=files / "node", config_lines=config)
    except PartError as error:
        missing(error)
        raise
    with node:
        url = f"amqps://guest:guest@localhost:{port}/%2F"
        yield Tls(url, made["ca"], made["client.crt"], made["client.key"])


def look(options: BrokerOptions) -> None:
    Topology(options, "missing", []).ensure()


def test_ca_and_client_certificate_of_the_settings_open_the_door(tls: Tls) -> None:
    """`broker.ca_file`, `client_cert_file`, `client_key_file`."""
    look(
        BrokerOptions(
            (tls.url,),
            ca_file=tls.ca_file,
            client_cert_file=tls.cert_file,
            client_key_file=tls.key_file,
        )
    )


def test_an_unknown_authority_is_refused(tls: Tls) -> None:
    """Without `broker.ca_file` the system's authorities count."""
    with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        look(BrokerOptions((tls.url,)))


def test_another_host_is_refused(tls: Tls) -> None:
    """The certificate is for localhost, not for the address."""
    url = tls.url.replace("@localhost:", "@127.0.0.1:")

    with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        look(BrokerOptions((url,), ca_file=tls.ca_file))


def test_no_client_certificate_is_refused(tls: Tls) -> None:
    """Where RabbitMQ asks for one; the reason is told without credentials."""
    with pytest.raises(BrokerUnavailable) as refused:
        look(BrokerOptions((tls.url,), ca_file=tls.ca_file))

    assert "guest" not in str(refused.value)


def test_nothing_older_than_tls_1_2_is_spoken(tls: Tls) -> None:
    """Whatever the system's default allows."""
    [parameters] = BrokerOptions((tls.url,), ca_file=tls.ca_file).parameters("test")

    assert parameters.ssl_options.context.minimum_version >= ssl.TLSVersion.TLSv1_2
