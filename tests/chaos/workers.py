"""Workers as they are in life: most answer, some fail, some are slow, some answer twice, send
garbage, die with a message in hand or try to answer for another topic.

What a worker does to an attempt is decided by the seed, the instance and the attempt alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import pika
from pika.exceptions import AMQPError, ChannelError

from tests.chaos.checker import WORKER
from tests.chaos.evidence import Answer, Verb
from tests.chaos.plan import TOPICS, Options
from tests.support.amqp import Message
from tests.support.loop import Loop

Manner = Literal[
    "complete", "slow", "bpmnError", "failure", "twice", "garbage", "dies", "dies late",
    "progress", "unlock", "forges", "rejects",
]  # fmt: skip
MANNERS: Mapping[Manner, int] = {
    "complete": 60, "slow": 6, "bpmnError": 6, "failure": 8, "twice": 5, "garbage": 2, "dies": 3,
    "dies late": 3, "progress": 2, "unlock": 1, "forges": 2, "rejects": 2,
}  # fmt: skip
CODE = "oops"
PREFETCH = 5
PAUSE_SECONDS = 0.2
SLOW_SECONDS = (0.5, 1.5)
TROUBLE = (AMQPError, ChannelError, OSError)


class Death(Exception):
    """The worker dies here: its connection goes with all it had in hand."""


def manner(seed: int, message: Message) -> Manner:
    """How a worker treats a message.  Later attempts succeed; nobody dies of a message twice."""
    attempt = message.properties.message_id.rpartition(":")[2]
    chance = random.Random(f"{seed}:{message.json['variables']['n']}:{attempt}")
    chosen = chance.choices(list(MANNERS), list(MANNERS.values()))[0]
    if attempt != "-" or (message.redelivered and chosen in ("dies", "dies late", "unlock")):
        return "complete"
    return chosen


@dataclass
class Record:
    """What all workers did.  Lists only grow, so every thread may write."""

    answers: list[Answer] = field(default_factory=list)
    manners: list[Manner] = field(default_factory=list)
    redelivered: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # of each topic's latest message


class Worker:
    """One worker of one topic, in a thread; comes back whenever it or the broker has died."""

    def __init__(self, url: str, topic: str, options: Options, record: Record) -> None:
        self._url, self._topic, self._options, self._record = url, topic, options, record
        self._other = next(name for name in TOPICS if name != topic)
        self._random = random.Random(f"{options.seed}:{topic}")
        self._unlocked: set[str] = set()
        self._loop = Loop(f"worker {topic}", self._step, patience=20)

    def __enter__(self) -> Self:
        self._loop.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.__exit__()

    def _step(self) -> float:
        self._live()
        return PAUSE_SECONDS

    def _live(self) -> None:
        parameters = pika.URLParameters(self._url)
        parameters.heartbeat, parameters.blocked_connection_timeout = 5, 60
        parameters.socket_timeout, parameters.stack_timeout = 2, 4
        try:
            connection = pika.BlockingConnection(parameters)
            try:
                self._consume(connection.channel())
            finally:
                if connection.is_open:
                    connection.close()
        except (*TROUBLE, Death):
            return

    def _consume(self, channel: Any) -> None:
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.confirm_delivery()
        for method, properties, body in channel.consume(self._topic, inactivity_timeout=0.1):
            if self._loop.stopping.is_set():
                return
            if method is None:
                continue
            message = Message(body, properties, method.redelivered)
            if message.redelivered:
                self._record.redelivered.append(properties.message_id)
            if self._treat(channel, message):
                channel.basic_ack(method.delivery_tag)
            else:
                channel.basic_nack(method.delivery_tag, requeue=False)

    def _treat(self, channel: Any, message: Message) -> bool:
        """Work on a message; False: reject it."""
        chosen = manner(self._options.seed, message)
        if chosen == "unlock":
            if message.properties.message_id in self._unlocked:
                chosen = "complete"  # it came back as it was asked to
            self._unlocked.add(message.properties.message_id)
        self._record.manners.append(chosen)
        self._record.tokens[self._topic] = message.properties.correlation_id
        self._loop.stopping.wait(self._random.uniform(0.0, 2 * self._options.work_seconds))
        if chosen == "slow":
            self._loop.stopping.wait(self._random.uniform(*SLOW_SECONDS))
        elif chosen == "rejects":
            return False
        elif chosen == "dies":
            raise Death
        for verb, body in self._answers(chosen, message):
            self._send(channel, message, verb, body)
        if chosen == "dies late":
            raise Death
        return True

    def _answers(self, chosen: Manner, message: Message) -> list[tuple[Verb, Any]]:
        done: tuple[Verb, Any] = ("complete", {"variables": {"by": self._topic}})
        match chosen:
            case "failure":
                text = f"{WORKER} at {message.properties.message_id}"
                return [("failure", {"errorMessage": text})]
            case "bpmnError":
                return [("bpmnError", {"errorCode": CODE})]
            case "garbage":
                return [("garbage", b"{no JSON")]
            case "unlock":
                return [("unlock", {})]
            case "progress":
                return [("extendLock", {"newDuration": 1000}), done]
            case "forges":
                return [("forged", {"by": self._topic}), done]
            case "twice":
                return [done, done]
            case _:
                return [done]

    def _send(self, channel: Any, message: Message, verb: Verb, body: Any) -> None:
        """Send a result; a forged one with a token that is another topic's, where one is known."""
        properties, headers, token = message.properties, message.headers, self._token(message, verb)
        if token is None:
            return
        answer = Answer(
            message_id=properties.message_id,
            task_id=headers["taskId"],
            retries=headers.get("retries"),
            instance=headers["processInstanceId"],
            token=token,
            verb=verb,
            confirmed=False,
        )
        self._record.answers.append(answer)
        outcome = {} if verb in ("garbage", "forged") else {"outcome": verb}
        channel.basic_publish(
            "",
            properties.reply_to,
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            pika.BasicProperties(correlation_id=token, headers=outcome, delivery_mode=2),
            mandatory=True,
        )
        self._record.answers.append(replace(answer, confirmed=True))

    def _token(self, message: Message, verb: Verb) -> str | None:
        if verb == "forged":
            return self._record.tokens.get(self._other)
        return str(message.properties.correlation_id)
