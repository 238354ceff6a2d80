"""RabbitMQ's management HTTP API, as far as virtual hosts: far faster than the CLI."""

from urllib.parse import quote

import requests

from deploy.local.programs import PartError

LIMIT_S = 15.0


class ManagementApi:
    """Virtual hosts of one broker. `url` carries user and password: `http://guest:guest@host:15672`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/api"

    def answers(self) -> bool:
        try:
            return self._call("GET", "/vhosts").ok
        except requests.RequestException:
            return False

    def add_vhost(self, name: str) -> None:
        """Make it, with all rights for the user of the URL."""
        self._checked("PUT", f"/vhosts/{quote(name, safe='')}")

    def delete_vhost(self, name: str) -> None:
        """Delete it with its queues; its connections are closed by the broker."""
        self._checked("DELETE", f"/vhosts/{quote(name, safe='')}")

    def _checked(self, method: str, path: str) -> None:
        try:
            answer = self._call(method, path)
        except requests.RequestException as error:
            raise PartError(f"the management API of RabbitMQ is not reachable: {error}") from error
        if not answer.ok:
            raise PartError(f"{method} {path}: {answer.status_code} {answer.text}")

    def _call(self, method: str, path: str) -> requests.Response:
        # A session would keep a connection open, which a node waits for when it stops.
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self._url + path, timeout=LIMIT_S)
