"""A role of the broker room on a connection thread of its own, and what came of it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

from bridge.broker import BrokerOptions, ConnectionThread, Consumer, Outcome, Publisher
from bridge.broker.connection import Role
from bridge.messages import Delivery, Publication
from deploy.local.choice import Broker
from tests.support.waiting import eventually

# Well above what `stop` may take: three seconds for a broker that does not answer.
STOP_LIMIT = 8.0


def nothing() -> None:
    """The work ahead of a connection, where a test needs none."""


def nobody_repairs(_queue: str) -> None:
    """What happens to a missing queue, where the test itself brings it back."""


class Carried:
    """Runs a role's connection; leaving the `with` block stops it and fails where it does not."""

    def __init__(
        self, role: Role, *urls: str, before: Callable[[], None] = nothing, **options: Any
    ) -> None:
        self.role = role
        self.options = BrokerOptions(urls, **{"heartbeat": 2, **options})
        self.connection = ConnectionThread("test", self.options, role, before)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="carried", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self.connection.stop()
        self._thread.join(STOP_LIMIT)
        assert not self._thread.is_alive(), "the connection's thread did not end"

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    def _run(self) -> None:
        try:
            self.connection.run()
        except BaseException as error:  # noqa: BLE001 (raised again where the test can see it)
            self._error = error


class Publishing(Carried):
    """A running publisher.  `outcomes` has, by key, each outcome that a publication got."""

    def __init__(self, *urls: str, before: Callable[[], None] = nothing, **options: Any) -> None:
        self.publisher = Publisher()
        super().__init__(self.publisher, *urls, before=before, **options)
        self.publisher.attach(self.connection)
        self.outcomes: dict[object, list[tuple[Outcome, str]]] = {}

    def ready(self) -> Self:
        assert self.publisher.ready.wait(20), self.connection.problem
        return self

    def publish(self, key: object, queue: str, body: bytes = b"{}", **more: Any) -> None:
        """Publish to the default exchange (or `exchange`), in the lane named by the queue (or
        `lane`); `publish_by` and `mandatory` go to the publisher.
        """
        extra = {k: more.pop(k) for k in ("publish_by", "mandatory") if k in more}
        plain = Publication(lane=queue, exchange="", routing_key=queue, body=body)
        got = self.outcomes.setdefault(key, [])
        self.publisher.publish(
            replace(plain, **more), lambda outcome, detail: got.append((outcome, detail)), **extra
        )

    def of(self, outcome: Outcome) -> list[object]:
        """The keys that got this outcome."""
        return [key for key, got in self.outcomes.items() if outcome in [o for o, _ in got]]

    def settled(self) -> dict[object, Outcome]:
        """Wait until everything has its outcome; exactly one each, and nothing left to count."""
        eventually(lambda: self.publisher.backlog == 0, 30, what="everything is settled")
        eventually(lambda: all(self.outcomes.values()), 5)
        assert all(len(got) == 1 for got in self.outcomes.values()), self.outcomes
        assert self.publisher.backlog == 0
        return {key: got[0][0] for key, got in self.outcomes.items()}

    def detail(self, key: object) -> str:
        return self.outcomes[key][0][1]


class Consuming(Carried):
    """A running consumer.  `seen` has every delivery, `missed` every queue it asked to repair."""

    def __init__(
        self,
        queues: list[str],
        *urls: str,
        prefetch: int = 50,
        before: Callable[[], None] = nothing,
        **options: Any,
    ) -> None:
        self.seen: list[Delivery] = []
        self.missed: list[str] = []
        self.repair: Callable[[str], None] = nobody_repairs
        self.consumer = Consumer(queues, prefetch, self.seen.append, self._missing)
        super().__init__(self.consumer, *urls, before=before, **options)
        self.consumer.attach(self.connection)

    def _missing(self, queue: str) -> None:
        self.missed.append(queue)
        self.repair(queue)

    def ready(self) -> Self:
        eventually(lambda: not self.consumer.problems(), what="every queue is consumed")
        return self

    def deliveries(self, count: int) -> list[Delivery]:
        """The deliveries so far, once there are so many."""
        eventually(lambda: len(self.seen) >= count, what=f"{count} deliveries")
        return list(self.seen)


def limited_user(
    broker: Broker, url: str, *, configure: str = ".*", write: str = ".*", read: str = ".*"
) -> str:
    """The URL of a new user with these rights in the virtual host of `url`."""
    name = f"limited-{uuid.uuid4().hex[:8]}"
    parts = urlsplit(url)
    manage(broker, "PUT", f"users/{name}", {"password": "guest", "tags": ""})
    rights = {"configure": configure, "write": write, "read": read}
    manage(broker, "PUT", f"permissions/{parts.path[1:]}/{name}", rights)
    return parts._replace(netloc=f"{quote(name)}:guest@{parts.hostname}:{parts.port}").geturl()


def manage(broker: Broker, method: str, path: str, body: object = None) -> None:
    """A call of RabbitMQ's management API that must succeed."""
    url = f"{broker.management_url}/api/{path}"
    requests.request(method, url, json=body, timeout=15).raise_for_status()
