"""Answers the tasks of topic `creditScoreChecker`: customer in, creditScore out."""

import json
import os
import signal
import zlib

import pika


def work(task):
    customer = task["variables"]["customer"]
    score = 300 + zlib.crc32(customer.encode()) % 551  # the same customer, the same score
    return "complete", {"variables": {"creditScore": score}}


stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns only when a queue holds the result
    channel.basic_qos(prefetch_count=10)
    for delivery, task, body in channel.consume("creditScoreChecker", inactivity_timeout=1):
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
        raise SystemExit("queue creditScoreChecker is gone")
