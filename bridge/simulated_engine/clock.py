"""Engine time that a test may move.  Never sleeps and wakes nobody but its listeners."""

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_DATE = re.compile(
    r"\s*(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d+)(?:([+-])(\d\d)(\d\d)|UTC|GMT)", re.ASCII
)


class Clock:
    """The machine's clock plus an offset in seconds; safe to use from every thread.

    `advance` and `set_offset` make the engine's time jump (forwards or backwards), `freeze`
    stops it until `resume`.  A jump of 30 s lets waiting long polls look again, as they would
    have done in that time; their own time-out is measured in real time.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self._guard = threading.Lock()
        self._offset = offset
        self._frozen_at: float | None = None
        self._listeners: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        """Milliseconds since 1970, as the engine sees them."""
        with self._guard:
            return int((self._base() + self._offset) * 1000)

    def advance(self, seconds: float) -> None:
        """Move the engine's time by `seconds` from where it is."""
        with self._guard:
            self._offset += seconds
        self._tell()

    def set_offset(self, seconds: float) -> None:
        """Let the engine's time differ from the machine's by exactly `seconds`."""
        with self._guard:
            self._offset = seconds
        self._tell()

    def freeze(self) -> None:
        """Let the engine's time stand still (`advance` still moves it)."""
        with self._guard:
            self._frozen_at = self._base()

    def resume(self) -> None:
        """Let a frozen clock run again, at the machine's time plus the offset."""
        with self._guard:
            self._frozen_at = None
        self._tell()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each jump, in the thread that caused it."""
        self._listeners.append(listener)

    def _base(self) -> float:
        return time.time() if self._frozen_at is None else self._frozen_at

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def date_text(moment_ms: int) -> str:
    """A date as the REST API writes it: `2026-01-02T03:04:05.678+0000`, here always in UTC."""
    moment = datetime.fromtimestamp(moment_ms // 1000, UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{moment_ms % 1000:03d}+0000"


def optional_date_text(moment_ms: int | None) -> str | None:
    """`date_text`, or None where there is no date."""
    return None if moment_ms is None else date_text(moment_ms)


def date_ms(text: str) -> int:
    """Milliseconds of a date in the REST API's format; raises ValueError for any other text.

    The engine reads with Java's lenient `yyyy-MM-dd'T'HH:mm:ss.SSSZ`: milliseconds and an offset
    without colon are required (the usual ISO form ending in `Z` is refused), while a 13th month
    rolls over into the next year, `.6` is 6 ms, and text behind the date is ignored.
    """
    found = _DATE.match(text)
    if found is None:
        raise ValueError(text)
    year, month, day, hours, minutes, seconds, millis = map(int, found.groups()[:7])
    offset = int(found.group(9) or 0) * 60 + int(found.group(10) or 0)
    years, month_index = divmod(month - 1, 12)
    try:
        first = datetime(year + years, month_index + 1, 1, tzinfo=UTC)
        span = timedelta(days=day - 1, hours=hours, minutes=minutes, seconds=seconds)
        moment = first + span - timedelta(minutes=offset if found.group(8) != "-" else -offset)
    except OverflowError as error:
        raise ValueError(text) from error
    return round(moment.timestamp()) * 1000 + millis
