"""A publisher in memory: the rules of the real one, with outcomes that a test decides.

Like `bridge.broker.Publisher`: `publish` never blocks, `done` is called exactly once and on the
publisher's own thread, nothing is sent later than `publish_by`.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bridge.broker import Outcome
from bridge.clock import monotonic
from bridge.messages import Publication

Done = Callable[[Outcome, str], None]


@dataclass(frozen=True)
class Sent:
    """A message that was handed over; `mandatory` as it was asked for."""

    publication: Publication
    done: Done
    mandatory: bool
    publish_by: float


class FakePublisher:
    """`decide` gives each message its outcome, None keeps it unconfirmed until `settle`.

    `sent` has every message that the broker would have seen, in order.
    """

    def __init__(self, *, threaded: bool = True) -> None:
        """Without a thread of its own, whoever calls `run_pending` is its thread."""
        self.ready = threading.Event()
        self.ready.set()
        self.connected = threading.Event()
        self.connected.set()
        self.decide: Callable[[Publication], Outcome | None] = lambda _: Outcome.CONFIRMED
        self.sent: list[Sent] = []
        self.pending: list[Sent] = []
        self.backlog_bytes: dict[str, int] = {}
        self._unsettled = 0
        self._unsettled_bytes: Counter[str] = Counter()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fake publisher", daemon=True)
        if threaded:
            self._thread.start()

    @property
    def backlog(self) -> int:
        """Messages without an outcome."""
        return self._unsettled

    def unsettled(self, lane: str) -> int:
        """The bytes of a lane without an outcome, and what the test claims (`backlog_bytes`)."""
        return self.backlog_bytes.get(lane, 0) + self._unsettled_bytes[lane]

    def publish(
        self,
        publication: Publication,
        done: Done,
        *,
        publish_by: float = float("inf"),
        mandatory: bool = True,
    ) -> None:
        """Take a message; see `decide`."""
        self._unsettled += 1
        self._unsettled_bytes[publication.lane] += len(publication.body)
        item = Sent(publication, done, mandatory, publish_by)
        self._inbox.put(lambda: self._send(item))

    def settle(self, outcome: Outcome, detail: str = "") -> None:
        """Give the oldest unconfirmed message its outcome."""
        item = self.pending.pop(0)
        self._inbox.put(lambda: self._settle(item, outcome, detail))

    def take_back(self) -> None:
        """The real one settles as LATE what was never sent; here all that is unconfirmed."""
        while self.pending:
            self.settle(Outcome.LATE, "stopping")

    def to(self, queue_name: str) -> list[Publication]:
        """What was sent to a queue by the default exchange."""
        return [
            s.publication
            for s in self.sent
            if not s.publication.exchange and s.publication.routing_key == queue_name
        ]

    def through(self, exchange: str) -> list[Publication]:
        """What was sent to an exchange."""
        return [s.publication for s in self.sent if s.publication.exchange == exchange]

    def close(self) -> None:
        """End the thread."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(10)

    def run_pending(self) -> bool:
        """Do what the thread would do now; False if there was nothing."""
        done = False
        while not self._inbox.empty():
            step = self._inbox.get()
            if step is not None:
                step()
                done = True
        return done

    def _run(self) -> None:
        while (step := self._inbox.get()) is not None:
            step()

    def _send(self, item: Sent) -> None:
        if monotonic() > item.publish_by:
            self._settle(item, Outcome.LATE, "the publish window was over")
            return
        self.sent.append(item)
        outcome = self.decide(item.publication)
        if outcome is None:
            self.pending.append(item)
        else:
            self._settle(item, outcome, f"the test says {outcome.value}")

    def _settle(self, item: Sent, outcome: Outcome, detail: str) -> None:
        item.done(outcome, detail)
        self._unsettled -= 1
        self._unsettled_bytes[item.publication.lane] -= len(item.publication.body)
