"""A TCP proxy that a test can cut, or make swallow what the server says."""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK = 65536


class Proxy:
    """Forwards to the server of an AMQP URL; `url` is the way through it.

    `cut` breaks every connection.  While `mute` is set, nothing that the server says arrives;
    it arrives when `mute` is cleared.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        port = self._listener.getsockname()[1]
        userinfo = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{userinfo}@127.0.0.1:{port}").geturl()
        self.mute = False
        self.accepted = 0
        self._cut = False
        self._stopping = False
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.refuse()

    def cut(self) -> None:
        """Break every connection that is open now; new ones are taken."""
        self._cut = True

    def refuse(self) -> None:
        """Break every connection and take no new ones, as a server that is gone."""
        self._stopping = True
        self._thread.join(10)

    def _run(self) -> None:
        with self._listener, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping:
                ready = selector.select(0.005)
                if self._cut:
                    self._close_all(selector)
                    self._cut = False
                    continue
                for key, _ in ready:
                    self._serve(selector, key.fileobj)  # type: ignore[arg-type]
                if self.mute:
                    threading.Event().wait(0.005)  # what is held back stays readable
            self._close_all(selector)

    def _serve(self, selector: selectors.BaseSelector, ready: socket.socket) -> None:
        if ready is self._listener:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._target)
            self.accepted += 1
            self._peers |= {client: server, server: client}
            self._clients.add(client)
            for end in (client, server):
                selector.register(end, selectors.EVENT_READ)
        elif ready in self._peers and (ready in self._clients or not self.mute):
            self._forward(selector, ready)

    def _forward(self, selector: selectors.BaseSelector, source: socket.socket) -> None:
        try:
            data = source.recv(CHUNK)
            if data:
                self._peers[source].sendall(data)
                return
        except OSError:
            data = b""
        self._close(selector, source)

    def _close_all(self, selector: selectors.BaseSelector) -> None:
        for client in list(self._clients):
            self._close(selector, client)

    def _close(self, selector: selectors.BaseSelector, end: socket.socket) -> None:
        other = self._peers.pop(end)
        self._peers.pop(other)
        for each in (end, other):
            selector.unregister(each)
            self._clients.discard(each)
            each.close()
