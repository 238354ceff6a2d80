"""RabbitMQ.  The only room that imports pika; knows messages, queues and confirms, not tasks."""

from bridge.broker.connection import ConnectionThread
from bridge.broker.consumer import Consumer
from bridge.broker.lane import Outcome
from bridge.broker.options import BrokerOptions
from bridge.broker.publisher import Publisher
from bridge.broker.topology import Exchange, Queue, Topology

__all__ = [
    "BrokerOptions",
    "ConnectionThread",
    "Consumer",
    "Exchange",
    "Outcome",
    "Publisher",
    "Queue",
    "Topology",
]
