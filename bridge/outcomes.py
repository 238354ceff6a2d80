"""What a result, or the death of a task message, does to its task in the engine.  Acknowledges and
parks nothing: whoever brings a result acts on the errors, which are all EngineErrors or a refusal
of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import structlog

from bridge.attempts import AT_ONCE, Attempts, Report
from bridge.dead_letters import DeadLetter
from bridge.engine import EngineClient
from bridge.ledger import Ledger
from bridge.messages import BpmnError, Complete, ExtendLock, Failure, Result, Unlock
from bridge.metrics import Metrics
from bridge.tokens import Token
from bridge.topics import Topic
from bridge.variables import names_allowed, typed

log = structlog.get_logger(__name__)


class Outcomes:
    """Each method returns once the engine has taken what it was told, or the act was found to
    speak of another attempt (counted as stale).  Raises EngineError, and ResultRefused for a
    variable that the topic's workers may not write or that the engine cannot hold.
    """

    def __init__(
        self, engine: EngineClient, attempts: Attempts, ledger: Ledger, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._attempts = attempts
        self._ledger = ledger
        self._metrics = metrics

    def apply(self, topic: Topic, token: Token, result: Result) -> None:
        """What a worker means."""
        match result:
            case Complete():
                self.complete(topic, token, result)
            case BpmnError():
                self._bpmn_error(topic, token, result)
            case Failure():
                done = self._attempts.fail(topic, token, _report(topic, result))
                self._current(topic, token, done)
            case ExtendLock():
                seconds, variables = result.new_duration / 1000, _typed(topic, result.variables)
                done = self._attempts.keep_alive(topic, token, seconds, variables)
                self._current(topic, token, done)
            case Unlock():
                done = self._attempts.release(topic, token, topic.retries.pauses[0])
                self._current(topic, token, done)
            case _:
                assert_never(result)

    def complete(self, topic: Topic, token: Token, result: Complete) -> None:
        """The work is done."""
        names_allowed([*result.variables, *result.local_variables], topic.allowed_variables)
        variables, local_variables = typed(result.variables), typed(result.local_variables)
        self._engine.complete(token.task_id, variables, local_variables)
        self._ledger.settle(token.task_id)
        self._metrics.count(topic.name, "completed")
        log.debug("task completed", task_id=token.task_id, topic=topic.name)

    def bury(self, letter: DeadLetter, token: Token) -> None:
        """A task message that no worker took: a failure if one refused it, else a release."""
        topic = letter.topic
        if letter.is_failure:
            done = self._attempts.fail(topic, token, Report(letter.text))
        else:
            pause = AT_ONCE if letter.reason == "expired" else topic.retries.pauses[0]
            done = self._attempts.release(topic, token, pause)
        self._current(topic, token, done)
        log.info(
            "dead letter",
            task_id=token.task_id,
            topic=topic.name,
            reason=letter.reason,
            stale=not done,
        )

    def incident(self, topic: Topic, token: Token, message: str) -> None:
        """Show in the engine why a task does not go on."""
        self._current(topic, token, self._attempts.incident(topic, token, message))

    def _bpmn_error(self, topic: Topic, token: Token, result: BpmnError) -> None:
        variables = _typed(topic, result.variables)
        code, message = result.error_code, result.error_message
        self._engine.bpmn_error(token.task_id, code, message, variables)
        self._ledger.settle(token.task_id)
        self._metrics.count(topic.name, "bpmn_error")
        log.info("BPMN error", task_id=token.task_id, topic=topic.name, code=code)

    def _current(self, topic: Topic, token: Token, current: bool) -> None:
        if not current:
            self._metrics.count(topic.name, "stale")
            log.info("stale result dropped", task_id=token.task_id, topic=topic.name)


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
