"""The parking queue: what lies there and why, back into its result queue, or away for good.

Nothing is ever on its way only in memory: what is replayed is let go once RabbitMQ has confirmed
it.  A crash in between leaves it parked as well, and a result that comes twice changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bridge import plan
from bridge.broker.client import NO_ROOM, NO_ROUTE, BrokerRefused
from bridge.broker.holding import PASSING_HEADERS, UNREADABLE, Held, HoldingClient
from bridge.dead_letters import note, read_dead_letter
from bridge.desk.parked_message import (
    Parked,
    Shown,
    digest_of,
    id_of,
    is_unreadable,
    parked_at,
    reason_of,
    shown,
    source_of,
)
from bridge.errors import BridgeError, ResultRefused
from bridge.messages import Delivery, Publication
from bridge.results import read
from bridge.settings import Settings
from bridge.sidings import DEATHS, copy_of
from bridge.tokens import claimed_task

_HEARTBEAT_SECONDS = 30
_CLAIM_SECONDS = 30.0
_FORBIDDEN, _NOT_FOUND = 403, 404
# What parking adds to a message.
_OUR_MARKS = frozenset(
    {"reason", "reasonDetail", "resultQueue", "parkedAt", "originalExpiration", "originalUserId"}
)


class ParkedUnusable(BridgeError):
    """RabbitMQ answers, but the parking queue cannot be read or is in somebody else's hands."""


@dataclass(frozen=True)
class Chosen:
    """Which parked messages: by id (None: all), and by words of the reason and the topic."""

    ids: frozenset[str] | None = None
    reason: str | None = None
    topic: str | None = None

    def __contains__(self, parked: Parked) -> bool:
        return (
            (self.ids is None or parked.id in self.ids)
            and (self.reason is None or self.reason.lower() in parked.reason.lower())
            and (self.topic is None or self.topic == parked.topic)
        )


@dataclass(frozen=True)
class Done:
    """What became of one message; `problem` says why it still lies there."""

    parked: Parked
    problem: str | None = None


