"""Which topics may be fetched.  A topic whose message or fetch was refused is left alone for a
pause, its queue is looked at, and then single tasks are tried until one arrives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from functools import partial

import structlog

from bridge.callers import Callers
from bridge.circuit import Circuit, State
from bridge.clock import monotonic
from bridge.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

PROBE_SECONDS = 1.0


class Circuits:
    """One circuit per topic; those of `topics`, which may change, are looked after.  `repair` looks
    at a topic's queue and declares what is missing; it says whether all is there and runs as a
    chore, because it talks to the broker.
    """

    def __init__(
        self, topics: Collection[str], chores: Callers, repair: Callable[[str], bool]
    ) -> None:
        self._jitter = partial(random.Random().uniform, 0.75, 1.25)  # noqa: S311 (jitter)
        self._topics = topics
        self._circuits: dict[str, Circuit] = {}
        self._probed: dict[str, float] = {}
        self._not_fetched: set[str] = set()
        self._chores = chores
        self._repair = repair

    def is_closed(self, topic: str) -> bool:
        """Whether the topic's tasks flow."""
        return self._of(topic).state is State.CLOSED

    def state(self, topic: str) -> State:
        """What the topic's circuit lets through."""
        return self._of(topic).state

    def problems(self) -> dict[str, str]:
        """The topics that are paused, with the reason."""
        return {
            topic: circuit.reason
            for topic in self._topics
            if (circuit := self._of(topic)).state in (State.OPEN, State.TRYING) and circuit.reason
        }

    def look_first(self, topic: str) -> None:
        """The topic is new, or its settings are: have its queue looked at before its tasks flow."""
        self._not_fetched.discard(topic)
        self._of(topic).look_first(monotonic())

    def trip(self, topic: str, reason: str) -> None:
        """Leave the topic alone for a while, longer each time."""
        if self._of(topic).trip(monotonic(), reason):
            log.warning("topic paused", topic=topic, reason=reason)

    def fetch_refused(self, topic: str, reason: str) -> None:
        """The engine refuses this topic's fetch; the first fetch that works closes the circuit."""
        self._not_fetched.add(topic)
        self.trip(topic, f"the engine refuses to fetch it: {reason}")

    def fetched(self, topics: Iterable[str]) -> None:
        """A fetch of these topics worked."""
        for topic in self._not_fetched.intersection(topics):
            self._not_fetched.discard(topic)
            self.close(topic, proven=True)

    def close(self, topic: str, *, proven: bool = False) -> None:
        """A message of the topic arrived; see `Circuit.close`."""
        if self._of(topic).close(proven=proven):
            log.info("topic flows again", topic=topic)

    def look(self) -> list[str]:
        """Have queues looked at whose pause is over; returns the topics to try with one task."""
        now = monotonic()
        probes = []
        for topic in self._topics:
            circuit = self._of(topic)
            if circuit.begin_try(now):
                self._chores.submit(f"circuit {topic}", partial(self._try, topic))
            elif circuit.state is State.HALF_OPEN and now >= self._probed.get(topic, 0.0):
                self._probed[topic] = now + PROBE_SECONDS
                probes.append(topic)
        return probes

    def _try(self, topic: str) -> None:
        circuit = self._of(topic)
        try:
            usable = self._repair(topic)
        except BrokerUnavailable as error:
            self.trip(topic, str(error))
            return
        if not usable:
            self.trip(topic, circuit.reason or "its queue cannot be used")
        elif circuit.half_open():
            log.info("topic flows again", topic=topic)

    def _of(self, topic: str) -> Circuit:
        found = self._circuits.get(topic)
        return found or self._circuits.setdefault(topic, Circuit(self._jitter))
