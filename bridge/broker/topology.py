"""The exchanges and queues that the bridge needs: what they are, and making sure they exist.

Never redefines what is there: an existing queue with other arguments is used as it is, and what
differs is logged once.  Works on a short-lived connection of its own, because a refused
declaration closes its channel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pika
import structlog
from pika.exceptions import AMQPError, ChannelClosedByBroker

from bridge.broker.options import NOT_REACHED, BrokerOptions, describe
from bridge.clock import monotonic
from bridge.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

Mode = Literal["missing", "passive", "never"]
# Publisher and consumer connect at the same time: one of them looks, the other relies on it.
FRESH_SECONDS = 2.0
LOOK_SECONDS = 60.0
TROUBLE_SECONDS = 5.0


@dataclass(frozen=True)
class Exchange:
    """A durable exchange; `type` None: somebody else's, only looked for."""

    name: str
    type: str | None
    lane: str = ""

    @property
    def label(self) -> str:
        """A queue and an exchange may have the same name."""
        return f"exchange {self.name}"


@dataclass(frozen=True)
class Queue:
    """A durable queue with its arguments, bound to (exchange, routing key) pairs."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bindings: tuple[tuple[str, str], ...] = ()
    lane: str = ""

    @property
    def label(self) -> str:
        """A queue and an exchange may have the same name."""
        return f"queue {self.name}"


class Topology:
    """Makes sure that everything the bridge needs exists.  Safe to use from every thread."""

    def __init__(self, options: BrokerOptions, mode: Mode, parts: Iterable[Exchange | Queue]):
        self._options = options
        self._mode = mode
        self._parts = tuple(parts)
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._different: set[str] = set()
        self._told: set[str] = set()
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> dict[str, str]:
        """What cannot be had of the parts, as `queue NAME` or `exchange NAME`, and why."""
        labels = {part.label for part in self._parts}
        return {label: why for label, why in self._problems.copy().items() if label in labels}

    def expect(self, parts: Iterable[Exchange | Queue]) -> None:
        """These are the parts from now on; whoever looks next declares what is missing."""
        self._parts = tuple(parts)
        self._looked = float("-inf")

    def ensure(self) -> None:
        """Look for every part and declare what is missing, as far as the mode says.  What cannot
        be had is in `problems`.  Raises BrokerUnavailable where no broker answers.
        """
        with self._lock:
            if monotonic() - self._looked < FRESH_SECONDS:
                return
            self._ensure_all()

    def ensure_again(self) -> float:
        """The same, however fresh the last look is: something has gone missing since, or may have.
        Returns the seconds after which to look again.  No broker that answers is no error: whoever
        reconnects looks.
        """
        try:
            with self._lock:
                self._ensure_all()
        except BrokerUnavailable as error:
            log.debug("queues and exchanges not looked at", reason=str(error))
        return TROUBLE_SECONDS if self.problems else LOOK_SECONDS

    def ensure_lane(self, lane: str) -> bool:
        """The same for one topic's parts; True if all of them are there."""
        parts = [part for part in self._parts if part.lane == lane]
        with self._lock:
            self._ensure(parts)
        return not any(part.label in self.problems for part in parts)

    def ensure_queue(self, queue: str) -> None:
        """The same for one queue."""
        with self._lock:
            self._ensure([part for part in self._parts if part.name == queue])

    def consumers(self, queue: str) -> int:
        """How many consumers a queue has now; 0 where it does not exist.  Raises
        BrokerUnavailable where no broker answers.
        """
        try:
            with _Session(self._options) as session:
                return int(session.queue(queue, passive=True).method.consumer_count)
        except ChannelClosedByBroker:
            return 0
        except AMQPError as error:
            raise BrokerUnavailable(describe(error)) from error

    def _ensure_all(self) -> None:
        parts = self._parts
        self._ensure(parts)
        if parts is self._parts:
            self._looked = monotonic()

    def _ensure(self, parts: Iterable[Exchange | Queue]) -> None:
        if self._mode == "never":
            return
        try:
            with _Session(self._options) as session:
                for part in parts:
                    self._note(part, self._part(session, part))
        except AMQPError as error:
            raise BrokerUnavailable(describe(error)) from error

    def _note(self, part: Exchange | Queue, why: str | None) -> None:
        if why is None:
            self._problems.pop(part.label, None)
        elif self._problems.get(part.label) != why:
            self._problems[part.label] = why
            log.error("not usable at the broker", name=part.name, reason=why)

    def _part(self, session: _Session, part: Exchange | Queue) -> str | None:
        if isinstance(part, Exchange):
            return self._exchange(session, part)
        return self._queue(session, part)

    def _exchange(self, session: _Session, part: Exchange) -> str | None:
        look, declare = partial(session.exchange, part.name, None), None
        if part.type is not None and self._mode == "missing":
            declare = partial(session.exchange, part.name, part.type)
        return self._look(part, look, declare)

    def _queue(self, session: _Session, part: Queue) -> str | None:
        look, declare = partial(session.queue, part.name, passive=True), None
        if self._mode == "missing":
            declare = partial(session.queue, part.name, part.arguments)
        why = self._look(part, look, declare)
        if why is None and self._mode == "missing":
            return self._bind(session, part)
        return why

    def _bind(self, session: _Session, part: Queue) -> str | None:
        for exchange, key in part.bindings:
            refused = _refusal(partial(session.bind, part.name, exchange, key))
            if refused is None:
                continue
            why = f"binding to {exchange!r}: {describe_close(refused)}"
            if refused.reply_code != 403:
                return why
            if why not in self._told:  # whoever withholds the right has made the binding, or not
                self._told.add(why)
                log.warning("not bound by us", name=part.name, reason=why)
        return None

    def _look(
        self,
        part: Exchange | Queue,
        look: Callable[[], Any],
        declare: Callable[[], Any] | None,
    ) -> str | None:
        """None if the part is there now; else the broker's words."""
        forbidden: ChannelClosedByBroker | None = None
        if part.label in self._different:
            if _refusal(look) is None:
                return None
            self._different.discard(part.label)  # it was deleted: the next one may be ours
        if declare is not None:
            refused = _refusal(declare)
            if refused is None:
                return None
            if refused.reply_code == 406:
                self._different.add(part.label)
                log.warning("used as it is", name=part.name, differs=refused.reply_text)
            elif refused.reply_code == 403:
                forbidden = refused  # ours to declare or not, it may be there
            else:
                return describe_close(refused)
        refused = _refusal(look)
        return None if refused is None else describe_close(forbidden or refused)


