"""How the bridge stands now, gathered in one pass over its rooms.  Keeps nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bridge.circuit import State
from bridge.circuits import Circuits
from bridge.clock import monotonic
from bridge.ledger import Entry, Ledger
from bridge.queue_counts import QueueCount
from bridge.settings.names import ServiceNames
from bridge.surroundings import EngineCount, Surroundings
from bridge.topics import Topic, Topics

# How long who asks may wait for the counts of queues and of the engine.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TopicView:
    """One topic.  `oldest`: seconds since its oldest task in flight was fetched; `lock_margin`:
    seconds until the first lock ends of what is in flight, less than none where one has ended.
    `waiting` tasks can be fetched from the engine, `stuck` have no retries left.  None: nothing in
    flight, or not known.
    """

    name: str
    queue: str
    result_queue: str
    circuit: State
    problem: str | None
    in_flight: int
    capacity: int
    oldest: float | None
    lock_margin: float | None
    waiting: int | None
    stuck: int | None
    messages: QueueCount | None

    @property
    def is_paused(self) -> bool:
        """Whether no task of it is fetched, because a message or a fetch was refused."""
        return self.circuit in (State.OPEN, State.TRYING)

    @property
    def ready(self) -> int | None:
        """Messages of its queue that wait for a worker."""
        return None if self.messages is None else self.messages.ready

    @property
    def unacked(self) -> int | None:
        """Messages of its queue that are at workers."""
        return None if self.messages is None else self.messages.unacked

    @property
    def consumers(self) -> int | None:
        """Consumers of its queue."""
        return None if self.messages is None else self.messages.consumers


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at once.  `problems` by part, as /ready tells them; `parked` and
    `waiting_results` are messages, None where not known.
    """

    problems: Mapping[str, str]
    parked: int | None
    waiting_results: int | None
    topics: tuple[TopicView, ...]


class Observatory:
    """`look` is for any thread, at any time."""

    def __init__(
        self,
        *,
        topics: Topics,
        ledger: Ledger,
        circuits: Circuits,
        surroundings: Surroundings,
        names: ServiceNames,
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        self._topics = topics
        self._ledger = ledger
        self._circuits = circuits
        self._surroundings = surroundings
        self._names = names
        self._problems = problems

    def look(self) -> Overview:
        """How everything stands; waits a moment for the counts that are not fresh."""
        queues, tasks = self._surroundings.latest(LOOK_SECONDS)
        queues, tasks = queues or {}, tasks or {}
        problems = dict(self._problems())
        in_flight = _in_flight(self._ledger.entries())
        # Also those that are no longer served, while something of them is in flight.
        left = {name: self._topics.known[name] for name in in_flight if name not in self._topics}
        topics = [
            self._view(topic, in_flight.get(name), problems, queues, tasks.get(name))
            for name, topic in (*self._topics.items(), *left.items())
        ]
        parked, waits = queues.get(self._names.parked), queues.get(self._names.wait)
        return Overview(
            problems=problems,
            parked=None if parked is None else parked.ready,
            waiting_results=None if waits is None else waits.ready,
            topics=tuple(topics),
        )

    def _view(
        self,
        topic: Topic,
        held: _Held | None,
        problems: Mapping[str, str],
        queues: Mapping[str, QueueCount | None],
        tasks: EngineCount | None,
    ) -> TopicView:
        parts = (f"topic {topic.name}", f"queue {topic.queue}", f"queue {topic.result_queue}")
        now = monotonic()
        return TopicView(
            name=topic.name,
            queue=topic.queue,
            result_queue=topic.result_queue,
            circuit=self._circuits.state(topic.name),
            problem=next((problems[part] for part in parts if part in problems), None),
            in_flight=held.count if held else 0,
            capacity=topic.timing.capacity,
            oldest=now - held.since if held else None,
            lock_margin=held.lock_ends - now if held else None,
            waiting=tasks.waiting if tasks else None,
            stuck=tasks.stuck if tasks else None,
            # Of somebody else's exchange nobody here knows which queues are behind it.
            messages=None if topic.shape.exchange else queues.get(topic.queue),
        )


@dataclass(slots=True)
class _Held:
    """What of one topic is in flight, while it is being counted."""

    count: int = 0
    since: float = math.inf
    lock_ends: float = math.inf


def _in_flight(entries: Iterable[Entry]) -> dict[str, _Held]:
    found: dict[str, _Held] = {}
    for entry in entries:
        held = found.get(entry.topic)
        if held is None:
            held = found[entry.topic] = _Held()
        held.count += 1
        held.since = min(held.since, entry.since)
        held.lock_ends = min(held.lock_ends, entry.lock_ends)
    return found
