"""Answers the tasks of topic `demo-worker`: demoInput in, demoOutput out."""

import json
import os
import signal

import pika


def work(task):
    return "complete", {"variables": {"demoOutput": f"{task['variables']['demoInput']}, answered"}}


stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns only when a queue holds the result
    channel.basic_qos(prefetch_count=10)
    for delivery, task, body in channel.consume("demo-worker", inactivity_timeout=1):
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
        raise SystemExit("queue demo-worker is gone")