def _refusal(action: Callable[[], Any]) -> ChannelClosedByBroker | None:
    try:
        action()
    except ChannelClosedByBroker as refused:
        return refused
    return None


def describe_close(error: ChannelClosedByBroker) -> str:
    """The broker's own words, in one line."""
    return f"{error.reply_code} {error.reply_text}"


class _Session:
    """A short-lived connection whose channel is opened anew after each refusal."""

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        self._connection: Any = None
        self._channel: Any = None

    def __enter__(self) -> _Session:
        error: Exception | None = None
        try:
            addresses = self._options.parameters("external-task-bridge topology")
        except OSError as unreadable:  # a password or certificate file, while it is renewed
            raise BrokerUnavailable(describe(unreadable)) from unreadable
        for parameters in addresses:
            try:
                self._connection = pika.BlockingConnection(parameters)
            except NOT_REACHED as failed:
                error = failed
            else:
                return self
        raise BrokerUnavailable(describe(error or "no address")) from error

    def __exit__(self, *_: object) -> None:
        try:
            self._connection.close()
        except NOT_REACHED:
            log.debug("topology connection was gone already")

    def exchange(self, name: str, kind: str | None) -> Any:
        if kind is None:
            return self._open().exchange_declare(name, passive=True)
        return self._open().exchange_declare(name, kind, durable=True)

    def queue(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, passive: bool = False
    ) -> Any:
        if passive:
            return self._open().queue_declare(name, passive=True)
        return self._open().queue_declare(name, durable=True, arguments=dict(arguments or {}))

    def bind(self, queue: str, exchange: str, key: str) -> None:
        self._open().queue_bind(queue, exchange, key)

    def _open(self) -> Any:
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        return self._channel
