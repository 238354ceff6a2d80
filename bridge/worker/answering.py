"""A worker's answers: publish, confirm, and only then acknowledge.  Refuses to lose one: what is
refused waits, without the others, and what meets no connection goes out by the next one.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from bridge.worker.functions import Outcome
from bridge.worker.lane import Lane
from bridge.worker.state import AGAIN_SECONDS, Hand, Job, remember

log = logging.getLogger(__name__)

REFUSED = (NackError, UnroutableError, ChannelClosedByBroker)


class Answers:
    """From functions to RabbitMQ.  `post` may be called in any thread, everything else belongs to
    the connection's; what is raised is an error of the connection.
    """

    def __init__(self, hand: Hand, results_exchange: str, consumer_timeout_s: float) -> None:
        self._hand, self._exchange = hand, results_exchange
        self._consumer_timeout_s = consumer_timeout_s
        self._outbox: deque[tuple[Job, Outcome]] = deque()
        self._given: dict[str, Outcome] = {}
        self._lanes: Mapping[str, Lane] = {}
        self._connection: Any = None
        self._out: Any = None

    def connect(self, connection: Any, lanes: Mapping[str, Lane]) -> None:
        """From now on answers go out by this connection; `lanes` by topic."""
        self._connection, self._lanes = connection, lanes
        self._open_out()

    def post(self, job: Job, outcome: Outcome) -> None:
        """Have the next `send` take it along."""
        self._outbox.append((job, outcome))

    def recall(self, key: str) -> Outcome | None:
        """The answer that a message got whose acknowledgement RabbitMQ did not take; once."""
        return self._given.pop(key, None)

    def has_address(self, job: Job) -> bool:
        properties = job.properties
        return bool(properties.correlation_id and (properties.reply_to or self._exchange))

    def send(self, *, last: bool = False) -> None:
        """Publish and acknowledge what is posted; with `last` also for a topic whose answers were
        refused a moment ago.
        """
        for _ in range(len(self._outbox)):
            job, outcome = self._outbox[0]
            if self._hand.jobs.get(job.key) is job:
                lane = self._lanes[job.handler.topic]
                if monotonic() < lane.answer_at and not last:
                    self._outbox.rotate(-1)
                    continue
                try:
                    for _ in range(max(1, len(job.tags))):  # each copy in hand is answered
                        self._publish(job, outcome)
                except REFUSED as error:
                    self._refused(lane, job, error)
                    continue
                lane.answer_at = 0.0
                self._settle(lane, job, outcome)
            self._outbox.popleft()

    def give_back(self) -> None:
        """Have the engine offer again what is unfinished and no longer RabbitMQ's."""
        for job in self._hand.jobs.values():
            if job.early:
                with suppress(*REFUSED):
                    self._publish(job, Outcome("unlock", {}))

    def _open_out(self) -> None:
        self._out = self._connection.channel()
        self._out.confirm_delivery()

    def _publish(self, job: Job, outcome: Outcome) -> None:
        if not self._out.is_open:
            self._open_out()
        # Half a character in an exception's text would be no JSON.
        body = json.dumps(outcome.body, ensure_ascii=False).encode(errors="replace")
        headers, token = {"outcome": outcome.outcome}, job.properties.correlation_id
        echo = pika.BasicProperties(
            "application/json", headers=headers, delivery_mode=2, correlation_id=token
        )
        key = job.handler.topic if self._exchange else job.properties.reply_to
        self._out.basic_publish(self._exchange, key, body, echo, mandatory=True)

    def _refused(self, lane: Lane, job: Job, error: AMQPError) -> None:
        why = getattr(error, "reply_text", "no queue takes the answer")
        if "message size" in why:
            log.error("%s: the answer is too large: %s", job.key, why)
            said = {"errorMessage": f"the answer is larger than RabbitMQ takes: {why}"}
            self._outbox[0] = (job, Outcome("failure", {**said, "retries": 0}))
            job.gone = True  # a function that only told its progress has nobody to answer to
            return
        if not lane.answer_at:
            log.error("%s: answer refused, trying again: %s", job.handler.topic, why)
        lane.answer_at = monotonic() + AGAIN_SECONDS
        self._outbox.rotate(-1)

    def _settle(self, lane: Lane, job: Job, outcome: Outcome) -> None:
        done, early = outcome.outcome != "extendLock", job.early
        until = monotonic() - job.since + outcome.body.get("newDuration", 0) / 1000
        if done or (until > self._consumer_timeout_s and not early):
            acknowledged = lane.acknowledge(job, done=done)
            if done and not acknowledged and not early:
                remember(self._given, job.key, outcome)
        log.info("%s %s", outcome.outcome, job.key)
