"""Logs: one line per state change, for people or as JSON.  Never variable values or secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from types import TracebackType
from typing import Any, Literal

import structlog

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

TEXT_MAX = 20_000
# Shorter ones, such as guest, would tear holes into harmless words.
SECRET_MIN = 6
HIDDEN = "[hidden]"

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def configure(log_format: Format, level: Level, secrets: Iterable[str] = ()) -> None:
    """Send everything, the libraries' records and the process's last words included, to standard
    error in one form.

    No secret of at least six characters among `secrets` is ever written, wherever it comes from.
    Control characters are escaped, so that no text can forge a line, colour a terminal or turn its
    direction; the line ends of a traceback stay on the console.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _Cleaned(secrets),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # pika tells every step of every connection, and its errors again as exceptions; urllib3 has
    # its own retries to tell of.  What matters of both is said by the rooms that use them.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    sys.excepthook = _last_words


class _Cleaned:
    """The last step before a line is written: hides secrets, escapes controls, bounds lengths."""

    def __init__(self, secrets: Iterable[str]) -> None:
        long_first = sorted({s for s in secrets if len(s) >= SECRET_MIN}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, long_first))) if long_first else None

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {key: self._value(key, value) for key, value in event.items()}

    def _value(self, key: str, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        text = value if isinstance(value, str) else repr(value)
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        if len(text) > TEXT_MAX:
            # A traceback ends with what went wrong.
            half = TEXT_MAX // 2
            text = (
                f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"
            )
        text = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return text if key == "exception" else text.replace("\n", "\\n")


def _last_words(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What nobody caught, as a line of the log."""
    if issubclass(kind, KeyboardInterrupt):
        return
    log = logging.getLogger(__name__)
    log.critical("bridge died", exc_info=(kind, error, trace))
