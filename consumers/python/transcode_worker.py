"""Answers the tasks of topic `transcodeVideo`: video in, transcodedVideo out, hours later.

It says that it has begun (extendLock) and acknowledges there and then, so that RabbitMQ's consumer
timeout (30 minutes) cannot take the message back: from here on the engine's lock and the topic's
deadline guard the task.  The work has a thread, the connection answers heartbeats meanwhile, and
what the thread has to tell outlives a lost connection.
"""

import json
import os
import signal
import threading
import time

import pika

STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "60"))
BUSY = {"newDuration": 600_000}  # ms
hand, told, stopping = [], [], []  # the task in hand, and what its thread says


def work(body):
    try:
        video = json.loads(body)["variables"]["video"]
        for percent in (25, 50, 75):
            time.sleep(STEP_SECONDS)  # the work
            told.append(("extendLock", {**BUSY, "variables": {"progress": percent}}))
        time.sleep(STEP_SECONDS)
        told.append(("complete", {"variables": {"transcodedVideo": f"{video}.webm"}}))
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine retries it
        told.append(("failure", {"errorMessage": repr(error)}))


def answer(channel, task, outcome, body):
    echo = pika.BasicProperties(
        correlation_id=task.correlation_id, headers={"outcome": outcome}, delivery_mode=2
    )
    channel.basic_publish("", task.reply_to, json.dumps(body).encode(), echo, mandatory=True)
    print(outcome, task.message_id, flush=True)


def take(channel):
    for delivery, task, body in channel.consume("transcodeVideo", inactivity_timeout=1):
        if delivery:
            channel.cancel()  # or the next message would wait here until this one is done
            answer(channel, task, "extendLock", BUSY)
            channel.basic_ack(delivery.delivery_tag)
            hand.append(task)
            threading.Thread(target=work, args=(body,), daemon=True).start()
        return
    raise SystemExit("queue transcodeVideo is gone")


def tell(channel):
    channel.connection.process_data_events(0.1)  # heartbeats
    if stopping and not told:
        told.append(("unlock", {}))  # begun work is given back: hours are too long for a stop
    while hand and told:
        answer(channel, hand[0], *told[0])
        if told.pop(0)[0] != "extendLock":
            hand.clear()


signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
while hand or not stopping:
    try:
        with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
            channel = connection.channel()
            channel.confirm_delivery()  # basic_publish then returns only when a queue holds it
            channel.basic_qos(prefetch_count=1)
            while hand or not stopping:
                tell(channel) if hand else take(channel)
    except pika.exceptions.AMQPConnectionError:
        if not hand:
            raise
        time.sleep(1)  # and connect again: what is done may still be told
