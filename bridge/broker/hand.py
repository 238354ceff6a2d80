"""How many bytes of one queue are in hand, and how many messages may come.  Pure; knows no channel.

The prefetch counts messages, and a message may be small or huge: a limit in bytes stands beside
it.  What exceeds it is given back, and the prefetch shrinks to what fits, by the sizes seen.
"""

from __future__ import annotations

# Whose messages fit twice over: growing by less is not worth a new subscription.
WORTH = 2


class Hand:
    """The messages of one queue that were delivered and are not done with.

    A message larger than the limit is taken where nothing else is in hand, so at most `limit` bytes
    or one message are held.  `window` is the prefetch to ask for, at most the one configured; with
    half of the limit free (`has_room`) so many messages of the sizes lately seen fit.
    """

    def __init__(self, prefetch: int, limit: int) -> None:
        self.window = prefetch
        self.used = 0
        self._prefetch = prefetch
        self._limit = limit
        self._sizes: dict[object, int] = {}
        self._seen = 0
        self._largest = 1
        self._refused = 0

    @property
    def has_room(self) -> bool:
        """Whether deliveries may begin again after a refusal: what was refused would be taken, for
        it comes first, and given back again and again it would be dead-lettered.
        """
        half_free = self.used <= self._limit // 2
        return not self.used or (half_free and self.used + self._refused <= self._limit)

    def take(self, key: object, size: int) -> bool:
        """Whether the message is in hand now; else it must be given back, and no more be asked for
        until `has_room`.
        """
        self._seen += 1
        self._largest = max(self._largest, size)
        if self.used and self.used + size > self._limit:
            self.window = min(self.window, self._fitting(max(size, *self._sizes.values())))
            self._seen, self._largest = 0, 1
            self._refused = size
            return False
        self._refused = 0
        self._sizes[key] = size
        self.used += size
        return True

    def done(self, key: object) -> None:
        """The message is done with; one that is not in hand changes nothing."""
        self.used -= self._sizes.pop(key, 0)

    def grows(self) -> bool:
        """Whether the last messages were so small that a new, larger window is worth asking for."""
        if self.window == self._prefetch or self._seen < self._prefetch:
            return False
        fits = self._fitting(self._largest)
        worth = fits >= min(WORTH * self.window, self._prefetch)
        if worth:
            self.window = fits
        self._seen, self._largest = 0, 1
        return worth

    def _fitting(self, size: int) -> int:
        return max(1, min(self._prefetch, self._limit // 2 // size))
