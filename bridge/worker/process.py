"""What a worker needs of its process: signals, and a place for async functions."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT mean `stop`, the second one what it meant to the system; where this is not
    the main thread, which alone hears them, nothing changes.
    """

    def first(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    here = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if here else ()
    before = [(number, signal.signal(number, first)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own; at the end what still runs in it is cancelled."""
    opened: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def live() -> None:
        end = asyncio.Event()
        opened.put((asyncio.get_running_loop(), end))
        await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    loop, end = opened.get()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(5)
