"""Whatever a worker sends is understood or refused: bytes and properties, up to the engine.

`corpus/results/refused` and `corpus/results/applied` hold bodies that some worker sent, or might
send; a new file there is a new case.  FUZZ_EXAMPLES=100000 makes the search a long one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pika
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.broker.properties import ReadableProperties, delivery_of
from bridge.errors import ResultRefused
from bridge.messages import BpmnError, Complete, Delivery, ExtendLock, Failure, Result, Unlock
from bridge.results import Profile, ReplyRules, read
from bridge.tokens import TokenSigner, claimed_task
from bridge.variables import typed

CORPUS = Path(__file__).parent / "corpus" / "results"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
# No search may find a body that keeps a caller busy for long; generous, the machine may be loaded.
LONGEST_SECONDS = 20.0
JSON = ReplyRules()
MIB = 1024 * 1024

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def bodies(folder: str) -> dict[str, bytes]:
    """The corpus by name."""
    return {path.stem: path.read_bytes() for path in sorted((CORPUS / folder).iterdir())}


REFUSED, APPLIED = bodies("refused"), bodies("applied")
KNOWN = [*REFUSED.values(), *APPLIED.values()]


def with_body(body: bytes, **changes: Any) -> Delivery:
    return replace(Delivery("a.results", body, {}, generation=1, tag=1), **changes)


def request(result: Result) -> dict[str, Any]:
    """What the engine would be sent."""
    match result:
        case Complete() | Failure():
            content = result.model_dump()
            return content | {
                "variables": typed(result.variables),
                "local_variables": typed(result.local_variables),
            }
        case BpmnError() | ExtendLock():
            return result.model_dump() | {"variables": typed(result.variables)}
        case Unlock():
            return {}


def outcome(delivery: Delivery, rules: ReplyRules) -> str:
    """The verb, or the reason of the refusal.  Whatever else happens fails the test."""
    began = time.monotonic()
    try:
        result = read(delivery, rules)
        sent = request(result)
    except ResultRefused as refused:
        word = refused.reason
        refused.detail[:1000].encode(errors="backslashreplace")  # as the parked message has it
    else:
        word = type(result).__name__
        # As requests sends it, only strictly: a text that UTF-8 cannot carry raises too late there.
        json.dumps(sent, ensure_ascii=False, allow_nan=False).encode()
    assert time.monotonic() - began < LONGEST_SECONDS
    return word


VERBS = {kind.__name__ for kind in get_args(Result)}


# The corpus


@pytest.mark.parametrize("name", REFUSED)
def test_the_corpus_of_bad_results_is_refused(name: str) -> None:
    """Each of these once was, or could be, taken for something it is not."""
    assert outcome(with_body(REFUSED[name]), JSON) not in VERBS


@pytest.mark.parametrize("name", APPLIED)
def test_the_corpus_of_good_results_is_understood(name: str) -> None:
    """Strictness must not grow into refusing what a worker may send."""
    assert outcome(with_body(APPLIED[name]), JSON) in VERBS


def test_of_members_with_the_same_name_the_last_counts() -> None:
    """As in every JSON library that the workers use; RFC 8259 leaves it open."""
    assert read(with_body(APPLIED["duplicate-names"]), JSON) == Complete(variables={"x": 2})
    twice = b'{"$outcome": "unlock", "$outcome": "failure"}'
    assert read(with_body(twice), JSON) == Failure()


# Sizes


@dataclass(frozen=True)
class Large:
    """A body too large for a file, and the reason for which it is refused."""

    body: bytes
    reason: str


LARGE = {
    "20-mib": Large(b'{"x": "' + b"x" * (20 * MIB) + b'"}', "too-large"),
    "16-mib-of-text": Large(b'{"x": "' + b"x" * (16 * MIB - 20) + b'"}', "value-refused"),
    "a-million-names": Large(
        b"{" + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}", "too-large"
    ),
    "a-million-times-one-name": Large(b"{" + b'"k":1,' * 1_000_000 + b'"$outcome":1}', "too-large"),
    "arrays-of-100000-levels": Large(b"[" * 100_000 + b"]" * 100_000, "bad-json"),
    "objects-of-100000-levels": Large(b'{"x":' * 100_000 + b"1" + b"}" * 100_000, "bad-json"),
    "integer-of-10000-digits": Large(b'{"n": ' + b"9" * 10_000 + b"}", "bad-json"),
    "integer-of-4300-digits": Large(b'{"n": ' + b"9" * 4300 + b"}", "value-refused"),
    "fraction-of-a-million-digits": Large(b'{"n": 0.' + b"1" * 1_000_000 + b"e", "bad-json"),
    "exponent-of-10000-digits": Large(b'{"n": 1e' + b"9" * 10_000 + b"}", "value-refused"),
    "number-text-of-a-million-digits": Large(
        b'{"n": {"type": "Double", "value": "' + b"9" * 1_000_000 + b'"}}', "value-refused"
    ),
    "a-million-empty-arrays": Large(b"[" + b"[]," * 1_000_000 + b"[]]", "too-large"),
    "400000-names": Large(
        b"{" + b",".join(b'"k%d":1' % n for n in range(400_000)) + b"}", "value-refused"
    ),
    "escapes-without-end": Large(b'"' + b"\\" * 1_000_001, "bad-json"),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_is_refused_in_time(name: str) -> None:
    """Neither the stack nor the minute ends before the reason is known."""
    assert outcome(with_body(LARGE[name].body), JSON) == LARGE[name].reason


def test_what_only_just_keeps_the_limits_is_understood() -> None:
    """A long list in one Json is a result like any other."""
    body = b'{"x": [' + b"0," * 400_000 + b'"' + b"x" * 10 * MIB + b'"]}'

    assert outcome(with_body(body), JSON) == "Complete"


# Headers and properties

odd_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False, places=2, max_value=10**6)
    | st.datetimes(timezones=st.just(UTC))
    | st.sampled_from(["complete", "failure", "bpmnError", "extendLock", "unlock", "SUCCESS"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
odd_headers = st.dictionaries(
    st.sampled_from(["outcome", "x-death", "CC", "reason"]) | st.text(), odd_values, max_size=4
)
odd_types = (
    st.none()
    | st.text()
    | st.sampled_from(
        [
            "text/plain",
            "application/json",
            "application/x-java-serialized-object",
            "application/gzip",
        ]
    )
)
odd_rules = st.builds(
    ReplyRules,
    st.sampled_from(get_args(Profile)),
    st.none() | st.just("answer") | st.just(""),
    st.booleans(),
    st.sampled_from([0, 10, 16 * MIB]),
)
ODD_OUTCOMES: list[Any] = [
    5, 1.5, True, None, b"complete", b"\xff", ["complete"], {"complete": True}, Decimal("1.5"),
    datetime(2026, 1, 1, tzinfo=UTC), "", "complete ", "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("value", ODD_OUTCOMES, ids=lambda value: repr(value)[:20])
def test_an_outcome_of_another_amqp_type_is_no_outcome(value: Any) -> None:
    """Taken for a success it would complete the task; null is none at all."""
    wanted = "Complete" if value is None else "bad-outcome"

    assert outcome(with_body(b"{}", headers={"outcome": value}), JSON) == wanted


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "utf-16", "\x00", "x" * 255])
@pytest.mark.parametrize("content_type", ["application/gzip", "image/png", "application/json; x"])
def test_a_content_type_and_an_encoding_that_lie_are_ignored(
    encoding: str, content_type: str
) -> None:
    """The body alone says what it is."""
    lying = {"content_type": content_type, "content_encoding": encoding}

    assert outcome(with_body(b'{"a": 1}', **lying), JSON) == "Complete"
    assert outcome(with_body(REFUSED["gzip"], **lying), JSON) == "bad-json"


# Search


def spoilt(body: bytes, draw: st.DrawFn) -> bytes:
    """A body with bits flipped, a part cut out, doubled or put in from another one."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(body) - 1)))
        end = draw(st.integers(start, min(len(body), start + 50)))
        match draw(st.sampled_from(["flip", "cut", "truncate", "double", "splice", "insert"])):
            case "flip" if body:
                bit = 1 << draw(st.integers(0, 7))
                body = body[:start] + bytes([body[start] ^ bit]) + body[start + 1 :]
            case "cut":
                body = body[:start] + body[end:]
            case "truncate":
                body = body[:start]
            case "double":
                body = body[:end] + body[start:]
            case "splice":
                other = draw(st.sampled_from(KNOWN))
                body = body[:start] + other[draw(st.integers(0, len(other))) :]
            case "insert":
                body = body[:start] + draw(st.binary(max_size=8)) + body[start:]
    return body


