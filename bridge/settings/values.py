"""Types of settings: durations, URLs, names.  Each refuses what cannot be meant, in words only.

No message repeats a value: a URL may hold a password.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from bridge.settings.names import is_creatable

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_ROUTING_KEY_PLACEHOLDERS = ("{tenantId}", "{processDefinitionKey}", "{topicName}")


def parse_duration(value: object) -> timedelta:
    """A duration as people write it: a number and one of ms, s, m, h, d.  Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a duration with its unit is wanted, such as "500ms", "5s", "10m", "24h"')
    return timedelta(milliseconds=float(match[1]) * _UNITS[match[2]])


def duration_text(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads as `value` (to the millisecond)."""
    ms = round(value / timedelta(milliseconds=1))
    unit = next(u for u in ("d", "h", "m", "s", "ms") if ms % _UNITS[u] == 0 and ms >= _UNITS[u])
    return f"{ms // _UNITS[unit]}{unit}"


def between(low: str, high: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not parse_duration(low) <= value <= parse_duration(high):
            raise ValueError(f"a duration from {low} to {high} is wanted")
        return value

    return AfterValidator(check)


def _split(value: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL.  Raises ValueError with words only: the URL may hold a password."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0 and value.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in value or parts.scheme not in schemes:
        raise ValueError(
            f"a URL that begins with {wanted} and names a host is wanted; write special "
            "characters in it percent-encoded (%40 for @, %2F for /)"
        )
    if parts.query or parts.fragment:
        raise ValueError("a URL without ? and # is wanted; options are keys of their own here")
    return parts


def _http_url(value: str) -> str:
    if "@" in _split(value, ("http", "https")).netloc:
        raise ValueError(
            "credentials do not belong in this URL; use the keys username and password_file"
        )
    return value.rstrip("/")


def _token_url(value: str) -> str:
    # A path may end in a slash and have a query: both belong to the endpoint (RFC 6749, 3.2).
    if "@" in _split(value.partition("?")[0], ("http", "https")).netloc:
        raise ValueError(
            "credentials do not belong in this URL; use the keys oauth2_client_id and "
            "oauth2_client_secret_file"
        )
    if "#" in value or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("a URL of printable ASCII without # is wanted; percent-encode the rest")
    return value


def _amqp_url(value: SecretStr) -> SecretStr:
    if _split(value.get_secret_value(), ("amqp", "amqps")).path.count("/") > 1:
        raise ValueError("one virtual host is wanted after the host; write / in its name as %2F")
    return value


def _listen(value: str) -> str:
    if value and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+):[0-9]{1,5}", value):
        raise ValueError('host:port is wanted, such as "127.0.0.1:9464", or "" for none')
    if value and int(value.rpartition(":")[2]) > 65535:
        raise ValueError("a port from 0 to 65535 is wanted")
    return value


def _token(value: SecretStr) -> SecretStr:
    if not _fits_header(value.get_secret_value()):
        raise ValueError("a token of printable ASCII on one line is wanted")
    return value


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _header_names(headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, value in headers.items():
        text = value.get_secret_value()
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is not the name of an HTTP header")
        if not _fits_header(text):
            raise ValueError(f"the value of header {name} must be printable ASCII on one line")
    return headers


def _one_line(what: str, max_bytes: int) -> AfterValidator:
    def check(value: str) -> str:
        if not value or not value.isprintable() or len(value.encode(errors="replace")) > max_bytes:
            raise ValueError(f"{what} of 1 to {max_bytes} bytes without control characters")
        return value

    return AfterValidator(check)


def _prefix(value: str) -> str:
    if not is_creatable(f"{value}.dead-letters") or len(value) > 100 or not value:
        raise ValueError(
            "1 to 100 letters, digits, dots, underscores, colons or hyphens are wanted, "
            "not beginning with amq (RabbitMQ's own names)"
        )
    return value


def _body(value: str) -> str:
    if value not in {"task", "variables"} and not re.fullmatch(r"variable:.+", value):
        raise ValueError('"task", "variables" or "variable:<name>" is wanted')
    return value


def _routing_key(value: str) -> str:
    rest = value
    for placeholder in _ROUTING_KEY_PLACEHOLDERS:
        rest = rest.replace(placeholder, "")
    if "{" in rest or "}" in rest:
        known = ", ".join(_ROUTING_KEY_PLACEHOLDERS)
        raise ValueError(f"only {known} may stand in braces here")
    return value


def _process_value(value: object) -> object:
    fits = isinstance(value, str | bool | float) or (
        isinstance(value, int) and -(2**63) <= value < 2**63
    )
    if not fits or value in {float("inf"), float("-inf")} or value != value:  # noqa: PLR0124 (NaN)
        raise ValueError("a string, a number of at most 64 bits, true or false is wanted")
    return value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _path(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a path without control characters is wanted")
    return Path(value) if isinstance(value, str) and value else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), between("1ms", "3650d")]
LongDuration = Annotated[timedelta, BeforeValidator(parse_duration), between("1s", "3650d")]
# RabbitMQ refuses an expiration or a TTL beyond 2**32 - 1 ms.
BrokerDuration = Annotated[timedelta, BeforeValidator(parse_duration), between("1s", "49d")]
Name = Annotated[str, Field(min_length=1)]
QueueName = Annotated[str, _one_line("a queue name", 255)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
TokenUrl = Annotated[str, AfterValidator(_token_url)]
AmqpUrl = Annotated[SecretStr, AfterValidator(_amqp_url)]
Secret = Annotated[SecretStr, Field(min_length=1)]
Token = Annotated[Secret, AfterValidator(_token)]
FilePath = Annotated[Path, BeforeValidator(_path)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_tuple)]
SomeNames = Annotated[tuple[Name, ...], BeforeValidator(_tuple), Field(min_length=1)]
ProcessValue = Annotated[str | int | float | bool, BeforeValidator(_process_value)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
HttpHeaders = Annotated[Mapping[str, SecretStr], AfterValidator(_header_names)]
ListenAddress = Annotated[str, AfterValidator(_listen)]
NamePrefix = Annotated[str, AfterValidator(_prefix)]
WorkerId = Annotated[str, _one_line("a worker id", 255)]
Body = Annotated[str, AfterValidator(_body)]
RoutingKey = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_routing_key)]
AmqpUrls = Annotated[tuple[AmqpUrl, ...], BeforeValidator(_tuple)]
LongDurations = Annotated[tuple[LongDuration, ...], BeforeValidator(_tuple), Field(min_length=1)]
