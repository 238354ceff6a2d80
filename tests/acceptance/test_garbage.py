"""Results that make no sense, in bodies and properties: each ends parked, its neighbours go on."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pika
import psutil
import pytest

from bridge.tokens import TokenSigner
from tests.support.amqp import Message
from tests.support.engine import EngineRest
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually, throughout

CORPUS = Path(__file__).parents[1] / "unit" / "corpus" / "results"
TOPICS: dict[str, dict[str, Any]] = {"odd": {}, "wait": {}, "storm": {}, "large": {}}
RESULTS = {"x-queue-type": "quorum"}
# A heartbeat that a busy machine keeps, and times that go with it.
LATE, CALM = {"heartbeat": "10s"}, {"publish_window": "40s", "lease": "400s"}
MIB = 1024 * 1024
BAD = b"{bad"


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


class Raw(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped here
    """Properties in which some bytes are others on the wire, for what pika would not write."""

    def __init__(self, old: bytes, new: bytes, **properties: Any) -> None:
        super().__init__(delivery_mode=2, **properties)
        assert len(old) == len(new)
        self._old, self._new = old, new

    def encode(self) -> list[bytes]:
        plain = b"".join(super().encode())
        assert self._old in plain
        return [plain.replace(self._old, self._new)]


def nested(depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(depth):
        table = {"x": table}
    return table


ODD: dict[str, dict[str, Any]] = {
    "tables": {"headers": {"outcome-of": {"outcome": "failure"}, "deep": nested(100)}},
    "arrays": {"headers": {"list": [1, "two", [3.0.is_integer(), None], {"four": b"\xff"}]}},
    "times": {"headers": {"at": datetime(2026, 1, 1, tzinfo=UTC), "price": Decimal("9.99")}},
    "bytes": {"headers": {"blob": b"\x00\xff" * 100}},
    "nothing": {"headers": {"outcome": None, "": "", "x" * 255: None}},
    "many": {"headers": {f"header-{n}": n for n in range(3000)}},
    "huge": {"headers": {"trace": "x" * 130_930}},
    "died": {"headers": {"x-death": "never", "x-first-death-queue": 5}},
    "lying": {"content_type": "application/gzip", "content_encoding": "gzip"},
    "strange": {"content_type": "\x00", "type": "x" * 255, "priority": 255, "expiration": "60000"},
    "sender": {"user_id": "guest", "app_id": "\N{PILE OF POO}", "reply_to": "elsewhere"},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_properties_do_not_matter_to_a_good_result(stage: Stage, name: str) -> None:
    """The token and the body say everything; libraries fill the rest as they like."""
    case = stage.begin("odd")
    message = case.message()

    respond(stage, message, b'{"fine": true}', **ODD[name])

    assert case.end() == "end"


@pytest.mark.parametrize("name", ODD)
def test_odd_properties_keep_no_bad_result_from_being_parked(stage: Stage, name: str) -> None:
    """Its copy is written by us, with a reason on top: nothing in it may end our connection."""
    case = stage.begin("odd")
    message = case.message()

    respond(stage, message, BAD, **ODD[name])

    parked = stage.parked(message.properties.correlation_id)
    assert parked.body == BAD
    assert parked.headers["reason"] == "bad-json"
    assert parked.properties.expiration is None
    assert parked.properties.priority == ODD[name].get("priority")
    assert len(stage.bridge.events("broker connected")) == 2, "a consumer and a publisher"


@pytest.mark.parametrize("name", ["app_id", "type", "content_type", "message_id"])
def test_binary_in_a_property_does_not_matter_to_a_good_result(stage: Stage, name: str) -> None:
    """AMQP calls it text, and RabbitMQ does not look."""
    case = stage.begin("odd")
    message = case.message()
    token = message.properties.correlation_id

    binary = Raw(b"B1NARY", b"\xff\xfe\x00\xc3\x28\x80", correlation_id=token, **{name: "B1NARY"})
    stage.amqp.channel.basic_publish("", message.properties.reply_to, b"{}", binary)

    assert case.end() == "end"


@pytest.mark.parametrize(
    ("token", "reason"), [("", "no-token"), ("x" * 255, "bad-token"), ("B1NARY", "bad-token")]
)
def test_a_correlation_id_that_is_none_is_parked(stage: Stage, token: str, reason: str) -> None:
    """Missing, huge or binary: nobody can say whose it is, and the next result is read."""
    case = stage.begin("odd")
    message = case.message()
    stage.amqp.drain("bridge.parked")
    odd = pika.BasicProperties(correlation_id=token)
    if token == "B1NARY":
        odd = Raw(b"B1NARY", b"\xff\xfe\x00\xc3\x28\x80", correlation_id=token)

    stage.amqp.channel.basic_publish("", message.properties.reply_to, b"{}", odd)

    parked = eventually(lambda: stage.amqp.get("bridge.parked"))
    assert parked is not None
    assert parked.headers["reason"] == reason
    still_works(stage, case, message)


NUMBER = 0x4142434445464748
AS_INTEGER = struct.pack(">cq", b"l", NUMBER)


@pytest.mark.parametrize("body", [b"{}", BAD])
def test_a_header_that_is_no_integer_does_not_matter(stage: Stage, body: bytes) -> None:
    """Other clients write floating point numbers, which ours can read and not write."""
    case = stage.begin("odd")
    message = case.message()
    token = message.properties.correlation_id
    odd = Raw(
        AS_INTEGER, struct.pack(">cd", b"d", 1e300), correlation_id=token, headers={"n": NUMBER}
    )

    stage.amqp.channel.basic_publish("", message.properties.reply_to, body, odd)

    if body == BAD:
        assert stage.parked(token).headers["reason"] == "bad-json"
    else:
        assert case.end() == "end"


def test_headers_that_nobody_can_read_are_parked_whole(stage: Stage) -> None:
    """A time in milliseconds, in a year that Python does not know: RabbitMQ itself moves it."""
    case = stage.begin("odd")
    message = case.message()
    token = message.properties.correlation_id
    stage.amqp.drain("bridge.parked")
    late = struct.pack(">cQ", b"T", 1_700_000_000_000_000)
    odd = Raw(AS_INTEGER, late, correlation_id=token, headers={"n": NUMBER})

    stage.amqp.channel.basic_publish("", message.properties.reply_to, b"{}", odd)

    eventually(lambda: stage.amqp.count("bridge.parked") == 1)
    still_works(stage, case, message)
    stage.amqp.channel.queue_purge("bridge.parked")  # nor could this test read it


def test_a_parked_copy_goes_nowhere_else(stage: Stage) -> None:
    """RabbitMQ sends to every queue that the header CC names: a worker whom its rights fence in
    would write anywhere with those of the bridge.
    """
    case = stage.begin("odd")
    message = case.message()
    stage.amqp.channel.queue_declare("target", durable=True)

    respond(stage, message, BAD, headers={"CC": ["target"]})

    stage.parked(message.properties.correlation_id)
    throughout(lambda: stage.amqp.count("target") == 1, 0.3, what="only what the worker sent")


def test_a_result_that_claims_to_have_died_waits_like_any_other(stage: Stage) -> None:
    """RabbitMQ drops in silence what has expired once in the queue it would go back to."""
    case = stage.begin("wait")
    message = case.message()
    stage.engine.suspend(case.instance, True)
    death = {"queue": f"{case.topic}.results", "reason": "expired", "count": 1, "exchange": ""}

    headers = {"x-death": [{**death, "routing-keys": [f"{case.topic}.results"]}]}
    respond(stage, message, b"{}", headers=headers)

    eventually(lambda: stage.count("wait", "waiting") >= 2, what="it came back and waits again")
    stage.engine.suspend(case.instance, False)
    assert case.end() == "end"


def test_a_storm_of_garbage_stops_no_good_result(stage: Stage) -> None:
    """Each bad one is parked once with its reason, each good one among them is applied."""
    garbage = {path.stem: path.read_bytes() for path in (CORPUS / "refused").iterdir()}
    victim = stage.begin("storm")
    key, others = victim.key, 20
    token = victim.message().properties.correlation_id
    instances = stage.engine.start_many(key, others)
    messages = [Case(stage, victim.topic, victim.queue, key, i).message() for i in instances]
    stage.amqp.drain("bridge.parked")

    for number, body in enumerate(garbage.values()):
        stage.amqp.send("", f"{victim.topic}.results", body, correlation_id=token)
        if number < others:
            stage.answer(messages[number], {"n": number})

    eventually(lambda: stage.engine.finished(key) == others, 60)
    eventually(lambda: stage.amqp.count("bridge.parked") == len(garbage), 60)
    parked = stage.amqp.drain("bridge.parked")
    assert sorted(m.body for m in parked) == sorted(garbage.values())
    assert all(m.headers["reason"] for m in parked)
    assert len(stage.engine.incidents(key)) == 1


class Watched:
    """A process whose memory is looked at."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.most_mib = 0

    def look(self) -> bool:
        self.most_mib = max(self.most_mib, self._process.memory_info().rss // MIB)
        return True


# The body, how many of it, and the MiB that the bridge may take (some 55 without any of them).
GIANTS = {
    "beyond-the-limit": (b'{"x": "' + b"x" * (20 * MIB) + b'"}', 12, 350),
    "a-million-names": (b"{" + b",".join(b'"k%d":1' % n for n in range(10**6)) + b"}", 6, 250),
    "100000-levels": (b"[" * 100_000, 20, 100),
}


@pytest.mark.parametrize("name", GIANTS)
def test_a_flood_of_giants_does_not_fill_the_memory(
    engine: EngineRest, amqp_url: str, name: str
) -> None:
    """Of many large results that wait for the bridge few are held at once; good ones behind them
    are applied, and nothing is left unacknowledged.
    """
    body, count, most_mib = GIANTS[name]

    def flood(stage: Stage) -> None:
        topic = stage.names["large"]
        queue = f"{topic}.results"
        stage.amqp.channel.queue_declare(queue, durable=True, arguments=RESULTS)
        for _ in range(count):
            token = TokenSigner(None).make(str(uuid.uuid4()), None, topic)
            stage.amqp.send("", queue, body, correlation_id=token)

    with Stage(engine, amqp_url, {"large": CALM}, prepare=flood, broker=LATE) as stage:
        memory = Watched(stage.bridge.pid)
        good = stage.begin("large")
        stage.answer(good.message(), {"fine": True})

        eventually(lambda: memory.look() and stage.count("large", "parked") == count, 90)
        assert good.end() == "end"
        assert memory.most_mib < most_mib
        assert stage.amqp.count("bridge.parked") == count
        assert stage.bridge.stop() == 0
        assert stage.amqp.count(f"{stage.names['large']}.results") == 0


def respond(stage: Stage, message: Message, body: bytes, **properties: Any) -> None:
    """An answer with properties that no worker should set."""
    answer = {"correlation_id": message.properties.correlation_id, **properties}
    stage.amqp.send("", message.properties.reply_to, body, **answer)


def still_works(stage: Stage, case: Case, message: Message) -> None:
    """The task of this message can be finished as if nothing had happened."""
    stage.answer(message, {"fine": True})
    assert case.end() == "end"
