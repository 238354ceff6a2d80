"""Answers the tasks of topic `transcodeVideo`: video in, transcodedVideo out, slowly.

Between its steps it says that it is still working: the bridge extends the lock, and the process
variable `progress` shows how far it is.  It acknowledges at the end: work that takes longer than
RabbitMQ's consumer timeout (30 minutes) acknowledges after its first extendLock instead.
"""

import json
import os
import signal

import pika

STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "60"))


def answer(task, outcome, body):
    echo = pika.BasicProperties(
        correlation_id=task.correlation_id, headers={"outcome": outcome}, delivery_mode=2
    )
    channel.basic_publish("", task.reply_to, json.dumps(body).encode(), echo, mandatory=True)


def work(task, video):
    for percent in (25, 50, 75):
        connection.sleep(STEP_SECONDS)  # the work; unlike time.sleep it answers heartbeats
        answer(task, "extendLock", {"newDuration": 600_000, "variables": {"progress": percent}})
    connection.sleep(STEP_SECONDS)
    return "complete", {"variables": {"transcodedVideo": f"{video}.webm"}}


stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns only when a queue holds the result
    channel.basic_qos(prefetch_count=1)
    for delivery, task, body in channel.consume("transcodeVideo", inactivity_timeout=1):
        if delivery:
            try:
                outcome, result = work(task, json.loads(body)["variables"]["video"])
            except (KeyError, TypeError, ValueError) as error:
                outcome, result = "failure", {"errorMessage": repr(error)}
            answer(task, outcome, result)
            channel.basic_ack(delivery.delivery_tag)
            print(outcome, task.message_id, flush=True)
        if stopping:
            break
    else:
        raise SystemExit("queue transcodeVideo is gone")
