"""Why RabbitMQ gave a task message back.  Reads `x-death`; pure, calls nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import ResultRefused
from bridge.messages import Delivery
from bridge.topics import Topic

_FAILURES: Mapping[str, str] = {
    "rejected": "a consumer of queue {queue} rejected the message without requeueing it",
    "delivery_limit": "queue {queue} gave up: its delivery limit was reached",
}
_RELEASES = ("expired", "maxlen")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task message that came back, and why."""

    topic: Topic
    reason: str
    queue: str

    @property
    def is_failure(self) -> bool:
        """Whether a worker had it and refused it; else the broker returned it untouched."""
        return self.reason in _FAILURES

    @property
    def text(self) -> str:
        """The reason as an errorMessage."""
        return _FAILURES[self.reason].format(queue=self.queue)


def read_dead_letter(delivery: Delivery, topics: Mapping[str, Topic]) -> DeadLetter:
    """Raises ResultRefused where the message says neither topic nor reason."""
    topic = topics.get(delivery.type or "")
    if topic is None:
        raise ResultRefused("unknown-topic", "a dead letter of a topic that is not configured")
    for death in _deaths(delivery.headers):
        reason, queue = death.get("reason"), str(death.get("queue"))
        # The waiting room's own entry is no fate of the message, and stands before the real one.
        if reason in (*_FAILURES, *_RELEASES) and not _is_waiting_room(death, delivery):
            return DeadLetter(topic, str(reason), queue)
    raise ResultRefused("no-reason", "a dead letter without a known reason in x-death")


def _deaths(headers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    deaths = headers.get("x-death")
    return [d for d in deaths if isinstance(d, Mapping)] if isinstance(deaths, list) else []


def _is_waiting_room(death: Mapping[str, Any], delivery: Delivery) -> bool:
    keys = death.get("routing-keys")
    return isinstance(keys, list) and delivery.queue in keys
