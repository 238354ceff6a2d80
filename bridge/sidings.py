"""Where a message goes that cannot be applied: parked for people, or waiting for a better time.

The original is let go only once RabbitMQ has confirmed the copy.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import structlog

from bridge.broker import Outcome, Publisher
from bridge.broker.properties import writable
from bridge.callers import Callers
from bridge.errors import ResultRefused
from bridge.messages import Delivery, Publication

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
DETAIL_MAX = 1000
# A frame of RabbitMQ (frame_max 131072) holds these, our marks and every other property.
HEADERS_MAX_BYTES = 110_000
LANE = "sidings"
# RabbitMQ closes the channel where there is no such exchange.
_NO_EXCHANGE = "404 "
_NO_MARKS: Mapping[str, Any] = {}
# RabbitMQ obeys these: a copy would go, with our rights, wherever its sender names.
_RECIPIENTS = frozenset({"CC", "BCC"})
# RabbitMQ reads these as its own: a message that claims to have died in its result queue is dropped
# on its way back there, as one that goes round in circles.
DEATHS = frozenset(
    {"x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"}
)


class Sidings:
    """Parks messages and lets them wait.  Safe to use from every thread; never blocks.

    `missing` is told, and must not block, when a copy found no queue: somebody has deleted it.
    """

    def __init__(
        self,
        publisher: Publisher,
        callers: Callers,
        parked: str,
        wait: str,
        missing: Callable[[], None] = lambda: None,
    ) -> None:
        self._publisher = publisher
        self._callers = callers
        self._parked = parked
        self._wait = wait
        self._missing = missing
        self._numbers = itertools.count()
        self._wait_reached = True  # only the publishing thread touches it

    def park(
        self, delivery: Delivery, refused: ResultRefused, then: Callable[[bool], None]
    ) -> None:
        """Park a copy with the reason; `then(True)` is called once it lies there.  Where the
        parking queue is full or missing, the message waits instead, to be tried again, and
        `then(False)` is called.  The copy has every byte and property of the original but what
        RabbitMQ would act upon: `expiration` and `user_id` stand in headers, CC and BCC are gone.
        """
        marks = {
            "reason": refused.reason,
            # Half a character, quoted from the engine, would make every copy unwritable.
            "reasonDetail": refused.detail[:DETAIL_MAX].encode(errors="backslashreplace").decode(),
            "resultQueue": delivery.queue,
            "parkedAt": int(time.time()),
        }

        def full(reason: str) -> None:
            log.error("cannot park, the message waits", queue=self._parked, reason=reason)
            self.wait(delivery, lambda: then(False))

        set_aside = _set_aside(delivery)
        copy = copy_of(delivery, _RECIPIENTS, {**set_aside, **marks}, routing_key=self._parked)
        self._send(_plainer(copy, marks), lambda: then(True), full)

    def wait(
        self, delivery: Delivery, then: Callable[[], None], marks: Mapping[str, Any] = _NO_MARKS
    ) -> None:
        """Send a copy to the waiting room, from which it comes back to the queue it came from.
        `marks` are headers to add.
        """

        def waits() -> None:
            if not self._wait_reached:
                log.info("the waiting room is reached again", queue=self._wait)
            self._wait_reached = True
            then()

        def refused(reason: str) -> None:
            tell = log.warning if self._wait_reached else log.debug
            tell("the waiting room is not reached", queue=self._wait, reason=reason)
            self._wait_reached = False
            self._later(lambda: self.wait(delivery, then, marks))

        copy = copy_of(
            delivery,
            _RECIPIENTS | DEATHS,
            {**_set_aside(delivery), **marks},
            exchange=self._wait,
            routing_key=delivery.queue,
        )
        self._send(_plainer(copy, marks), waits, refused)

    def _send(
        self,
        copies: Iterator[Publication],
        then: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        """Publish the first of the copies that can be written; again where its fate is unknown."""
        copy = next(copies, None)
        if copy is None:
            refused("the message cannot be written again")
            return

        def done(outcome: Outcome, detail: str) -> None:
            if outcome is Outcome.RETURNED or detail.startswith(_NO_EXCHANGE):
                self._missing()
            if outcome is Outcome.CONFIRMED:
                then()
            elif outcome is Outcome.REFUSED:
                self._send(copies, then, refused)
            elif outcome in (Outcome.NACKED, Outcome.RETURNED):
                refused(detail)
            else:
                log.debug("the fate of a copy is unknown", reason=detail)
                self._later(lambda: self._send(itertools.chain([copy], copies), then, refused))

        self._publisher.publish(copy, done)

    def _later(self, action: Callable[[], None]) -> None:
        pauses = iter([AGAIN_SECONDS])

        def job() -> float | None:
            pause = next(pauses, None)
            if pause is None:
                action()
            return pause

        self._callers.submit(f"siding {next(self._numbers)}", job)


def _plainer(copy: Publication, marks: Mapping[str, Any]) -> Iterator[Publication]:
    """The copy, and one without headers of its own, should they be refused all the same."""
    yield copy
    yield replace(copy, headers=marks)


def _set_aside(delivery: Delivery) -> dict[str, str]:
    """What RabbitMQ would act upon, as headers."""
    stood = {"originalExpiration": delivery.expiration, "originalUserId": delivery.user_id}
    return {name: value for name, value in stood.items() if value is not None}


def copy_of(
    delivery: Delivery,
    without: frozenset[str],
    marks: Mapping[str, Any],
    *,
    exchange: str = "",
    routing_key: str,
) -> Publication:
    """A copy for another queue with these `marks`, and with every other header and property but
    those `without`, `expiration` and `user_id`, which RabbitMQ would act upon.
    """
    kept = {name: value for name, value in delivery.headers.items() if name not in without}
    return Publication(
        lane=LANE,
        exchange=exchange,
        routing_key=routing_key,
        body=delivery.body,
        headers={**writable(kept, HEADERS_MAX_BYTES), **marks},
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        type=delivery.type,
        content_type=delivery.content_type,
        content_encoding=delivery.content_encoding,
        timestamp=delivery.timestamp,
        priority=delivery.priority,
        app_id=delivery.app_id,
    )
