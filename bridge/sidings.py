"""Where a message goes that cannot be applied: parked for people, or waiting for a better time.

The original is let go only once RabbitMQ has confirmed the copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from bridge.broker import Outcome, Publisher
from bridge.callers import Callers
from bridge.errors import ResultRefused
from bridge.messages import Delivery, Publication

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
DETAIL_MAX = 1000
LANE = "sidings"
_NO_MARKS: Mapping[str, Any] = {}


class Sidings:
    """Parks messages and lets them wait.  Safe to use from every thread; never blocks."""

    def __init__(self, publisher: Publisher, callers: Callers, parked: str, wait: str) -> None:
        self._publisher = publisher
        self._callers = callers
        self._parked = parked
        self._wait = wait
        self._numbers = itertools.count()

    def park(
        self, delivery: Delivery, refused: ResultRefused, then: Callable[[bool], None]
    ) -> None:
        """Park a copy with the reason; `then(True)` is called once it lies there.  Where the
        parking queue is full or missing, the message waits instead, to be tried again, and
        `then(False)` is called.
        """
        marks = {
            "reason": refused.reason,
            # Half a character, quoted from the engine, would make every copy unwritable.
            "reasonDetail": refused.detail[:DETAIL_MAX].encode(errors="backslashreplace").decode(),
            "resultQueue": delivery.queue,
        }
        copy = _copy(delivery, "", self._parked, marks)

        def done(outcome: Outcome, detail: str) -> None:
            if outcome is Outcome.CONFIRMED:
                then(True)
            elif outcome is Outcome.REFUSED:
                self._publisher.publish(replace(copy, headers=marks), done)
            elif outcome in (Outcome.NACKED, Outcome.RETURNED):
                log.error("cannot park, the message waits", queue=self._parked, reason=detail)
                self.wait(delivery, lambda: then(False))
            else:
                self._later(lambda: self.park(delivery, refused, then))

        self._publisher.publish(copy, done)

    def wait(
        self, delivery: Delivery, then: Callable[[], None], marks: Mapping[str, Any] = _NO_MARKS
    ) -> None:
        """Send a copy to the waiting room, from which it comes back to the queue it came from.
        `marks` are headers to add.
        """
        copy = _copy(delivery, self._wait, delivery.queue, marks)

        def done(outcome: Outcome, detail: str) -> None:
            if outcome is Outcome.CONFIRMED:
                then()
            elif outcome is Outcome.REFUSED:
                self._publisher.publish(replace(copy, headers=marks), done)
            else:
                log.debug("the waiting room is not reached", reason=detail)
                self._later(lambda: self.wait(delivery, then, marks))

        self._publisher.publish(copy, done)

    def _later(self, action: Callable[[], None]) -> None:
        pauses = iter([AGAIN_SECONDS])

        def job() -> float | None:
            pause = next(pauses, None)
            if pause is None:
                action()
            return pause

        self._callers.submit(f"siding {next(self._numbers)}", job)


def _copy(
    delivery: Delivery, exchange: str, routing_key: str, marks: Mapping[str, Any]
) -> Publication:
    return Publication(
        lane=LANE,
        exchange=exchange,
        routing_key=routing_key,
        body=delivery.body,
        headers={**delivery.headers, **marks},
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        type=delivery.type,
        content_type=delivery.content_type,
        content_encoding=delivery.content_encoding,
        timestamp=delivery.timestamp,
        app_id=delivery.app_id,
    )