@st.composite
def bodies_nearly_right(draw: st.DrawFn) -> bytes:
    return spoilt(draw(st.sampled_from(KNOWN)), draw)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
type_names = st.sampled_from(
    [
        "Null",
        "Boolean",
        "Short",
        "Integer",
        "Long",
        "Double",
        "String",
        "Date",
        "Bytes",
        "Json",
        "Xml",
        "File",
        "Object",
    ]
)
typed_values = st.fixed_dictionaries(
    {"value": json_values, "type": type_names}, optional={"valueInfo": json_values}
)
json_bodies = st.dictionaries(st.text(), json_values | typed_values, max_size=4).map(
    lambda value: json.dumps(value).encode()
)


@fuzz
@given(st.binary() | bodies_nearly_right() | json_bodies, odd_headers, odd_types, odd_rules)
@example(b"", {}, None, ReplyRules(max_bytes=0))
@example(b'{"status": "FAILURE", "result": {"exc_type": "E"}}', {}, None, ReplyRules("celery"))
def test_whatever_bytes_arrive_only_a_refusal_escapes(
    body: bytes, headers: Mapping[str, Any], content_type: str | None, rules: ReplyRules
) -> None:
    """An exception of another kind ends the process, and the message comes again to its peers."""
    outcome(with_body(body, headers=headers, content_type=content_type), rules)


