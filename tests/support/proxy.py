"""A TCP proxy in front of a server, whose network a test breaks and heals while it runs.

Forwards bytes and breaks connections; understands neither AMQP nor HTTP, but finds the bytes that
a test names.  A thread of its own does all the work: every method may be called from any thread and
has taken effect when it returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CHUNK = 65536
COMMAND_SECONDS = 20.0


class Way(Enum):
    """A direction of a connection."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class End(Enum):
    """What becomes of a connection that a fault meets."""

    RESET = "reset"  # both sides get an RST
    CLOSE = "close"  # both sides get a FIN
    SILENCE = "silence"  # it stays open, and nothing passes either way until `heal`


@dataclass(frozen=True)
class Strike:
    """Ends the first connection that carries `request` and then an answer that holds `answer`.
    `passes`: so many bytes of the answer arrive (more, if `answer` comes later in it), the server
    has therefore acted; None: the connection ends before the server hears of the request.
    """

    request: bytes
    end: End = End.RESET
    answer: bytes = b""
    passes: int | None = 0
    armed: threading.Event = field(default_factory=threading.Event)
    struck: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Rules:
    """What happens to the bytes of one way, on every connection."""

    hole: bool = False
    delay_ms: int = 0
    sliced: bool = False
    cut_after: int | None = None


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        # Where each way comes from and where it goes.
        self.ends = {Way.TO_SERVER: (client, server), Way.TO_CLIENT: (server, client)}
        self.left: dict[Way, int | None] = {}
        self.finished: set[Way] = set()
        self.silent = False
        self.armed: Strike | None = None
        self.answer = bytearray()  # so far, to the request that armed it
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def end(self, how: End) -> None:
        if how is End.SILENCE:
            self.silent = True
        elif not self.ended.done():
            self.ended.set_result(how)

    def close(self, how: End) -> None:
        for end, _ in self.ends.values():
            if how is End.RESET:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class Proxy:
    """Forwards to the server of an AMQP or HTTP URL; `url` is the way through it.

    Faults apply to the connections that are open and to new ones, until `heal`.  What a black hole
    swallowed arrives when it is healed, as TCP would send it again; the proxy itself keeps one
    chunk of 64 KiB a way, then the sender's buffers fill up.  Connecting succeeds even then.
    `accepted` counts connections, `broken` those that a fault ended.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5672)
        # Never listens: it keeps the port while connections are refused.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._address = self._holder.getsockname()
        userinfo, at, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{self._address[1]}").geturl()
        self.accepted = self.broken = 0
        self._rules = {way: _Rules() for way in Way}
        self._strikes: list[Strike] = []
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._do(self._leave(End.CLOSE))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(COMMAND_SECONDS)
        self._loop.close()
        self._holder.close()

    # -- faults ----------------------------------------------------------------------------------

    def black_hole(self, *ways: Way) -> None:
        """Nothing passes on these ways (none named: both), neither bytes nor a FIN nor an RST."""
        self._change(ways, lambda rules: setattr(rules, "hole", True))

    @property
    def mute(self) -> bool:
        """The black hole to the client as a switch: nothing that the server says arrives."""
        return self._rules[Way.TO_CLIENT].hole

    @mute.setter
    def mute(self, on: bool) -> None:
        self._change((Way.TO_CLIENT,), lambda rules: setattr(rules, "hole", on))

    def delay(self, ms: int, *ways: Way) -> None:
        """What is read on these ways (none named: both) is passed on so much later."""
        self._change(ways, lambda rules: setattr(rules, "delay_ms", ms))

    def slice(self, *ways: Way) -> None:
        """Bytes pass one by one on these ways (none named: both)."""
        self._change(ways, lambda rules: setattr(rules, "sliced", True))

    def cut_after(self, count: int, way: Way) -> None:
        """Every connection is closed once so many bytes have passed on the way, counted from now,
        and from its beginning on a new connection.  0: with the first byte, which does not pass.
        """

        def cut(rules: _Rules) -> None:
            rules.cut_after = count
            for connection in self._connections:
                connection.left[way] = count

        self._change((way,), cut)

    def strike(self, strike: Strike) -> Strike:
        """Wait for a request and end its connection, once; returns the strike."""
        self._strikes.append(strike)
        return strike

    def half_close(self, way: Way) -> None:
        """Every open connection gets a FIN on this way; the other way goes on."""

        async def finish() -> None:
            for connection in self._connections:
                connection.finished.add(way)
                with suppress(OSError):
                    connection.ends[way][1].shutdown(socket.SHUT_WR)

        self._do(finish())

    def cut(self) -> None:
        """Close every connection that is open now; new ones are taken."""
        self._do(self._end_all(End.CLOSE))

    def reset(self) -> None:
        """Answer every connection that is open now with an RST; new ones are taken."""
        self._do(self._end_all(End.RESET))

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as a server that is gone."""
        self._do(self._leave(End.RESET))

    def heal(self) -> None:
        """Forward everything from now on.  What was closed stays closed."""

        async def heal() -> None:
            self._strikes.clear()
            self._rules = {way: _Rules() for way in Way}
            for connection in self._connections:
                connection.left.clear()
                connection.silent, connection.armed = False, None
            if self._listening is None:
                listener = socket.create_server(self._address, reuse_port=True)
                self._listening = asyncio.create_task(self._listen(listener))
            async with self._changed:
                self._changed.notify_all()

        self._do(heal())

    # -- commands --------------------------------------------------------------------------------

    def _do(self, command: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(command, self._loop).result(COMMAND_SECONDS)

    def _change(self, ways: tuple[Way, ...], change: Callable[[_Rules], None]) -> None:
        async def apply() -> None:
            for way in ways or Way:
                change(self._rules[way])
            async with self._changed:
                self._changed.notify_all()

        self._do(apply())

    async def _end_all(self, how: End) -> None:
        tasks = list(self._connections.values())
        for connection in self._connections:
            connection.end(how)
            self.broken += 1
        if tasks:
            await asyncio.wait(tasks)

    async def _leave(self, how: End) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None
        await self._end_all(how)

    # -- forwarding ------------------------------------------------------------------------------

    async def _listen(self, listener: socket.socket) -> None:
        with listener:
            listener.setblocking(False)
            while True:
                client, _ = await self._loop.sock_accept(listener)
                self.accepted += 1
                try:
                    server = socket.create_connection(self._target, 5)
                except OSError:
                    client.close()
                    continue
                connection = _Connection(client, server)
                connection.left = {w: r.cut_after for w, r in self._rules.items()}
                self._connections[connection] = asyncio.create_task(self._carry(connection))

    async def _carry(self, connection: _Connection) -> None:
        for end, _ in connection.ends.values():
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pumps = [asyncio.create_task(self._pump(connection, way)) for way in Way]
        both = asyncio.gather(*pumps)
        either: list[asyncio.Future[Any]] = [both, connection.ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        how = connection.ended.result() if connection.ended.done() else End.CLOSE
        # Each of them: one that still waited would steal the events of the next socket so numbered.
        for pump in pumps:
            pump.cancel()
        outcomes = await asyncio.gather(both, *pumps, return_exceptions=True)
        if any(isinstance(outcome, OSError) for outcome in outcomes):
            how = End.RESET
        connection.close(how)
        del self._connections[connection]

    async def _pump(self, connection: _Connection, way: Way) -> None:
        source, sink = connection.ends[way]
        while data := await self._read(connection, way, source):
            passing, end = self._judged(connection, way, data)
            await self._pass(connection, way, data[:passing])
            if end is not None:
                self.broken += 1
                connection.end(end)
                if end is not End.SILENCE:
                    await asyncio.Event().wait()  # until `_carry` cancels us
                await self._pass(connection, way, data[passing:])
        if way not in connection.finished:
            sink.shutdown(socket.SHUT_WR)

    async def _read(self, connection: _Connection, way: Way, source: socket.socket) -> bytes:
        """The next bytes, when their time has come; a FIN or an RST is news like any other."""
        try:
            data = await self._loop.sock_recv(source, CHUNK)
        except OSError:
            await self._due(connection, way)
            raise
        await self._due(connection, way)
        return data

    async def _due(self, connection: _Connection, way: Way) -> None:
        await asyncio.sleep(self._rules[way].delay_ms / 1000)
        await self._passable(connection, way)

    def _judged(self, connection: _Connection, way: Way, data: bytes) -> tuple[int, End | None]:
        """How many of the bytes pass, and what the connection then ends in."""
        if way is Way.TO_SERVER:
            if connection.answer:  # the one before is complete
                connection.armed = None
                connection.answer.clear()
            for strike in self._strikes:
                if strike.request in data:
                    if strike.passes is None:
                        return 0, self._fallen(strike)
                    connection.armed = strike
                    strike.armed.set()
        elif (armed := connection.armed) in self._strikes and armed is not None:
            passed = len(connection.answer)
            connection.answer += data
            if armed.answer in connection.answer:
                return max(0, (armed.passes or 0) - passed), self._fallen(armed)
        left = connection.left.get(way)
        if left is not None:
            connection.left[way] = left - len(data)
            if len(data) >= left:
                return left, End.CLOSE
        return len(data), None

    def _fallen(self, strike: Strike) -> End:
        self._strikes.remove(strike)
        strike.struck.set()
        return strike.end

    async def _pass(self, connection: _Connection, way: Way, data: bytes) -> None:
        """Send the bytes on; after a half-close nobody is left to take them."""
        while data and way not in connection.finished:
            await self._passable(connection, way)
            size = 1 if self._rules[way].sliced else len(data)
            piece, data = data[:size], data[size:]
            try:
                await self._loop.sock_sendall(connection.ends[way][1], piece)
                await asyncio.sleep(0)  # other connections take turns with many slices
            except OSError:
                if way in connection.finished:
                    return
                other = Way.TO_CLIENT if way is Way.TO_SERVER else Way.TO_SERVER
                await self._passable(connection, other)  # the news goes back that way
                raise

    async def _passable(self, connection: _Connection, way: Way) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not (self._rules[way].hole or connection.silent))
