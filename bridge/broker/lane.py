"""One channel's worth of publications: what waits, what was sent, what was returned.  No I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bridge.messages import Publication

# A window of confirms keeps the pipe full without queueing for long: larger ones only add latency.
WINDOW_MESSAGES = 200
WINDOW_BYTES = 16 * 1024 * 1024


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
class Item:
    """A publication on its way; not sent later than `publish_by` (monotonic)."""

    publication: Publication
    done: Done
    publish_by: float
    mandatory: bool

    @property
    def size(self) -> int:
        return len(self.publication.body)


class Lane:
    """One channel in confirm mode, what waits for it and what waits for its confirm."""

    def __init__(self) -> None:
        self.channel: Any = None
        self.open = False
        self.waiting: deque[Item] = deque()
        self.returned: dict[int, str] = {}
        self.refused = False  # a queue has refused a message of this channel
        self._pending: OrderedDict[int, Item] = OrderedDict()
        self._number = 0
        self._bytes = 0

    def may_send(self) -> bool:
        """True if something waits and the window has room for it."""
        return (
            bool(self.waiting)
            and len(self._pending) < WINDOW_MESSAGES
            and self._bytes < WINDOW_BYTES
        )

    @property
    def worn_out(self) -> bool:
        """True if the channel has met a refusal and no confirm is outstanding on it."""
        return self.refused and not self._pending

    @property
    def next_number(self) -> int:
        """The publish number that the broker gives the next message of this channel."""
        return self._number + 1

    def sent(self, item: Item) -> None:
        """The item went out under `next_number`."""
        self._number += 1
        self._pending[self._number] = item
        self._bytes += item.size

    def settle(self, number: int, multiple: bool) -> list[tuple[int, Item]]:
        """What a confirm of this number settles; a number twice settles nothing."""
        numbers = [n for n in self._pending if n <= number] if multiple else [number]
        settled = [(n, self._pending.pop(n)) for n in numbers if n in self._pending]
        self._bytes -= sum(item.size for _, item in settled)
        return settled

    def give_up(self) -> list[Item]:
        """Forget the channel; returns what was sent on it and never confirmed."""
        lost = list(self._pending.values())
        self._pending.clear()
        self.returned.clear()
        self.refused = False
        self.channel, self.open, self._number, self._bytes = None, False, 0, 0
        return lost
