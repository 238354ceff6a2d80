"""A worker of topic `payment-processing` with one fault, named as its argument.

For the tests of the conformance kit: each fault is one that real workers have.  Some have none, for
the contract allows it: `none`; `rejects`, which rejects what it cannot do; `crowd`, which has two
consumers with the prefetch of Spring; `waits`, which repeats an answer until a queue takes it.
`ignores-amqp-url` is an existing application, which reads its address elsewhere: BROKER_URL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import pika
from pika.exceptions import AMQPError, UnroutableError

QUEUE = "payment-processing"
FAULT = sys.argv[1] if len(sys.argv) > 1 else ""
FAULTS = (
    "none",
    "crowd",
    "waits",
    "auto-ack",
    "acks-first",
    "never-acks",
    "no-prefetch",
    "no-correlation-id",
    "transient",
    "requeues",
    "rejects",
    "requeues-failures",
    "dies-of-poison",
    "keeps-poison",
    "not-mandatory",
    "unconfirmed",
    "requeues-unroutable",
    "ignores-sigterm",
    "hangs-without-connection",
    "deaf-after-cut",
    "ends-in-silence",
    "latin-1",
    "no-null",
    "small-numbers",
    "small-bodies",
    "drops-duplicates",
    "drops-failures",
    "no-business-error",
    "gibberish",
    "ignores-amqp-url",
)
ADDRESS = "BROKER_URL" if FAULT == "ignores-amqp-url" else "AMQP_URL"
seen: set[str] = set()


def work(task: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    variables = task["variables"]
    refuse("no-null", any(value is None for value in variables.values()))
    integers = [value for value in variables.values() if isinstance(value, int)]
    refuse("small-numbers", any(abs(value) > 2**53 for value in integers))
    refuse("small-bodies", len(body) > 100_000)
    amount, currency = variables["amount"], variables["currency"]
    if amount > 1000 and FAULT != "no-business-error":
        return "bpmnError", {"errorCode": "PAYMENT_ERROR"}
    if amount == 503:
        raise ValueError("the payment gateway answered 503")
    return "complete", {"variables": {"paymentStatus": f"{amount} {currency}"}}


def refuse(fault: str, met: bool) -> None:
    if fault == FAULT and met:
        raise ValueError(fault)


def read(body: bytes) -> dict[str, Any]:
    task: dict[str, Any] = json.loads(body.decode("latin-1" if FAULT == "latin-1" else "utf-8"))
    return task


def answer(channel: Any, task: Any, outcome: str, content: dict[str, Any]) -> None:
    echo = pika.BasicProperties(
        correlation_id=None if FAULT == "no-correlation-id" else task.correlation_id,
        headers={"outcome": outcome},
        delivery_mode=1 if FAULT == "transient" else 2,
    )
    body = b"gibberish" if FAULT == "gibberish" else json.dumps(content).encode()
    while not published(channel, task.reply_to, body, echo):
        channel.connection.sleep(0.1)


def published(channel: Any, queue: str, body: bytes, echo: Any) -> bool:
    try:
        channel.basic_publish("", queue, body, echo, mandatory=FAULT != "not-mandatory")
    except UnroutableError:
        if FAULT == "waits":
            return False
        raise
    return True


def handle(channel: Any, delivery: Any, task: Any, body: bytes) -> None:
    if FAULT == "acks-first":
        channel.basic_ack(delivery.delivery_tag)
    if FAULT == "drops-duplicates" and task.message_id in seen:
        channel.basic_ack(delivery.delivery_tag)
        return
    seen.add(task.message_id)
    try:
        outcome, content = work(read(body), body)
    except json.JSONDecodeError as error:
        if FAULT == "dies-of-poison":
            raise
        if FAULT == "keeps-poison":
            return
        if FAULT in ("rejects", "requeues"):
            channel.basic_nack(delivery.delivery_tag, requeue=FAULT == "requeues")
            return
        outcome, content = "failure", {"errorMessage": repr(error)}
    except (ValueError, KeyError) as error:
        if FAULT in ("rejects", "requeues-failures"):
            channel.basic_nack(delivery.delivery_tag, requeue=FAULT == "requeues-failures")
            return
        if FAULT == "drops-failures":
            channel.basic_ack(delivery.delivery_tag)
            return
        outcome, content = "failure", {"errorMessage": repr(error)}
    try:
        answer(channel, task, outcome, content)
    except UnroutableError:
        if FAULT != "requeues-unroutable":
            raise
        channel.basic_nack(delivery.delivery_tag, requeue=True)
        return
    if FAULT not in ("auto-ack", "acks-first", "never-acks"):
        channel.basic_ack(delivery.delivery_tag)


def consume(stopping: list[bool]) -> None:
    with pika.BlockingConnection(pika.URLParameters(os.environ[ADDRESS])) as connection:
        channel = connection.channel()
        if FAULT != "unconfirmed":
            channel.confirm_delivery()
        if FAULT != "no-prefetch":
            # Who never acknowledges stands still once it has so many in hand.
            channel.basic_qos(prefetch_count={"never-acks": 100, "crowd": 250}.get(FAULT, 10))
        if FAULT == "crowd":
            channel.basic_consume(QUEUE, handle)
        deliveries = channel.consume(QUEUE, auto_ack=FAULT == "auto-ack", inactivity_timeout=0.2)
        for delivery, task, body in deliveries:
            if delivery:
                handle(channel, delivery, task, body)
            if stopping:
                return
        raise SystemExit("the queue is gone")


def main() -> None:
    stopping: list[bool] = []
    if FAULT == "ignores-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    try:
        consume(stopping)
    except AMQPError:
        if FAULT == "hangs-without-connection":
            time.sleep(600)
        if FAULT == "deaf-after-cut":
            with pika.BlockingConnection(pika.URLParameters(os.environ[ADDRESS])) as connection:
                connection.channel().basic_consume(QUEUE, lambda *_: None)
                connection.sleep(600)
        if FAULT != "ends-in-silence":
            raise


if __name__ == "__main__":
    assert FAULT in FAULTS
    main()
