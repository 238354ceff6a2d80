"""The fault proxy itself: a tool that does not break what it says it breaks proves nothing."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.proxy import End, Proxy, Strike, Way
from tests.support.waiting import eventually

SHORT = 0.2
LONG = 10.0
RESET = b"reset yourself"


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets, and ends with the client; answers `RESET` with an RST."""

    server: Server

    def handle(self) -> None:
        linger = struct.pack("ii", 1, 0)
        try:
            while data := self.request.recv(65536):
                self.server.heard += data
                if data == RESET:
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.request.close()
                self.request.sendall(data)
        except OSError:
            self.server.resets += 1


class Server(socketserver.ThreadingTCPServer):
    """An echo server that remembers what it heard."""

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard = bytearray()
        self.resets = 0


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(f"amqp://user:word@127.0.0.1:{server.server_address[1]}/%2F") as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connected(proxy) as client:
        yield client


def connected(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0), LONG)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def echoed(client: socket.socket, data: bytes) -> bytes:
    """What comes back of what is sent, until it is all or the connection ends."""
    client.sendall(data)
    return received(client, len(data))


def received(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := client.recv(count - len(got))):
        got += data
    return got


def hears_nothing(client: socket.socket) -> bool:
    client.settimeout(SHORT)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LONG)
    return False


def test_a_healthy_proxy_changes_nothing(proxy: Proxy, client: socket.socket) -> None:
    """Whatever a test sees through it is then the fault's doing; credentials and path stay."""
    data = bytes(range(256)) * 2000

    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert received(client, len(data)) == data
    sender.join()

    assert proxy.accepted == 1
    parts = urlsplit(proxy.url)
    assert (parts.username, parts.password, parts.path) == ("user", "word", "/%2F")


def test_the_end_of_one_side_reaches_the_other(server: Server, client: socket.socket) -> None:
    """A FIN is forwarded after the bytes before it, and the answer still comes back."""
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)

    assert received(client, 100) == b"last words"


def test_a_black_hole_to_the_client_lets_the_server_hear(
    proxy: Proxy, server: Server, client: socket.socket
) -> None:
    """The way a confirm gets lost: acted on, and nobody is told; healed, it arrives late."""
    assert echoed(client, b"before") == b"before"
    proxy.black_hole(Way.TO_CLIENT)
    client.sendall(b"inside")

    eventually(lambda: server.heard == b"beforeinside")
    assert hears_nothing(client)
    proxy.heal()
    assert received(client, 6) == b"inside"


def test_a_black_hole_to_the_server_keeps_it_deaf(
    proxy: Proxy, server: Server, client: socket.socket
) -> None:
    """Not even the end of the client is news there."""
    assert echoed(client, b"before") == b"before"
    proxy.black_hole(Way.TO_SERVER)
    client.sendall(b"inside")
    client.shutdown(socket.SHUT_WR)

    assert hears_nothing(client)
    assert server.heard == b"before"
    proxy.heal()
    assert received(client, 100) == b"inside"


def test_a_black_hole_swallows_a_reset(proxy: Proxy, server: Server, client: socket.socket) -> None:
    """A host that lost its power sends none either: the other side stays half open."""
    assert echoed(client, b"x") == b"x"
    proxy.black_hole(Way.TO_CLIENT)
    client.sendall(RESET)

    eventually(lambda: server.resets == 1)
    assert hears_nothing(client)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_reset_by_the_server_leaves_the_next_connections_alone(
    proxy: Proxy, server: Server
) -> None:
    """The system gives the numbers of closed sockets to new ones: nobody may still listen there."""
    for _ in range(5):
        with connected(proxy) as client:
            client.sendall(RESET)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connected(proxy) as client:
            for word in (b"one", b"two", b"three"):
                assert echoed(client, word) == word


def test_a_black_hole_takes_new_connections_too(proxy: Proxy, server: Server) -> None:
    """A reconnect into the hole must meet the same silence."""
    proxy.mute = True

    with connected(proxy) as client:
        client.sendall(b"hello")
        eventually(lambda: server.heard == b"hello")
        assert hears_nothing(client)
        proxy.mute = False
        assert received(client, 5) == b"hello"


def test_what_a_black_hole_keeps_is_bounded(proxy: Proxy, client: socket.socket) -> None:
    """A sender that never stops meets full buffers, as on a dead line, and not our memory."""
    proxy.black_hole(Way.TO_SERVER)
    client.settimeout(SHORT)

    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 * 1024 * 1024))


def test_reset_is_an_rst_to_both(proxy: Proxy, server: Server, client: socket.socket) -> None:
    """Told apart from an orderly end: nobody may take it for a complete answer."""
    assert echoed(client, b"x") == b"x"
    proxy.reset()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    eventually(lambda: server.resets == 1)
    with connected(proxy) as another:
        assert echoed(another, b"again") == b"again"


def test_cut_is_an_orderly_end(proxy: Proxy, client: socket.socket) -> None:
    """The client sees end of file, in the middle of whatever it read."""
    assert echoed(client, b"x") == b"x"
    proxy.cut()

    assert client.recv(1) == b""
    assert proxy.broken == 1


