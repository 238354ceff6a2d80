"""The queue of the worker in trial, the kit's own for answers, and the bridge's exchanges.  Takes
back what is the kit's, leaves alone what is anybody else's, and waits for nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bridge.broker.client import Client
from bridge.conform.setup import Setup
from bridge.conform.tasks import Answer, Tasks
from bridge.conform.verdict import CannotRun
from bridge.messages import Delivery, Publication


class Queues:
    """Two queues over one connection.  To be used in one thread."""

    def __init__(self, setup: Setup, client: Client) -> None:
        self._setup, self._client = setup, client
        self._name, self._topic = setup.queue, setup.topic
        self._reply_to = f"external-task-bridge.conform.{uuid.uuid4()}"
        self._results = (self._reply_to, f"{setup.prefix}.results", setup.topic.name)
        self._dead = (self._reply_to, f"{setup.prefix}.dead", "")
        self._made = False
        self._exchanges: list[str] = []
        self._others = 0
        self.tasks = Tasks(setup.topic, setup.queue, self._reply_to)

    def open(self) -> None:
        """Have both queues and the exchanges.  Raises CannotRun where the worker's is in use."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._client.declare_own(self._reply_to)
        found = self._client.look(self._name)
        if found is None:
            self._client.declare(self._name, self._setup.queue_arguments(self._reply_to))
            self._made = True
        elif found.messages:
            held = f"queue {self._name!r} holds {found.messages} messages"
            raise CannotRun(f"{held}; use an empty one")
        elif found.consumers and self._setup.command is not None:
            used = f"queue {self._name!r} has other consumers"
            raise CannotRun(f"{used}; stop them, or use --queue alone")
        for exchange in self._setup.exchanges:
            if self._client.make_exchange(exchange.name, exchange.type or ""):
                self._exchanges.append(exchange.name)
        # For workers that answer through the exchange, and for what is rejected.
        self._client.bind(*self._results)
        self._client.bind(*self._dead)

    def close(self) -> None:
        """Delete the worker's queue and the exchanges where the kit made them, unless others found
        them meanwhile.
        """
        self._client.unbind(*self._results)
        self._client.unbind(*self._dead)
        for exchange in self._exchanges:
            self._client.delete_exchange(exchange)
        found = self._client.look(self._name)
        if found is None or not self._made:
            return
        if self._setup.command is not None and found.consumers:
            return
        # What of the kit's own comes back only now may go with the queue.
        if not self._client.remove(self._name, self.tasks.is_ours).others:
            self._client.delete(self._name)

    @property
    def consumers(self) -> int:
        """How many consume the worker's queue."""
        found = self._client.look(self._name)
        return found.consumers if found else 0

    @property
    def ready(self) -> int:
        """Messages that the broker has not given to anybody."""
        found = self._client.look(self._name)
        return found.messages if found else 0

    def send(self, variables: Mapping[str, Any], copies: int = 1) -> str:
        """Publish a new task, maybe several copies of its message; returns its id."""
        task_id, publication = self.tasks.make(variables)
        for _ in range(copies):
            self.publish(publication)
        return task_id

    def publish(self, publication: Publication) -> None:
        """Publish a message as it is."""
        self._client.publish(publication)

    def send_unanswerable(self, variables: Mapping[str, Any]) -> str:
        """The same with a `reply_to` that names no queue."""
        task_id, publication = self.tasks.make(variables)
        self.publish(replace(publication, reply_to=f"{self._reply_to}.missing"))
        return task_id

    @contextmanager
    def unbound(self) -> Iterator[None]:
        """Have no answer reach the kit through the exchange meanwhile."""
        self._client.unbind(*self._results)
        try:
            yield
        finally:
            self._client.bind(*self._results)

    def reached_by(self, exchange: str) -> bool:
        """Whether an answer through an exchange reaches a queue that is not the kit's."""
        return bool(exchange) and self._client.look(self._topic.result_queue) is not None

    def take_back(self) -> list[Delivery]:
        """The kit's own messages that wait are taken from the worker's queue."""
        if self.ready <= self._others:  # each look at somebody else's counts as a delivery of it
            return []
        removed = self._client.remove(self._name, self.tasks.is_ours)
        self._others = removed.others
        return removed.mine

    def requeued(self, seconds: float) -> int:
        """How many of the kit's messages come back to the queue; they are taken from it."""
        return len(self._client.intercept(self._name, self.tasks.is_ours, seconds))

    def answers(self) -> list[Answer]:
        """The answers that are there; they are taken."""
        found = []
        while (taken := self._client.take(self._reply_to)) is not None:
            found.append(self.tasks.read(taken))
        return found

    def is_answer(self, exchange: str, key: str) -> bool:
        """Whether what is published so is an answer, be it to a queue that is not there."""
        return key == self._topic.name if exchange else key.startswith(self._reply_to)
