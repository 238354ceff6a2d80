"""Answers the tasks of topic `payment-processing`: amount, currency in, paymentStatus out.

Over 1000 is the BPMN error PAYMENT_ERROR; 502 fails at the first attempt, 503 at every one;
202 stays pending for PENDING_SECONDS, which extendLock tells, and is paid then.
"""

import json
import os
import signal

import pika

QUEUE = os.environ.get("TASK_QUEUE", "payment-processing")


def work(message, task):
    amount, currency = task["variables"]["amount"], task["variables"].get("currency") or "EUR"
    if amount > 1000:
        return "bpmnError", {"errorCode": "PAYMENT_ERROR", "errorMessage": f"{amount}: over 1000"}
    if amount == 503 or (amount == 502 and task["retries"] is None):
        return "failure", {"errorMessage": f"the payment gateway answered {amount}"}
    if amount == 202:
        pending = {"newDuration": 600_000, "variables": {"paymentStatus": "pending"}}
        answer(message, "extendLock", pending)
        connection.sleep(float(os.environ.get("PENDING_SECONDS", "5")))  # heartbeats go on
    return "complete", {"variables": {"paymentStatus": f"{amount} {currency}"}}


def answer(task, outcome, body):
    properties = pika.BasicProperties(
        correlation_id=task.correlation_id, headers={"outcome": outcome}, delivery_mode=2
    )
    channel.basic_publish("", task.reply_to, json.dumps(body).encode(), properties, mandatory=True)
    print(outcome, task.message_id, flush=True)


stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns only when a queue holds the result
    channel.basic_qos(prefetch_count=10)
    for delivery, task, body in channel.consume(QUEUE, inactivity_timeout=1):
        if delivery:
            try:
                outcome, result = work(task, json.loads(body))
            except Exception as error:  # noqa: BLE001 - whatever it is, the engine retries it
                outcome, result = "failure", {"errorMessage": repr(error)}
            answer(task, outcome, result)
            channel.basic_ack(delivery.delivery_tag)
        if stopping:
            break
    else:
        raise SystemExit(f"queue {QUEUE} is gone")
