"""RabbitMQ -> engine: results of workers and dead letters of task messages.

A message is acknowledged last: after the engine accepted what it says, refused it for good, or the
message lies parked (or in the waiting room) and RabbitMQ has confirmed that.  Nothing is requeued.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

import structlog

from bridge.attempts import Attempts, Report
from bridge.callers import Callers
from bridge.clock import monotonic
from bridge.dead_letters import DeadLetter, note, read_dead_letter
from bridge.engine import EngineClient
from bridge.errors import (
    EngineBroken,
    EngineError,
    EngineForbidden,
    EngineRefused,
    LockLost,
    ResultRefused,
    TaskGone,
    TaskSuspended,
)
from bridge.ledger import Ledger
from bridge.messages import BpmnError, Complete, Delivery, ExtendLock, Failure, Result, Unlock
from bridge.metrics import Metrics
from bridge.results import read
from bridge.sidings import Sidings
from bridge.tokens import Token, TokenSigner, claimed_task
from bridge.topics import Topic
from bridge.variables import names_allowed, typed

log = structlog.get_logger(__name__)

# How long a result waits in memory for an engine that does not answer.  RabbitMQ takes a delivery
# back after 30 minutes (consumer_timeout); long before that it moves to the waiting room.
HOLD_SECONDS = 300.0
# Pauses between the tries of a call that fails in the engine: a listener or an expression of the
# process, mostly, but a database that is away for a while answers in the same way.
BROKEN_PAUSES_SECONDS = (0.5, 1.5, 4.0, 8.0)
PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 10.0
# What the engine answers to an incident that it will never take.
_FINAL = (TaskGone, LockLost, EngineRefused)


@dataclass(slots=True)
class _Case:
    """One delivery on its way to the engine.  Mutable: it counts its tries."""

    delivery: Delivery
    received: float
    tries: int = 0
    broken: int = 0
    probed: bool = False
    relocked: bool = False


class Reporter:
    """Applies what comes back.  `deliver` never blocks; the work is done by the callers."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        attempts: Attempts,
        ledger: Ledger,
        callers: Callers,
        sidings: Sidings,
        ack: Callable[[Delivery], None],
        signer: TokenSigner,
        topics: Mapping[str, Topic],
        metrics: Metrics,
        dead_letters: str,
    ) -> None:
        self._engine = engine
        self._attempts = attempts
        self._ledger = ledger
        self._callers = callers
        self._sidings = sidings
        self._ack = ack
        self._signer = signer
        self._topics = topics
        self._by_result_queue = {topic.result_queue: topic for topic in topics.values()}
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._random = random.Random()  # noqa: S311 (jitter)
        self.closing = threading.Event()

    def deliver(self, delivery: Delivery) -> None:
        """Take a message in hand; the consumer calls this on its own thread."""
        case = _Case(delivery, monotonic())
        self._callers.submit(
            _key(delivery), partial(self._handle, case), group=self._group(delivery)
        )

    def _group(self, delivery: Delivery) -> str:
        topic = self._by_result_queue.get(delivery.queue)
        return topic.name if topic else delivery.queue

    # -- on a caller's thread --------------------------------------------------------------------

    def _handle(self, case: _Case) -> float | None:
        if self.closing.is_set():
            return None  # not acknowledged: it comes again, here or at a peer
        delivery = case.delivery
        topic: Topic | None = None
        token: Token | None = None
        case.tries += 1
        try:
            letter = None
            if delivery.queue == self._dead_letters:
                letter = read_dead_letter(delivery, self._topics)
            topic = letter.topic if letter else self._by_result_queue[delivery.queue]
            token = self._signer.verify(delivery.correlation_id, topic.name)
            if letter:
                self._bury(letter, token)
            else:
                self._apply(topic, token, read(delivery, topic.replies))
        except ResultRefused as refused:
            return self._refuse(case, topic, token, refused)
        except EngineError as error:
            if topic is None or token is None:
                raise
            return self._after(case, topic, token, error)
        self._ack(delivery)
        return None

    def _apply(self, topic: Topic, token: Token, result: Result) -> None:
        match result:
            case Complete():
                self._complete(topic, token, result)
            case BpmnError():
                variables = _typed(topic, result.variables)
                code, message = result.error_code, result.error_message
                self._engine.bpmn_error(token.task_id, code, message, variables)
                self._ledger.settle(token.task_id)
                self._metrics.count(topic.name, "bpmn_error")
                log.info("BPMN error", task_id=token.task_id, topic=topic.name, code=code)
            case Failure():
                self._current(
                    topic, token, self._attempts.fail(topic, token, _report(topic, result))
                )
            case ExtendLock():
                seconds, variables = result.new_duration / 1000, _typed(topic, result.variables)
                self._current(
                    topic, token, self._attempts.keep_alive(topic, token, seconds, variables)
                )
            case Unlock():
                pause = topic.retries.pauses[0]
                self._current(topic, token, self._attempts.release(topic, token, pause))
            case _:
                assert_never(result)

    def _complete(self, topic: Topic, token: Token, result: Complete) -> None:
        names_allowed([*result.variables, *result.local_variables], topic.allowed_variables)
        variables, local_variables = typed(result.variables), typed(result.local_variables)
        self._engine.complete(token.task_id, variables, local_variables)
        self._ledger.settle(token.task_id)
        self._metrics.count(topic.name, "completed")
        log.debug("task completed", task_id=token.task_id, topic=topic.name)

    def complete_unanswered(self, topic: Topic, token: Token) -> None:
        """Complete a task whose worker never answers: its message has reached a queue."""
        case = _Case(_no_delivery(topic, token), monotonic())
        complete = partial(self._complete_unanswered, topic, token, case)
        self._callers.submit(token.task_id, complete, group=topic.name)

    def _complete_unanswered(self, topic: Topic, token: Token, case: _Case) -> float | None:
        case.tries += 1
        if self.closing.is_set():
            return None
        try:
            self._complete(topic, token, Complete())
        except TaskGone:
            self._ledger.settle(token.task_id)
        except (EngineRefused, LockLost) as error:
            return self._give_up(case, topic, token, str(error))
        except EngineError as error:
            if not isinstance(error, EngineBroken):
                return self._pause(case)
            if case.broken == len(BROKEN_PAUSES_SECONDS):
                return self._give_up(case, topic, token, str(error))
            case.broken += 1
            return BROKEN_PAUSES_SECONDS[case.broken - 1]
        return None

    def _give_up(self, case: _Case, topic: Topic, token: Token, why: str) -> float | None:
        try:
            self._incident(topic, token, why)
        except _FINAL:
            self._ledger.settle(token.task_id)
        except EngineError:
            return self._pause(case)
        return None

    def _bury(self, letter: DeadLetter, token: Token) -> None:
        """A task message that no worker took: a failure if one refused it, else a release."""
        topic = letter.topic
        if letter.is_failure:
            done = self._attempts.fail(topic, token, Report(letter.text))
        else:
            pause = 0.001 if letter.reason == "expired" else topic.retries.pauses[0]
            done = self._attempts.release(topic, token, pause)
        self._current(topic, token, done)
        log.info(
            "dead letter",
            task_id=token.task_id,
            topic=topic.name,
            reason=letter.reason,
            stale=not done,
        )

    def _current(self, topic: Topic, token: Token, current: bool) -> None:
        if not current:
            self._metrics.count(topic.name, "stale")
            log.info("stale result dropped", task_id=token.task_id, topic=topic.name)

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
                self._wait(case, topic, str(error))
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
        if case.broken < len(BROKEN_PAUSES_SECONDS):
            case.broken += 1
            return BROKEN_PAUSES_SECONDS[case.broken - 1] * self._random.uniform(0.75, 1.25)
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
        if monotonic() - case.received < HOLD_SECONDS:
            return self._pause(case)
        self._wait(case, topic, str(error))
        return None

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
                self._incident(topic, token, str(refused))
            except _FINAL:
                self._ledger.settle(token.task_id)
            except EngineBroken:
                if monotonic() - case.received < HOLD_SECONDS:
                    return self._pause(case)
                self._ledger.settle(token.task_id)
            except EngineError as error:
                return self._after(case, topic, token, error)
        self._park(case, topic, refused)
        return None

    def _incident(self, topic: Topic, token: Token, message: str) -> None:
        self._current(topic, token, self._attempts.incident(topic, token, message))

    def _park(self, case: _Case, topic: Topic | None, refused: ResultRefused) -> None:
        name, delivery = topic.name if topic else "", case.delivery

        def let_go(parked: bool) -> None:
            if parked:
                self._metrics.count(name, "parked")
                why = f"{refused.reason}: {refused.log_detail}"
                log.warning("result parked", topic=name, queue=delivery.queue, reason=why)
            self._ack(delivery)

        self._sidings.park(delivery, refused, let_go)

    def _wait(self, case: _Case, topic: Topic, why: str) -> None:
        self._metrics.count(topic.name, "waiting")
        log.info("result waits", topic=topic.name, queue=case.delivery.queue, reason=why)
        delivery = case.delivery
        marks = {}
        if delivery.queue == self._dead_letters:
            marks = note(read_dead_letter(delivery, self._topics))
        self._sidings.wait(delivery, lambda: self._ack(delivery), marks)

    def _pause(self, case: _Case) -> float:
        ceiling = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2 ** min(case.tries, 10))
        return self._random.uniform(PAUSE_SECONDS / 2, ceiling)


def _typed(topic: Topic, variables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    names_allowed(variables, topic.allowed_variables)
    return typed(variables)


def _report(topic: Topic, failure: Failure) -> Report:
    pause = failure.retry_timeout
    return Report(
        message=failure.error_message or "the worker reported a failure without a message",
        details=failure.error_details or "",
        retries=failure.retries,
        pause=None if pause is None else pause / 1000,
        variables=_typed(topic, failure.variables),
        local_variables=_typed(topic, failure.local_variables),
    )


def _refused(reason: str, error: EngineError) -> ResultRefused:
    """The engine's refusal; its status and the type of its exception are all that is logged."""
    text = str(error)
    return ResultRefused(reason, text, log_detail=text.partition(":")[0])


def _key(delivery: Delivery) -> str:
    """What must not run at the same time: everything about one task."""
    task_id = claimed_task(delivery.correlation_id)
    return task_id or f"{delivery.queue}/{delivery.generation}/{delivery.tag}"


def _no_delivery(topic: Topic, token: Token) -> Delivery:
    return Delivery(topic.queue, b"", {}, generation=0, tag=0)