def test_refused_connections_are_taken_again_after_heal(
    proxy: Proxy, client: socket.socket
) -> None:
    """The port stays ours meanwhile, or the healed server would have another address."""
    assert echoed(client, b"x") == b"x"
    proxy.refuse()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.heal()
    with connected(proxy) as another:
        assert echoed(another, b"again") == b"again"


def test_a_delay_is_for_its_way_only(proxy: Proxy, server: Server, client: socket.socket) -> None:
    """The request is there at once, its answer later."""
    assert echoed(client, b"x") == b"x"
    proxy.delay(400, Way.TO_CLIENT)
    began = time.monotonic()
    client.sendall(b"slow")

    eventually(lambda: server.heard == b"xslow")
    assert hears_nothing(client)
    assert received(client, 4) == b"slow"
    assert time.monotonic() - began >= 0.4


def test_slices_are_single_bytes_in_order(proxy: Proxy, client: socket.socket) -> None:
    """Whoever parses must cope with a frame that comes in pieces; nothing is lost in between."""
    assert echoed(client, b"x") == b"x"
    proxy.slice(Way.TO_CLIENT)
    client.sendall(bytes(range(100)))

    pieces: list[bytes] = []
    while len(b"".join(pieces)) < 100:
        pieces.append(client.recv(100))
    assert b"".join(pieces) == bytes(range(100))
    assert len(pieces) > 1  # how many the kernel joins again is its own business


@pytest.mark.parametrize("count", [0, 1, 7])
def test_cut_after_lets_exactly_so_many_bytes_pass(proxy: Proxy, count: int) -> None:
    """The middle of a frame or of an answer is a place that a test can choose."""
    proxy.cut_after(count, Way.TO_CLIENT)

    with connected(proxy) as client:
        assert echoed(client, b"0123456789") == b"0123456789"[:count]
    assert proxy.broken == 1


def test_cut_after_counts_from_now_on_open_connections(
    proxy: Proxy, server: Server, client: socket.socket
) -> None:
    """A connection that has carried much is cut no earlier and no later than a new one."""
    assert echoed(client, b"before") == b"before"
    proxy.cut_after(4, Way.TO_SERVER)

    client.sendall(b"ab")
    assert received(client, 2) == b"ab"
    client.sendall(b"cdef")
    eventually(lambda: server.heard == b"beforeabcd")
    assert b"cd".startswith(received(client, 10))
    proxy.heal()
    with connected(proxy) as another:
        assert echoed(another, b"whole again") == b"whole again"


def test_half_close_ends_one_way_and_leaves_the_other(
    proxy: Proxy, server: Server, client: socket.socket
) -> None:
    """The client hears the end, while the server still hears the client."""
    assert echoed(client, b"x") == b"x"
    proxy.half_close(Way.TO_CLIENT)

    assert client.recv(1) == b""
    client.sendall(b"still heard")
    eventually(lambda: server.heard == b"xstill heard")


def test_a_strike_loses_the_answer_to_one_request(proxy: Proxy, server: Server) -> None:
    """The server has acted and the client is not told: once, and on that connection only."""
    strike = proxy.strike(Strike(b"/complete"))

    with connected(proxy) as client, connected(proxy) as neighbour:
        assert echoed(client, b"POST /lock") == b"POST /lock"
        client.sendall(b"POST /complete")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert strike.struck.is_set()
        assert server.heard.count(b"/complete") == 1
        assert echoed(neighbour, b"POST /complete") == b"POST /complete"


def test_a_strike_may_wait_for_what_the_answer_says(proxy: Proxy) -> None:
    """Of many polls, the one that brings a task; an orderly end in the middle of its answer."""
    proxy.strike(Strike(b"/fetch", End.CLOSE, answer=b"task", passes=8))

    with connected(proxy) as client:
        assert echoed(client, b"/fetch none") == b"/fetch none"
        assert echoed(client, b"/fetch task") == b"/fetch t"


def test_a_strike_finds_what_comes_late_in_an_answer(proxy: Proxy) -> None:
    """Engines send head and body apart: what passed is passed, the rest is lost."""
    strike = proxy.strike(Strike(b"/fetch", End.CLOSE, answer=b"task", passes=8))
    proxy.slice(Way.TO_SERVER)  # the echo comes back in pieces

    with connected(proxy) as client:
        came = echoed(client, b"/fetch many tasks")
        assert strike.struck.is_set()
        assert b"/fetch many tas".startswith(came)
        assert len(came) >= 8


def test_a_strike_may_come_before_the_server_hears(proxy: Proxy, server: Server) -> None:
    """A kept-alive connection that ends while the next request is on its way."""
    proxy.strike(Strike(b"/complete", End.CLOSE, passes=None))

    with connected(proxy) as client:
        assert echoed(client, b"POST /complete") == b""
        assert not server.heard


def test_a_silenced_connection_stays_open(proxy: Proxy, server: Server) -> None:
    """Half open: the answer is lost on this connection, and others know nothing of it."""
    strike = proxy.strike(Strike(b"/poll", End.SILENCE))

    with connected(proxy) as client, connected(proxy) as neighbour:
        client.sendall(b"/poll")
        assert strike.struck.wait(LONG)
        assert hears_nothing(client)
        assert echoed(neighbour, b"x") == b"x"
        proxy.heal()
        assert received(client, 5) == b"/poll"
