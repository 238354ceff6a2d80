"""A TCP relay between a worker and RabbitMQ, which can hold back and cut.  Changes nothing on the
way, and understands only as much AMQP as it takes to stop right before an answer.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from bridge.conform.wire import Frame, Frames

_CHUNK = 65536
_CONNECT_SECONDS = 5.0

IsAnswer = Callable[[str, str], bool]


class _Link:
    """One connection of the worker, and the relay's own to RabbitMQ."""

    def __init__(self, worker: socket.socket, broker: socket.socket) -> None:
        self.worker, self.broker = worker, broker
        self.cut = False

    def close(self) -> None:
        self.cut = True
        for end in (self.worker, self.broker):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay:
    """Listens on a port of its own.  `is_answer` tells an answer's exchange and routing key.

    `used` once a connection was taken.  `held` is set once an answer is being held back; it was to
    go to `last_exchange`.  `settled` and `requeued` count what the worker told the broker of its
    messages since `forget`.
    """

    def __init__(self, host: str, port: int, is_answer: IsAnswer) -> None:
        self._target = (host, port)
        self._is_answer = is_answer
        self._changed = threading.Condition()
        self._links: set[_Link] = set()
        self._hold_answers = self._hold_deliveries = False
        self._listener: socket.socket
        self.used = False
        self.held = threading.Event()
        self.last_exchange = ""
        self.settled = self.requeued = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, name="relay", daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    @property
    def port(self) -> int:
        """Where the worker finds its broker."""
        port: int = self._listener.getsockname()[1]
        return port

    def hold_answers(self) -> None:
        """Let nothing pass on a connection from the moment in which an answer would."""
        with self._changed:
            self.held.clear()
            self._hold_answers = True

    def hold_deliveries(self) -> None:
        """Let nothing pass to the worker: what the broker delivers, it keeps unacknowledged."""
        with self._changed:
            self._hold_deliveries = True

    def release(self) -> None:
        """Let everything pass, what was held back first."""
        with self._changed:
            self._hold_answers = self._hold_deliveries = False
            self._changed.notify_all()

    def cut(self) -> None:
        """Close every connection that is open now; what was held back on it is lost."""
        with self._changed:
            for link in self._links:
                link.close()
            self._changed.notify_all()

    def forget(self) -> None:
        """Begin to count anew."""
        self.settled = self.requeued = 0

    # -- threads ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._target, _CONNECT_SECONDS)
            except OSError:
                worker.close()
                continue
            broker.settimeout(None)
            self._join(_Link(worker, broker))

    def _join(self, link: _Link) -> None:
        for end in (link.worker, link.broker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            self._links.add(link)
            self.used = True
        to_broker = threading.Thread(target=self._to_broker, args=(link,), daemon=True)
        to_broker.start()
        threading.Thread(target=self._to_worker, args=(link, to_broker), daemon=True).start()

    def _to_broker(self, link: _Link) -> None:
        frames = Frames()
        with suppress(OSError):
            while data := link.worker.recv(_CHUNK):
                for frame in frames.feed(data):
                    if not self._may_pass(link, frame):
                        return
                    link.broker.sendall(frame.raw)
        with self._changed:
            link.close()
            self._changed.notify_all()

    def _to_worker(self, link: _Link, other: threading.Thread) -> None:
        with suppress(OSError):
            while data := link.broker.recv(_CHUNK):
                with self._changed:
                    self._changed.wait_for(lambda: link.cut or not self._hold_deliveries)
                link.worker.sendall(data)
        with self._changed:
            link.close()
            self._links.discard(link)
            self._changed.notify_all()
        other.join()
        link.worker.close()
        link.broker.close()

    def _may_pass(self, link: _Link, frame: Frame) -> bool:
        """Whether the frame goes on, now or after a wait; False once the connection was cut."""
        to = frame.destination
        with self._changed:
            self.settled += frame.settles
            self.requeued += frame.requeues
            if to is not None and self._hold_answers and self._is_answer(*to):
                self.last_exchange = to[0]
                self.held.set()
                self._changed.wait_for(lambda: link.cut or not self._hold_answers)
            return not link.cut
