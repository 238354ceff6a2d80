"""RabbitMQ's management HTTP API, read only: what exists, how it was declared, who may what.

Follows no redirect and no proxy of the environment; every call is bounded and tried once.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from bridge import tls
from bridge.errors import BridgeError

LIMIT_SECONDS = 5.0
_COUNTS = "?columns=name,messages_ready,messages_unacknowledged,consumers"


class ManagementUnavailable(BridgeError):
    """No answer, or none of a management API."""


class ManagementDenied(BridgeError):
    """The user is not known there, or lacks the tag that the question needs."""


@dataclass(frozen=True)
class Management:
    """The API at `url` (such as `http://host:15672`) for one user."""

    url: str
    username: str
    password: str
    ca_file: Path | None = None

    def whoami(self) -> tuple[str, ...]:
        """The tags of the user."""
        tags = self._object("whoami").get("tags") or ()
        # A list since RabbitMQ 3.9, before it one string with commas.
        return tuple(tags.split(",") if isinstance(tags, str) else tags)

    def version(self) -> str:
        """RabbitMQ's version, such as "3.13.7"."""
        return str(self._object("overview").get("rabbitmq_version"))

    def queue(self, vhost: str, name: str) -> Mapping[str, Any]:
        """A queue as it was declared, its `effective_policy_definition` beside; {}: none."""
        return self._object("queues", vhost, name)

    def queues(self, vhost: str) -> list[Mapping[str, Any]]:
        """Every queue that the user may see: `name`, `messages_ready`, `messages_unacknowledged`
        and `consumers`, seconds old; the counts of a queue that is quite new are not there yet.
        """
        found = self._get("queues", vhost, query=_COUNTS)
        return [one for one in found or () if isinstance(one, dict)]

    def exchange(self, vhost: str, name: str) -> Mapping[str, Any]:
        """An exchange with its `type`; {}: none."""
        return self._object("exchanges", vhost, name)

    def bindings(self, vhost: str, queue: str) -> set[tuple[str, str]]:
        """The (exchange, routing key) pairs that a queue is bound to."""
        found = self._get("queues", vhost, queue, "bindings") or []
        return {(str(one.get("source")), str(one.get("routing_key"))) for one in found}

    def permissions(self, vhost: str) -> Mapping[str, Any]:
        """The patterns `configure`, `write`, `read` of the user; {}: none.  Administrators only."""
        return self._object("permissions", vhost, self.username)

    def _object(self, *path: str) -> dict[str, Any]:
        answer = self._get(*path)
        if answer is None:
            return {}
        if not isinstance(answer, dict):
            raise ManagementUnavailable("what answers there is not RabbitMQ's management API")
        return answer

    def _get(self, *path: str, query: str = "") -> Any:
        """The answer's JSON; None for a 404 in the API's own words."""
        status, body = self._call("/api/" + "/".join(quote(part, safe="") for part in path) + query)
        if status in {401, 403}:
            raise ManagementDenied(f"{status}: the management API does not let this user ask")
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if status == 404 and isinstance(answer, dict) and "error" in answer:
            return None
        if status != 200 or answer is None:
            raise ManagementUnavailable(f"{status}: not an answer of RabbitMQ's management API")
        return answer

    def _call(self, path: str) -> tuple[int, bytes]:
        credentials = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Accept": "application/json"}
        try:
            connection = self._connection()
            try:
                connection.request("GET", urlsplit(self.url).path + path, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if refusal := tls.explain(str(error)):
                reason = refusal.sentence
            raise ManagementUnavailable(f"no answer: {reason}") from error

    def _connection(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or "localhost"
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file)
            return HTTPSConnection(host, parts.port, timeout=LIMIT_SECONDS, context=context)
        return HTTPConnection(host, parts.port, timeout=LIMIT_SECONDS)
