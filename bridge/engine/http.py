"""HTTP to the engine: what an answer means, and what is tried again.  Knows nothing of tasks.

One kept-alive connection per thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_delay, stop_any, stop_base, stop_when_event_set

from bridge.clock import monotonic
from bridge.engine.answers import classify
from bridge.engine.clock import EngineClock
from bridge.engine.connection import CALL_ERRORS, Connection, HttpOptions, translated
from bridge.engine.measured import outcome_of, verb_of
from bridge.errors import (
    EngineConflict,
    EngineError,
    EngineMisconfigured,
    EngineUnauthorized,
    EngineUnavailable,
)

CONFLICT_TRIES = 10
LOST_TRIES = 3
RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: when (monotonic) the call began and ended, and what time the engine says it
    was then (`dated`, seconds since the epoch).
    """

    status: int
    body: bytes
    began: float
    ended: float
    dated: float


class EngineHttp:
    """Calls to one engine.  Every error leaves as an EngineError; safe to use from every thread."""

    def __init__(
        self,
        options: HttpOptions,
        clock: EngineClock,
        stopping: threading.Event,
        answered: Callable[[float], None] = lambda _: None,
        called: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        """`answered` is told the monotonic time of every answer that is the engine's own, and
        `called` the verb, the outcome and the seconds of every call.
        """
        self._options = options
        self._clock = clock
        self._stopping = stopping
        self._answered = answered
        self._called = called
        self._local = threading.local()

    def call(self, method: str, path: str, json: Any = None, *, repeat_lost: bool = True) -> Answer:
        """One call, repeated with full jitter for at most ten seconds, and not once we stop: after
        a conflict, which the engine has rolled back, and after a lost answer unless
        `repeat_lost` is False because a second execution would do harm.
        """
        try:
            return self.once(method, path, json)
        except (EngineConflict, EngineUnavailable) as error:
            if self._stopping.is_set() or not _passing(error, repeat_lost):
                raise
        retrying = Retrying(
            retry=retry_if_exception(lambda error: _passing(error, repeat_lost)),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            stop=stop_any(
                _TriesSpent(), stop_after_delay(RETRY_SECONDS), stop_when_event_set(self._stopping)
            ),
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        )
        return retrying(self.once, method, path, json)

    def download(self, path: str, limit: int) -> bytes | None:
        """The bytes at a path, tried once; None, and not read further, if more than `limit`."""
        try:
            status, body = self._connection().download(path, limit)
        except CALL_ERRORS as error:
            self._forget_connection()
            raise translated(error) from error
        if not 200 <= status < 300:
            raise classify(status, body) or EngineUnavailable("no file")
        return body if len(body) <= limit else None

    def once(self, method: str, path: str, json: Any = None, *, wait: float = 0.0) -> Answer:
        """One call, tried once; the engine may take `wait` seconds longer on purpose.  Raises the
        EngineError that the answer, or its lack, means.
        """
        began = monotonic()
        try:
            response = self._connection().send(method, path, json, wait)
        except CALL_ERRORS as error:
            self._forget_connection()
            lost = translated(error)
            self._called(verb_of(path, wait), outcome_of(lost), monotonic() - began - wait)
            raise lost from error
        ended = monotonic()
        status, headers, content = response.status, response.headers, response.data
        error_answer = classify(status, content, headers.get("Retry-After"))
        self._called(verb_of(path, wait), outcome_of(error_answer), ended - began - wait)
        if _is_engines_own(error_answer):
            self._answered(ended)
        if error_answer is not None:
            raise error_answer
        dated = self._clock.observe(headers.get("Date"), ended)
        return Answer(status, content, began, ended, dated)

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = Connection(self._options)
        return connection

    def _forget_connection(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            connection.close()


def _is_engines_own(error: EngineError | None) -> bool:
    """Whether an answer shows that the engine is there and takes our credentials."""
    return not isinstance(error, EngineUnavailable | EngineUnauthorized | EngineMisconfigured)


def _passing(error: BaseException, repeat_lost: bool) -> bool:
    if isinstance(error, EngineUnavailable):
        # Who is asked to wait longer than here frees its thread for that.
        return not error.retry_after and (repeat_lost or not error.sent)
    return isinstance(error, EngineConflict)


class _TriesSpent(stop_base):
    """A conflict is worth ten tries, a lost answer three: the caller has better to do then."""

    def __call__(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        tries = CONFLICT_TRIES if isinstance(error, EngineConflict) else LOST_TRIES
        return state.attempt_number >= tries - 1  # the first try came before the retrying
