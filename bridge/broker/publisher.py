"""Publish, and learn what became of it.  Persistent, mandatory, confirmed, pipelined.

`publish` hands a message to the connection's thread; `done` is called there exactly once with the
outcome.  Each lane (a topic, mostly) has a channel of its own, so that a channel that the broker
closes takes only its own lane's messages with it.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pika
import structlog
from pika.exceptions import AMQPError

from bridge.broker.connection import ConnectionThread
from bridge.clock import monotonic
from bridge.messages import Publication

log = structlog.get_logger(__name__)

# A window of confirms keeps the pipe full without queueing for long: larger ones only add latency.
WINDOW_MESSAGES = 200
WINDOW_BYTES = 16 * 1024 * 1024
_ENCODING_ERRORS = (ValueError, TypeError, AssertionError, struct.error, AMQPError)


class Outcome(Enum):
    """What became of a publication."""

    CONFIRMED = "confirmed"  # a queue holds it
    RETURNED = "returned"  # no queue takes this routing key
    NACKED = "nacked"  # the queue refuses it, full for example
    UNKNOWN = "unknown"  # the channel or the connection went first
    LATE = "late"  # too late to be sent, and not sent
    REFUSED = "refused"  # cannot be written as an AMQP message


Done = Callable[[Outcome, str], None]


@dataclass(frozen=True, slots=True)
class _Item:
    publication: Publication
    done: Done
    publish_by: float
    mandatory: bool


class _Lane:
    """One channel in confirm mode, what waits for it and what waits for its confirm."""

    def __init__(self) -> None:
        self.channel: Any = None
        self.open = False
        self.waiting: deque[_Item] = deque()
        self.pending: OrderedDict[int, _Item] = OrderedDict()
        self.returned: dict[int, str] = {}
        self.number = 0
        self.bytes = 0

    def has_window(self) -> bool:
        return len(self.pending) < WINDOW_MESSAGES and self.bytes < WINDOW_BYTES

    def settle_up_to(self, number: int, multiple: bool) -> list[tuple[int, _Item]]:
        numbers = [n for n in self.pending if n <= number] if multiple else [number]
        settled = [(n, self.pending.pop(n)) for n in numbers if n in self.pending]
        self.bytes -= sum(len(item.publication.body) for _, item in settled)
        return settled

    def give_up(self) -> list[_Item]:
        """Forget the channel; returns what was sent on it and never confirmed."""
        lost = list(self.pending.values())
        self.pending.clear()
        self.returned.clear()
        self.channel, self.open, self.number, self.bytes = None, False, 0, 0
        return lost


class Publisher:
    """The role of the publishing connection.  `publish` and `ready` are for every thread."""

    def __init__(self) -> None:
        self._thread: ConnectionThread | None = None
        self._lock = threading.Lock()
        self._inbox: deque[_Item] = deque()
        self._unsettled = 0
        self._unsettled_bytes = 0
        # Only the connection's thread touches these.
        self._connection: Any = None
        self._blocked = False
        self._lanes: dict[str, _Lane] = {}
        self._stop_sending = False
        self.ready = threading.Event()

    def attach(self, thread: ConnectionThread) -> None:
        """Tell which connection carries this role, before it runs."""
        self._thread = thread

    @property
    def backlog(self) -> tuple[int, int]:
        """Messages and bytes that were handed over and have no outcome yet."""
        return self._unsettled, self._unsettled_bytes

    def publish(
        self,
        publication: Publication,
        done: Done,
        *,
        publish_by: float = float("inf"),
        mandatory: bool = True,
    ) -> None:
        """Send a message; never blocks.  `done(outcome, detail)` is called exactly once, on the
        connection's thread, and must not block.  Not sent later than `publish_by` (monotonic).
        """
        with self._lock:
            self._unsettled += 1
            self._unsettled_bytes += len(publication.body)
            self._inbox.append(_Item(publication, done, publish_by, mandatory))
        if self._thread is not None:
            self._thread.wake()

    def take_back(self) -> None:
        """Settle as LATE what was never given to the broker: a stopping bridge releases it."""
        if self._thread is not None:
            self._stop_sending = True
            self._thread.wake()

    # -- on the connection's thread --------------------------------------------------------------

    def opened(self, connection: Any) -> None:
        self._connection, self._blocked = connection, False
        self.ready.set()
        for name in self._lanes:
            self._pump(name)

    def lost(self, why: str) -> None:
        self.ready.clear()
        self._connection = None
        for lane in self._lanes.values():
            for item in lane.give_up():
                self._settle(item, Outcome.UNKNOWN, why)
            while lane.waiting:
                self._settle(lane.waiting.popleft(), Outcome.LATE, why)

    def blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        log.warning("broker blocks publishing" if blocked else "broker takes messages again")
        if blocked:
            self.ready.clear()
        else:
            self.ready.set()
            for name in self._lanes:
                self._pump(name)

    def work(self) -> None:
        with self._lock:
            items, self._inbox = self._inbox, deque()
        touched = dict.fromkeys(item.publication.lane for item in items)
        for item in items:
            self._lanes.setdefault(item.publication.lane, _Lane()).waiting.append(item)
        for name in self._lanes if self._stop_sending else touched:
            self._pump(name)

    def _pump(self, name: str) -> None:
        lane = self._lanes[name]
        if self._stop_sending:
            while lane.waiting:
                self._settle(lane.waiting.popleft(), Outcome.LATE, "stopping")
        if self._blocked or self._connection is None or not lane.waiting:
            return
        if lane.channel is None:
            self._open(name, lane)
        while lane.open and lane.waiting and lane.has_window():
            self._send(lane, lane.waiting.popleft())

    def _open(self, name: str, lane: _Lane) -> None:
        def opened(channel: Any) -> None:
            channel.add_on_close_callback(lambda _, reason: self._closed(name, channel, reason))
            channel.add_on_return_callback(lambda *returned: self._on_return(lane, *returned))
            channel.confirm_delivery(
                lambda frame: self._on_confirm(name, frame.method), lambda _: confirming()
            )

        def confirming() -> None:
            lane.open = True
            self._pump(name)

        lane.channel = self._connection.channel(on_open_callback=opened)

    def _send(self, lane: _Lane, item: _Item) -> None:
        if monotonic() > item.publish_by:
            self._settle(item, Outcome.LATE, "the publish window was over")
            return
        number = lane.number + 1
        publication = item.publication
        try:
            lane.channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.body,
                _properties(publication, number),
                item.mandatory,
            )
        except _ENCODING_ERRORS as error:
            if not lane.channel.is_open:
                self._settle(item, Outcome.UNKNOWN, "the channel closed")
                return
            self._settle(item, Outcome.REFUSED, type(error).__name__)
            return
        lane.number = number
        lane.pending[number] = item
        lane.bytes += len(publication.body)

    def _on_return(self, lane: _Lane, _channel: Any, method: Any, properties: Any, _: Any) -> None:
        # A return comes before the confirm of its message, which then must not count as success.
        if properties.cluster_id:
            lane.returned[int(properties.cluster_id)] = f"{method.reply_code} {method.reply_text}"

    def _on_confirm(self, name: str, method: Any) -> None:
        lane = self._lanes[name]
        acked = isinstance(method, pika.spec.Basic.Ack)
        for number, item in lane.settle_up_to(method.delivery_tag, method.multiple):
            returned = lane.returned.pop(number, None)
            if returned is not None:
                self._settle(item, Outcome.RETURNED, returned)
            elif acked:
                self._settle(item, Outcome.CONFIRMED, "")
            else:
                self._settle(item, Outcome.NACKED, "the queue refuses messages; is it full?")
        self._pump(name)

    def _closed(self, name: str, channel: Any, reason: Any) -> None:
        lane = self._lanes[name]
        if lane.channel is not channel:
            return
        why = f"{getattr(reason, 'reply_code', '')} {getattr(reason, 'reply_text', reason)}".strip()
        if self._connection is not None and not self._connection.is_closing:
            log.warning("publish channel closed", lane=name, reason=why)
        # What still waits shares the fate of what was sent: a channel is opened again with the
        # next message, not in a loop of its own.
        for item in [*lane.give_up(), *lane.waiting]:
            self._settle(item, Outcome.UNKNOWN, why)
        lane.waiting.clear()

    def _settle(self, item: _Item, outcome: Outcome, detail: str) -> None:
        with self._lock:
            self._unsettled -= 1
            self._unsettled_bytes -= len(item.publication.body)
        item.done(outcome, detail)


def _properties(publication: Publication, number: int) -> Any:
    expiration = publication.expiration_ms
    return pika.BasicProperties(
        content_type=publication.content_type,
        content_encoding=publication.content_encoding,
        headers=dict(publication.headers),
        delivery_mode=2,
        priority=publication.priority,
        correlation_id=publication.correlation_id,
        reply_to=publication.reply_to,
        expiration=None if expiration is None else str(expiration),
        message_id=publication.message_id,
        timestamp=publication.timestamp,
        type=publication.type,
        app_id=publication.app_id,
        # A return names no publish number, and two copies of a message may be under way: this
        # property, reserved and unused in AMQP 0-9-1, carries the number there and back.
        cluster_id=str(number),
    )
