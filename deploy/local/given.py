"""Broker and engine that the user runs and named by URL. Used as they are, never stopped."""

import socket
from typing import NoReturn
from urllib.parse import quote, urlsplit, urlunsplit

from deploy.local.engine import answers
from deploy.local.management import ManagementApi
from deploy.local.programs import PartError

CONNECT_LIMIT_S = 10


class GivenEngine:
    """The engine of ENGINE_URL. PartError when it does not answer."""

    controllable = False
    container: str | None = None
    pids: tuple[int, ...] = ()

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if not answers(self.url):
            place = urlsplit(url).hostname
            raise PartError(
                f"ENGINE_URL: no engine answers on {place}: check that it ends in /engine-rest"
            )

    def stop(self) -> None:
        _refuse("ENGINE_URL")

    def kill(self) -> None:
        _refuse("ENGINE_URL")

    def restart(self) -> None:
        _refuse("ENGINE_URL")

    def close(self) -> None:
        """It was there before us and stays."""


class GivenBroker:
    """The broker of AMQP_URL. PartError when nothing listens there.

    Virtual hosts are made through its management API: AMQP_MANAGEMENT_URL, or port 15672 of the
    same host with the same user.
    """

    controllable = False
    container: str | None = None
    pids: tuple[int, ...] = ()

    def __init__(self, url: str, management_url: str | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or _default_port(parts.scheme)
        user = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
        self.management_url = management_url or f"http://{user}@{host}:15672"
        try:
            socket.create_connection((host, port), CONNECT_LIMIT_S).close()
        except OSError as error:
            raise PartError(f"AMQP_URL: nothing listens on {host}:{port} ({error})") from error

    def url_of(self, vhost: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{quote(vhost, safe='')}"))

    def add_vhost(self, name: str) -> str:
        ManagementApi(self.management_url).add_vhost(name)
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        ManagementApi(self.management_url).delete_vhost(name)

    def ctl(self, *arguments: str) -> str:
        raise PartError(f"rabbitmqctl {' '.join(arguments)}: not for a broker given by AMQP_URL")

    def stop(self) -> None:
        _refuse("AMQP_URL")

    def kill(self) -> None:
        _refuse("AMQP_URL")

    def restart(self) -> None:
        _refuse("AMQP_URL")

    def close(self) -> None:
        """It was there before us and stays."""


def _refuse(variable: str) -> NoReturn:
    raise PartError(f"given by {variable}, so not ours to stop: unset it to have one of our own")


def _default_port(scheme: str) -> int:
    return 5671 if scheme == "amqps" else 5672
