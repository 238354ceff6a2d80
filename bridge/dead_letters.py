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
_REASON, _QUEUE = "deadReason", "deadQueue"


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
    known = [
        DeadLetter(topic, reason, str(queue))
        for reason, queue in (_noted(delivery.headers), *_deaths(delivery.headers))
        if reason in (*_FAILURES, *_RELEASES)
    ]
    if not known:
        raise ResultRefused("no-reason", "a dead letter without a known reason in x-death")
    if _REASON in delivery.headers:
        return known[0]
    # On its way here it may have died in queues of somebody's own, for a delay: what became of it
    # in the task queue counts, or a rejected message would be released again and again.
    return next((letter for letter in known if letter.queue == topic.queue), known[0])


def note(letter: DeadLetter) -> dict[str, str]:
    """Headers that keep the reason through the waiting room, where the broker writes its own."""
    return {_REASON: letter.reason, _QUEUE: letter.queue}


def _noted(headers: Mapping[str, Any]) -> tuple[Any, Any]:
    return headers.get(_REASON), headers.get(_QUEUE)


def _deaths(headers: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Reason and queue of each death, the latest first."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return []
    return [(d.get("reason"), d.get("queue")) for d in deaths if isinstance(d, Mapping)]
