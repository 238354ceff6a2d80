"""One AMQP connection in a thread of its own, reconnecting until it is stopped.

Nothing but this thread touches the connection or its channels.  Other threads leave work in a
queue of their own and call `wake`; many calls make one wake-up.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import pika
import structlog
from pika.adapters.select_connection import IOLoop
from pika.exceptions import AMQPError

from bridge.broker.options import NOT_REACHED, BrokerOptions, describe
from bridge.clock import monotonic
from bridge.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

MAX_PAUSE_SECONDS = 30.0
CLOSE_SECONDS = 3.0
# A connection that lived this long was a good one: the next pause starts small again.
GOOD_SECONDS = 5.0


class Role(Protocol):
    """What a connection is for.  Every method runs on the connection's own thread.

    `lost` ends every attempt, opened or not; `final` is True for the last one.
    """

    def opened(self, connection: pika.SelectConnection) -> None: ...
    def lost(self, why: str, final: bool) -> None: ...
    def work(self) -> None: ...
    def blocked(self, blocked: bool) -> None: ...


class ConnectionThread:
    """Keeps one connection open for a role, with growing pauses between attempts."""

    def __init__(
        self, name: str, options: BrokerOptions, role: Role, before: Callable[[], None]
    ) -> None:
        self.name = name
        self._options = options
        self._role = role
        self._before = before
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._lock = threading.Lock()
        self._connection: pika.SelectConnection | None = None
        self._opened_at: float | None = None
        self._woken = False
        self._told: str | None = None
        self.problem: str | None = "not connected yet"

    def run(self) -> None:
        """Connect, work, reconnect; returns once `stop` was called and the connection is closed.

        `before` runs ahead of every attempt, in this thread; it declares what is missing.
        """
        attempt = 0
        while not self._stopping.is_set():
            lived = self._try(attempt)
            self._role.lost(self.problem or "closed", False)
            attempt = 1 if lived else attempt + 1
            ceiling = min(MAX_PAUSE_SECONDS, 0.2 * 2 ** min(attempt, 10))
            self._rest(random.uniform(0.05, ceiling))  # noqa: S311 (jitter)
        self._role.lost("stopped", True)

    def wake(self, within: float = 0.0) -> None:
        """Have `role.work` called `within` so many seconds on the connection's thread, `role.lost`
        where there is no connection; cheap when already due, though it may be due later.
        """
        with self._lock:
            if self._connection is None:
                self._nudged.set()
                return
            if self._woken:
                return
            self._woken = True
            loop, work = self._connection.ioloop, self._work
            loop.add_callback_threadsafe(partial(loop.call_later, within, work) if within else work)

    def stop(self) -> None:
        """Have the connection closed; `run` returns soon after."""
        self._stopping.set()
        self._nudged.set()
        with self._lock:
            if self._connection is not None:
                self._connection.ioloop.add_callback_threadsafe(self._close)

    # -- on the connection's thread --------------------------------------------------------------

    def _try(self, attempt: int) -> bool:
        """One attempt and, where it succeeds, the connection's whole life; True if that was long
        enough to start the next pauses small again.
        """
        self._opened_at = None
        try:
            self._before()
            if not self._stopping.is_set():
                # Made anew each time: a password or a certificate may have been renewed.
                addresses = self._options.parameters(f"external-task-bridge {self.name}")
                self._connect(addresses[attempt % len(addresses)])
        except BrokerUnavailable as error:
            self._say(str(error))
        except NOT_REACHED as error:
            self._say(describe(error))
        return self._opened_at is not None and monotonic() - self._opened_at > GOOD_SECONDS

    def _rest(self, seconds: float) -> None:
        until = monotonic() + seconds
        while not self._stopping.is_set() and (left := until - monotonic()) > 0:
            if self._nudged.wait(left):
                self._nudged.clear()
                self._role.lost(self.problem or "closed", False)

    def _connect(self, parameters: pika.URLParameters) -> None:
        connection = pika.SelectConnection(
            parameters,
            custom_ioloop=_Loop(),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
        )
        connection.add_on_connection_blocked_callback(lambda *_: self._role.blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._role.blocked(False))
        with self._lock:
            self._connection = connection
            self._woken = False
        if self._stopping.is_set():
            connection.ioloop.call_later(0, self._close)
        try:
            self._loop(connection)
        finally:
            with self._lock:
                self._connection = None
            connection.ioloop.close()

    def _loop(self, connection: pika.SelectConnection) -> None:
        try:
            connection.ioloop.start()
        except AMQPError as error:
            # A role used a channel in the moment it went: nothing is known to be whole any more.
            self._say(describe(error))
            connection.ioloop.call_later(0, self._close)
            connection.ioloop.start()

    def _on_open(self, connection: Any) -> None:
        self._opened_at = monotonic()
        self.problem = self._told = None
        log.info("broker connected", connection=self.name, host=connection.params.host)
        self._role.opened(connection)
        self._work()

    def _on_open_error(self, connection: Any, error: BaseException | str) -> None:
        self._say(describe(error))
        connection.ioloop.stop()

    def _on_close(self, connection: Any, reason: BaseException) -> None:
        why = describe(reason)
        if not self._stopping.is_set():
            self._say(why)
        self.problem = why
        connection.ioloop.stop()

    def _work(self) -> None:
        with self._lock:
            self._woken = False
        connection = self._connection
        if connection is not None and connection.is_open:
            self._role.work()

    def _close(self) -> None:
        connection = self._connection
        if connection is None:
            return
        # A blocked or frozen broker never answers a close: leave after a while all the same.
        connection.ioloop.call_later(CLOSE_SECONDS, connection.ioloop.break_off)
        connection.ioloop.call_later(CLOSE_SECONDS + 1, connection.ioloop.stop)
        if connection.is_open:
            if self._woken:
                self._work()  # what was to be done within a moment
            connection.close()
        elif not connection.is_closing:
            connection.ioloop.break_off()  # pika fails on a close while it opens

    def _say(self, why: str) -> None:
        self.problem = why
        if why != self._told:
            self._told = why
            log.warning("broker not connected", connection=self.name, reason=why)


class _Loop(IOLoop):  # type: ignore[misc]  # pika is untyped here
    """Remembers the connection's socket in order to break it off, which pika cannot be asked."""

    def __init__(self) -> None:
        super().__init__()
        self._fds: set[int] = set()

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        self._fds.add(fd)
        super().add_handler(fd, handler, events)

    def remove_handler(self, fd: int) -> None:
        self._fds.discard(fd)
        super().remove_handler(fd)

    def break_off(self) -> None:
        for fd in self._fds:
            with socket.socket(fileno=os.dup(fd)) as own, suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
