"""Answers the tasks of topic `payment-processing`: amount, currency in, paymentStatus out.

Over 1000 is the BPMN error PAYMENT_ERROR; 502 fails at the first attempt, 503 at every one.
"""

import json
import os
import signal

import pika


def work(task):
    amount = task["variables"]["amount"]
    if amount > 1000:
        return "bpmnError", {"errorCode": "PAYMENT_ERROR", "errorMessage": f"{amount}: over 1000"}
    if amount == 503 or (amount == 502 and task["retries"] is None):
        return "failure", {"errorMessage": f"the payment gateway answered {amount}"}
    return "complete", {"variables": {"paymentStatus": f"{amount} {task['variables']['currency']}"}}


stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns only when a queue holds the result
    channel.basic_qos(prefetch_count=10)
    for delivery, task, body in channel.consume("payment-processing", inactivity_timeout=1):
        if delivery:
            try:
                outcome, answer = work(json.loads(body))
            except Exception as error:  # noqa: BLE001 - whatever it is, the engine retries it
                outcome, answer = "failure", {"errorMessage": repr(error)}
            echo = pika.BasicProperties(
                correlation_id=task.correlation_id, headers={"outcome": outcome}, delivery_mode=2
            )
            channel.basic_publish("", task.reply_to, json.dumps(answer).encode(), echo, True)
            channel.basic_ack(delivery.delivery_tag)
            print(outcome, task.message_id, flush=True)
        if stopping:
            break
    else:
        raise SystemExit("queue payment-processing is gone")
