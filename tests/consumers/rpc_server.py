"""An RPC server in the shape of RabbitMQ's sixth tutorial, but for a durable queue, since RabbitMQ
4.3 takes no other that several may use: a number in, a bare number out.
"""

import os

import pika


def fib(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def on_request(channel, method, request, body):  # type: ignore[no-untyped-def]
    channel.basic_publish(
        exchange="",
        routing_key=request.reply_to,
        properties=pika.BasicProperties(correlation_id=request.correlation_id),
        body=str(fib(int(body))),
    )
    channel.basic_ack(delivery_tag=method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(queue="rpc_queue", durable=True)
channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="rpc_queue", on_message_callback=on_request)
channel.start_consuming()