class ParkedMessages:
    """The parking queue of one bridge.  Raises ParkedUnusable, and BrokerUnavailable where
    RabbitMQ is not reached; every message that was not acted upon lies there as before.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = plan.topics(settings)
        self.queue = settings.broker.names.parked
        self._sources = plan.consumed_queues(settings)

    def find(self, chosen: Chosen) -> list[Parked]:
        """What is chosen, the oldest first."""
        found: list[Parked] = []

        def look(_client: HoldingClient, _held: Held, parked: Parked) -> bool:
            found.append(parked)
            return False

        self._each(chosen, look)
        return sorted(found, key=lambda p: (-(p.seconds or 0.0), p.id))

    def show(self, message_id: str) -> Shown | None:
        """One message; None where there is none of this id."""
        found: list[Shown] = []

        def look(_client: HoldingClient, held: Held, parked: Parked) -> bool:
            found.append(shown(held, parked))
            return False

        self._each(Chosen(frozenset({message_id})), look)
        return found[0] if found else None

    def replay(self, chosen: Chosen, body: bytes | None = None) -> list[Done]:
        """Publish each into the queue that it came from, with its own properties and, where one is
        given, another body; it is let go once that is confirmed.
        """
        done: list[Done] = []

        def act(client: HoldingClient, held: Held, parked: Parked) -> bool:
            problem = self._replayed(client, held, parked, body)
            done.append(Done(parked, problem))
            return problem is None

        self._each(chosen, act)
        return done

    def drop(self, chosen: Chosen) -> list[Done]:
        """Delete them for good."""
        done: list[Done] = []

        def act(_client: HoldingClient, _held: Held, parked: Parked) -> bool:
            done.append(Done(parked))
            return True

        self._each(chosen, act)
        return done

    # -- one after the other ---------------------------------------------------------------------

    def _each(self, chosen: Chosen, act: Callable[[HoldingClient, Held, Parked], bool]) -> None:
        """`act` on each message that is chosen; where it says True, the message is let go."""
        twins: Counter[str] = Counter()
        now = datetime.now(UTC).timestamp()
        with self._client() as client, client.holding(self.queue) as holding:
            for held in holding.messages():
                digest = digest_of(held)
                twins[digest] += 1
                parked = self._described(held, id_of(digest, twins[digest]), now)
                if parked in chosen and act(client, held, parked):
                    holding.let_go(held)
                else:
                    holding.keep(held)

    @contextmanager
    def _client(self) -> Iterator[HoldingClient]:
        options = plan.broker_options(self._settings.broker)
        name = "external-task-bridge parked"
        try:
            with HoldingClient(options, name, _HEARTBEAT_SECONDS) as client:
                if not client.claim(f"{self.queue}.desk", _CLAIM_SECONDS):
                    raise ParkedUnusable(
                        f"another operator's command is at work on queue {self.queue!r}; "
                        "try again when it has ended"
                    )
                yield client
        except BrokerRefused as refused:
            raise ParkedUnusable(self._cure(refused)) from refused

    def _cure(self, refused: BrokerRefused) -> str:
        if refused.code == _NOT_FOUND:
            return (
                f"RabbitMQ has no queue {self.queue!r}; the bridge makes it at its start: "
                "is [broker] url and prefix the bridge's?"
            )
        if refused.code == _FORBIDDEN:
            return (
                f"RabbitMQ says {refused}; in [broker] use the user of an operator, who may write "
                f"to amq.default, read {self.queue} and make {self.queue}.desk"
            )
        return f"queue {self.queue!r}: {refused}"

    # -- one of them -----------------------------------------------------------------------------

    def _described(self, held: Held, message_id: str, now: float) -> Parked:
        delivery = held.delivery
        since = parked_at(delivery)
        return Parked(
            id=message_id,
            reason=UNREADABLE if is_unreadable(held) else reason_of(delivery),
            topic=self._topic(delivery),
            task_id=claimed_task(delivery.correlation_id),
            queue=source_of(delivery),
            seconds=None if since is None else max(0.0, now - since),
            size=len(delivery.body),
        )

    def _topic(self, delivery: Delivery) -> str | None:
        queue = source_of(delivery)
        if queue == self._settings.broker.names.dead_letters:
            return delivery.type
        return next((n for n, t in self._topics.items() if t.result_queue == queue), None)

    def _replayed(
        self, client: HoldingClient, held: Held, parked: Parked, body: bytes | None
    ) -> str | None:
        """Why it could not be replayed; None: it lies in its queue again."""
        if is_unreadable(held):
            return "its properties cannot be read, so its task is unknown; drop it"
        try:
            client.publish(self._publication(held.delivery, parked, body))
        except ResultRefused as refused:
            return str(refused)
        except BrokerRefused as refused:
            why = {NO_ROUTE: "does not exist", NO_ROOM: "is full"}.get(refused.code, str(refused))
            return f"queue {parked.queue!r}: {why}"
        return None

    def _publication(self, delivery: Delivery, parked: Parked, body: bytes | None) -> Publication:
        queue = parked.queue
        if queue not in self._sources:
            raise ResultRefused(
                "no-queue",
                "it came from no result queue of these settings" if queue is None else
                f"it came from queue {queue!r}, which is no result queue of these settings; "
                "use the settings of the bridge, with the topic in them",
            )  # fmt: skip
        edited = delivery if body is None else replace(delivery, body=body)
        marks: Mapping[str, Any] = {}
        if queue == self._settings.broker.names.dead_letters:
            if body is not None:
                raise ResultRefused("task-message", "it is a task message: no body to correct")
            marks = note(read_dead_letter(edited, self._topics))
        elif body is not None:
            topic = next(t for t in self._topics.values() if t.result_queue == queue)
            read(edited, topic.replies)  # or it would be parked again
        without = _OUR_MARKS | DEATHS | PASSING_HEADERS
        return copy_of(edited, without, marks, routing_key=queue)
