"""The monotonic clock of this process.  The wall clock is nowhere compared with anything."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds that never step back and that go on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)
