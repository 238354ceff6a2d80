"""RabbitMQ -> engine: brings results of workers, and dead letters of task messages, to the engine.

A message is acknowledged last: after the engine accepted what it says, refused it for good, or the
message lies parked (or in the waiting room) and RabbitMQ has confirmed that.  Nothing is requeued.
What came over a channel that is gone is dropped: RabbitMQ delivers it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from bridge.callers import Callers
from bridge.clock import monotonic
from bridge.dead_letters import DeadLetter, note, read_dead_letter
from bridge.engine import MAX_RETRY_AFTER_SECONDS, EngineClient
from bridge.errors import (
    EngineBroken,
    EngineError,
    EngineForbidden,
    EngineRefused,
    EngineUnavailable,
    LockLost,
    ResultRefused,
    TaskGone,
    TaskSuspended,
)
from bridge.ledger import Entry, Ledger
from bridge.messages import Delivery, ExtendLock
from bridge.metrics import Metrics
from bridge.outcomes import Outcomes
from bridge.patience import Patience
from bridge.results import read
from bridge.sidings import Sidings
from bridge.tokens import Token, TokenSigner, claimed_task
from bridge.topics import Topic, Topics

log = structlog.get_logger(__name__)

# How long a result waits in memory for an engine that does not answer.  RabbitMQ takes a delivery
# back after 30 minutes (consumer_timeout); long before that it moves to the waiting room.
HOLD_SECONDS = 300.0
# What the engine answers to an incident that it will never take.
_FINAL = (TaskGone, LockLost, EngineRefused)


@dataclass(slots=True)
class _Case:
    """One delivery on its way to the engine.  Mutable: it knows what has been tried."""

    delivery: Delivery
    patience: Patience
    began: float = 0.0
    probed: bool = False
    relocked: bool = False

    @property
    def is_old(self) -> bool:
        """Whether it has been held for as long as a delivery may be."""
        return self.patience.held(monotonic()) >= HOLD_SECONDS


class Reporter:
    """Brings what comes back to the engine.  `deliver` never blocks; the callers do the work."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        outcomes: Outcomes,
        ledger: Ledger,
        callers: Callers,
        sidings: Sidings,
        ack: Callable[[Delivery], None],
        holds: Callable[[Delivery], bool],
        signer: TokenSigner,
        topics: Topics,
        metrics: Metrics,
        dead_letters: str,
    ) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._ledger = ledger
        self._callers = callers
        self._sidings = sidings
        self._ack = ack
        self._holds = holds
        self._signer = signer
        self._topics = topics
        self._metrics = metrics
        self._dead_letters = dead_letters
        self.closing = threading.Event()

    def deliver(self, delivery: Delivery) -> None:
        """Take a message in hand; the consumer calls this on its own thread."""
        case = _Case(delivery, Patience(monotonic()))
        self._callers.submit(
            _key(delivery), partial(self._handle, case), group=self._group(delivery)
        )

    def _group(self, delivery: Delivery) -> str:
        topic = self._topics.by_result_queue.get(delivery.queue)
        return topic.name if topic else delivery.queue

    # -- on a caller's thread --------------------------------------------------------------------

    def _handle(self, case: _Case) -> float | None:
        """Seconds after which to try again, or None."""
        if self.closing.is_set():
            return None  # not acknowledged: it comes again, here or at a peer
        delivery, topic, token = case.delivery, None, None
        if self._lost(delivery):
            return None
        case.began = monotonic()
        try:
            letter = self._letter(delivery)
            topic = letter.topic if letter else self._topics.by_result_queue[delivery.queue]
            token = self._signer.verify(delivery.correlation_id, topic.name)
            if not self._engine.gate.passes(case.began):
                return self._wait_for_engine(case, topic)
            if letter:
                self._outcomes.bury(letter, token)
            else:
                self._apply(case, topic, token)
        except ResultRefused as refused:
            return self._refuse(case, topic, token, refused)
        except EngineError as error:
            if topic is None or token is None:
                raise
            return self._after(case, topic, token, error)
        self._ack(delivery)
        return None

    def _apply(self, case: _Case, topic: Topic, token: Token) -> None:
        result, received = read(case.delivery, topic.replies), case.patience.received
        entry = self._ledger.entry(token.task_id)  # as it was before it is settled
        self._outcomes.apply(topic, token, result)
        self._metrics.took(topic.name, "engine", monotonic() - received)
        worked = None if isinstance(result, ExtendLock) else _worked(entry, token, received)
        if worked is not None:
            self._metrics.took(topic.name, "reply", worked)

    def _letter(self, delivery: Delivery) -> DeadLetter | None:
        if delivery.queue != self._dead_letters:
            return None
        return read_dead_letter(delivery, self._topics.known)

    def _lost(self, delivery: Delivery) -> bool:
        """Whether its channel is gone.  Then it comes again, and so it is let go of here: each
        delivery of it that is kept would leave a copy of its own in a siding.
        """
        if self._holds(delivery):
            return False
        self._ack(delivery)  # frees its bytes
        return True

    # -- what cannot be applied ------------------------------------------------------------------

    def _after(self, case: _Case, topic: Topic, token: Token, error: EngineError) -> float | None:
        """What follows from the engine's refusal; seconds after which to try again, or None."""
        match error:
            case TaskGone():
                self._ledger.settle(token.task_id)
                self._metrics.count(topic.name, "gone")
                self._ack(case.delivery)
                return None
            case TaskSuspended() | EngineForbidden():
                self._wait(case, topic, error.brief)
                return None
            case LockLost() if error.owner is None and not case.relocked:
                return self._relock(case, topic, token)
            case LockLost():
                self._park(case, topic, _refused("lock-lost", error))
                return None
            case EngineBroken():
                return self._broken(case, topic, token, error)
            case EngineRefused():
                return self._refuse(case, topic, token, _refused("engine-refused", error))
            case _:
                return self._hold(case, topic, error)

    def _broken(self, case: _Case, topic: Topic, token: Token, error: EngineBroken) -> float | None:
        """Try again some times; before it is called the process's own fault, the engine must be
        able to read the task, and then fail once more.
        """
        pause = case.patience.broken()
        if pause is not None:
            return pause
        if not case.probed:
            try:
                self._engine.task(token.task_id)
            except EngineBroken as away:
                return self._hold(case, topic, away)
            except EngineError as other:
                return self._after(case, topic, token, other)
            case.probed = True
            return 0.0
        return self._refuse(case, topic, token, _refused("engine-broken", error))

    def _hold(self, case: _Case, topic: Topic, error: EngineError) -> float | None:
        """The engine does not take it now: keep it, and tell the others what was learned."""
        if self._engine.gate.refused(error, case.began, monotonic()):
            log.warning("results are held until the engine takes them", reason=error.brief)
        if case.is_old:
            self._wait(case, topic, error.brief)
            return None
        asked = error.retry_after if isinstance(error, EngineUnavailable) else 0.0
        return max(case.patience.pause(), min(asked, MAX_RETRY_AFTER_SECONDS))

    def _wait_for_engine(self, case: _Case, topic: Topic) -> float | None:
        if case.is_old:
            self._wait(case, topic, "the engine does not answer")
            return None
        return case.patience.look()

    def _relock(self, case: _Case, topic: Topic, token: Token) -> float | None:
        """Somebody unlocked the task while it was worked on: take it back, the work is done."""
        case.relocked = True
        try:
            self._engine.lock(token.task_id, topic.timing.publish_window)
        except EngineError as error:
            return self._after(case, topic, token, error)
        return 0.0

    def _refuse(
        self, case: _Case, topic: Topic | None, token: Token | None, refused: ResultRefused
    ) -> float | None:
        """Park it; where the task is known, show the reason in the engine first."""
        if topic is not None and token is not None:
            try:
                self._outcomes.incident(topic, token, str(refused))
            except _FINAL:
                self._ledger.settle(token.task_id)
            except EngineBroken as error:
                if not case.is_old:
                    return case.patience.pause()
                # It reads, but writes nothing: its database, more likely than the process.
                self._wait(case, topic, error.brief)
                return None
            except EngineError as error:
                return self._after(case, topic, token, error)
        self._park(case, topic, refused)
        return None

    def _park(self, case: _Case, topic: Topic | None, refused: ResultRefused) -> None:
        name, delivery = topic.name if topic else "", case.delivery
        if self._lost(delivery):
            return

        def let_go(parked: bool) -> None:
            if parked:
                self._metrics.count(name, "parked")
                why = f"{refused.reason}: {refused.log_detail}"
                log.warning("result parked", topic=name, queue=delivery.queue, reason=why)
            self._ack(delivery)

        self._sidings.park(delivery, refused, let_go)

    def _wait(self, case: _Case, topic: Topic, why: str) -> None:
        if self._lost(case.delivery):
            return
        self._metrics.count(topic.name, "waiting")
        log.info("result waits", topic=topic.name, queue=case.delivery.queue, reason=why)
        delivery = case.delivery
        marks = {}
        if delivery.queue == self._dead_letters:
            marks = note(read_dead_letter(delivery, self._topics.known))
        self._sidings.wait(delivery, lambda: self._ack(delivery), marks)


def _refused(reason: str, error: EngineError) -> ResultRefused:
    """The engine's refusal; its status and the type of its exception are all that is logged."""
    text = str(error)
    return ResultRefused(reason, text, log_detail=text.partition(":")[0])


def _worked(entry: Entry | None, token: Token, received: float) -> float | None:
    """Seconds from the confirm to the reply; None where this replica did not publish the attempt.
    A reply may beat its confirm.
    """
    if entry is None or entry.retries != token.retries:
        return None
    if not entry.confirmed:
        return 0.0
    return None if entry.confirmed_at is None else received - entry.confirmed_at


def _key(delivery: Delivery) -> str:
    """What must not run at the same time: everything about one task."""
    task_id = claimed_task(delivery.correlation_id)
    return task_id or f"{delivery.queue}/{delivery.generation}/{delivery.tag}"