def method(tag: int = 1) -> Any:
    return SimpleNamespace(delivery_tag=tag, redelivered=False)


def arrived(encoded: bytes, body: bytes = b"{}") -> Delivery | None:
    """What the consumer makes of properties as they stand on the wire; None: parked unread."""
    properties = ReadableProperties()
    properties.decode(encoded)
    if properties.unreadable is not None:
        return None
    return delivery_of("a.results", 1, method(), properties, body)


def on_the_wire(**properties: Any) -> bytes:
    return b"".join(pika.BasicProperties(**properties).encode())


TOKEN = TokenSigner(b"k" * 32).make("b1e2", None, "a")
WIRE = [
    on_the_wire(correlation_id=TOKEN, headers={"outcome": "complete", "n": 1}, priority=3),
    on_the_wire(headers={"a": [1, {"b": [None, True, b"\xff"]}], "d": Decimal("1.25")}),
    on_the_wire(timestamp=1_700_000_000, type="t", app_id="a", expiration="5", user_id="guest"),
    on_the_wire(headers={"at": datetime(2026, 1, 1, tzinfo=UTC), "CC": ["a", "b"]}),
]
TEXTS = ["correlation_id", "message_id", "type", "app_id", "content_type", "content_encoding"]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xc3(" * 127, b"\x00", b"a" * 255])
def test_binary_in_a_text_property_is_text_that_can_be_written_again(
    name: str, value: bytes
) -> None:
    """pika leaves it as bytes: no rule on texts would hold, and the first to ask would fail."""
    raw = ReadableProperties()
    setattr(raw, name, value)

    delivery = arrived(b"".join(raw.encode()))

    assert delivery is not None
    text = getattr(delivery, name)
    assert isinstance(text, str)
    assert len(text.encode()) <= 255
    assert claimed_task(delivery.correlation_id) is None


@st.composite
def wire_nearly_right(draw: st.DrawFn) -> bytes:
    return spoilt(draw(st.sampled_from(WIRE)), draw)


@fuzz
@given(wire_nearly_right() | st.binary(), odd_rules, st.sampled_from(KNOWN))
@example(WIRE[0], JSON, b"{}")
def test_whatever_properties_arrive_only_a_refusal_escapes(
    encoded: bytes, rules: ReplyRules, body: bytes
) -> None:
    """They are read on the connection's own thread: what escapes there ends all consuming."""
    delivery = arrived(encoded, body)

    if delivery is not None:
        claimed_task(delivery.correlation_id)
        with_token = delivery.correlation_id or ""
        with_token.encode()
        outcome(delivery, rules)
