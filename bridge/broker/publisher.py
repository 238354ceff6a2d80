"""Publish, and learn what became of it.  Persistent, mandatory, confirmed, pipelined.

`publish` hands a message to the connection's thread; `done` is called there exactly once with the
outcome.  Each lane (a topic, mostly) has a channel of its own, so that a channel that the broker
closes takes only its own lane's messages with it.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pika
import structlog

from bridge.broker.connection import ConnectionThread
from bridge.broker.lane import Done, Item, Lane, Outcome
from bridge.broker.properties import CODEC_ERRORS, properties_of
from bridge.clock import monotonic
from bridge.messages import Publication

log = structlog.get_logger(__name__)

NEVER = float("inf")
# max_message_size: the broker closes the channel and names the size of the message it refuses.
_TOO_LARGE = re.compile(r"message size (\d+)")
_NACKED = "the queue refuses messages: it is full, or has no leader"
# A lane whose channel the broker closes again and again is no hot loop.
REOPEN_SECONDS = 0.1


class Publisher:
    """The role of the publishing connection.  `publish` and `ready` are for every thread."""

    def __init__(self) -> None:
        self._thread: ConnectionThread | None = None
        self._lock = threading.Lock()
        self._inbox: deque[Item] = deque()
        self._unsettled = 0
        self._unsettled_bytes: dict[str, int] = {}
        # Only the connection's thread touches these.
        self._connection: Any = None
        self._blocked = False
        self._lanes: dict[str, Lane] = {}
        self._taking_back = False
        self.ready = threading.Event()  # connected, and RabbitMQ takes messages
        self.connected = threading.Event()  # what was sent may still be confirmed

    def attach(self, thread: ConnectionThread) -> None:
        """Tell which connection carries this role, before it runs."""
        self._thread = thread

    @property
    def backlog(self) -> int:
        """Messages that were handed over and have no outcome yet."""
        return self._unsettled

    def unsettled(self, lane: str) -> int:
        """Bytes of a lane that were handed over and have no outcome yet."""
        return self._unsettled_bytes.get(lane, 0)

    def publish(
        self,
        publication: Publication,
        done: Done,
        *,
        publish_by: float = NEVER,
        mandatory: bool = True,
    ) -> None:
        """Send a message; never blocks.  `done(outcome, detail)` is called exactly once, on the
        connection's thread, and must not block.  Not sent later than `publish_by` (monotonic);
        what was not sent when a connection is lost waits for the next one.
        """
        item = Item(publication, done, publish_by, mandatory)
        with self._lock:
            self._count(item, 1)
            self._inbox.append(item)
        if self._thread is not None:
            self._thread.wake()

    def take_back(self) -> None:
        """Settle as LATE what has a `publish_by` and was never given to the broker, now and from
        now on: a stopping bridge releases it.  The rest still goes out.
        """
        self._taking_back = True
        if self._thread is not None:
            self._thread.wake()

    # -- on the connection's thread --------------------------------------------------------------

    def opened(self, connection: Any) -> None:
        self._connection, self._blocked = connection, False
        self.connected.set()
        self.ready.set()
        self._pump_all()

    def lost(self, why: str, final: bool) -> None:
        self.ready.clear()
        self.connected.clear()
        self._connection = None
        self._sort_inbox()
        for lane in self._lanes.values():
            for item in lane.give_up():
                self._settle(item, Outcome.UNKNOWN, why)
            self._settle_unsent(lane, self._is_late if not final else lambda _: why)

    def blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        log.warning("broker blocks publishing" if blocked else "broker takes messages again")
        if blocked:
            self.ready.clear()
        else:
            self.ready.set()
            self._pump_all()

    def work(self) -> None:
        touched = self._sort_inbox()
        for name in self._lanes if self._taking_back else touched:
            self._pump(name)

    def _sort_inbox(self) -> list[str]:
        """Hand what came in to its lanes; returns their names."""
        with self._lock:
            items, self._inbox = self._inbox, deque()
        for item in items:
            self._lanes.setdefault(item.publication.lane, Lane()).waiting.append(item)
        return list(dict.fromkeys(item.publication.lane for item in items))

    def _pump_all(self) -> None:
        for name in self._lanes:
            self._pump(name)

    def _pump(self, name: str) -> None:
        lane, connection = self._lanes[name], self._connection
        if self._taking_back:
            self._settle_unsent(lane, self._is_late)
        if self._blocked or connection is None or not connection.is_open or not lane.waiting:
            return
        if lane.channel is None:
            self._open(name, lane)
        while lane.open and lane.channel.is_open and lane.may_send():
            self._send(lane, lane.waiting.popleft())

    def _open(self, name: str, lane: Lane) -> None:
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

    def _send(self, lane: Lane, item: Item) -> None:
        late = self._is_late(item)
        if late is not None:
            self._settle(item, Outcome.LATE, late)
            return
        publication = item.publication
        try:
            lane.channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.body,
                properties_of(publication, lane.next_number),
                item.mandatory,
            )
        except CODEC_ERRORS as error:
            # pika encodes before it writes: of a refused message nothing went out.
            self._settle(item, Outcome.REFUSED, type(error).__name__)
        else:
            lane.sent(item)

    def _on_return(self, lane: Lane, _channel: Any, method: Any, properties: Any, _: Any) -> None:
        # A return comes before the confirm of its message, which then must not count as success.
        if not (properties.cluster_id or "").isdigit():
            lane.channel.close(320, "a return that cannot be told")  # all of it is unknown then
            return
        lane.returned[int(properties.cluster_id)] = f"{method.reply_code} {method.reply_text}"

    def _on_confirm(self, name: str, method: Any) -> None:
        lane = self._lanes[name]
        acked = isinstance(method, pika.spec.Basic.Ack)
        for number, item in lane.settle(method.delivery_tag, method.multiple):
            returned = lane.returned.pop(number, None)
            if returned is not None:
                self._settle(item, Outcome.RETURNED, returned)
            elif acked:
                self._settle(item, Outcome.CONFIRMED, "")
            else:
                lane.refused = True
                self._settle(item, Outcome.NACKED, _NACKED)
        if lane.worn_out:
            self._retire(lane)
        self._pump(name)

    def _retire(self, lane: Lane) -> None:
        """Leave a channel on which a queue has refused a message: one that met a queue without a
        leader goes on refusing after the election (RabbitMQ 3.10).
        """
        channel = lane.channel
        lane.give_up()
        if channel.is_open:
            channel.close()

    def _closed(self, name: str, channel: Any, reason: Any) -> None:
        lane, connection = self._lanes[name], self._connection
        if lane.channel is not channel or connection is None or not connection.is_open:
            return  # the connection goes: `lost` settles for all lanes
        why = f"{getattr(reason, 'reply_code', '')} {getattr(reason, 'reply_text', reason)}".strip()
        log.warning("publish channel closed", lane=name, reason=why)
        oversize = _TOO_LARGE.search(why)
        for item in lane.give_up():
            refused = oversize is not None and item.size == int(oversize[1])
            self._settle(item, Outcome.REFUSED if refused else Outcome.UNKNOWN, why)
        if lane.waiting:
            connection.ioloop.call_later(REOPEN_SECONDS, lambda: self._pump(name))

    # -- outcomes --------------------------------------------------------------------------------

    def _is_late(self, item: Item) -> str | None:
        """Why an item must not be sent any more; None: it may."""
        if self._taking_back and item.publish_by != NEVER:
            return "stopping"
        return "the publish window was over" if monotonic() > item.publish_by else None

    def _settle_unsent(self, lane: Lane, why: Callable[[Item], str | None]) -> None:
        waiting, lane.waiting = lane.waiting, deque()
        for item in waiting:
            reason = why(item)
            if reason is None:
                lane.waiting.append(item)
            else:
                self._settle(item, Outcome.LATE, reason)

    def _settle(self, item: Item, outcome: Outcome, detail: str) -> None:
        item.done(outcome, detail)
        with self._lock:  # after `done`: a stop waits for the backlog, and so for what follows
            self._count(item, -1)

    def _count(self, item: Item, by: int) -> None:
        lane = item.publication.lane
        self._unsettled += by
        self._unsettled_bytes[lane] = self._unsettled_bytes.get(lane, 0) + by * item.size
