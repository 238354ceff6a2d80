"""What the demo asks of the broker: a login, and who consumes.  Publishes and declares nothing."""

import time
from collections.abc import Callable

import pika
from pika.exceptions import AMQPConnectionError, AMQPError

from deploy.local.programs import PartError

_PAUSE_SECONDS = 0.2


def log_in(amqp_url: str) -> None:
    """Connect once; raises PartError when the broker refuses."""
    try:
        pika.BlockingConnection(pika.URLParameters(amqp_url)).close()
    except AMQPConnectionError as error:
        raise PartError(f"the broker refuses the login: {error!r}") from error


def wait_until_consumed(
    amqp_url: str, queues: list[str], seconds: float, watch: Callable[[], None]
) -> list[str]:
    """Wait until every queue has a consumer; returns the queues that have none in time.

    `watch` is called between two looks and may raise to end the wait.
    """
    end = time.monotonic() + seconds
    while (idle := _idle(amqp_url, queues)) and time.monotonic() < end:
        watch()
        time.sleep(_PAUSE_SECONDS)
    return idle


def _idle(amqp_url: str, queues: list[str]) -> list[str]:
    try:
        with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
            return [queue for queue in queues if not _consumers(connection, queue)]
    except AMQPError:
        return queues


def _consumers(connection: pika.BlockingConnection, queue: str) -> int:
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.consumer_count)
    except AMQPError:  # 404 closes the channel: the queue is not there yet
        return 0
