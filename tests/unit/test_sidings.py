"""Parking and waiting: the original is let go only once the copy lies where it belongs."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from bridge.broker import Outcome, Publisher
from bridge.errors import ResultRefused
from bridge.messages import Delivery, Publication
from bridge.sidings import Sidings
from tests.support.rooms import PARKED, WAIT, Rooms
from tests.support.waiting import eventually, throughout

REFUSED = ResultRefused("bad-json", "no JSON")


def delivery(**changes: Any) -> Delivery:
    known: dict[str, Any] = {
        "queue": "a.results",
        "body": b"\xff\x00",
        "headers": {"outcome": "complete", "x": 1},
        "generation": 1,
        "tag": 1,
        "message_id": "m",
        "correlation_id": "c",
        "reply_to": "r",
        "type": "t",
        "content_type": "text/plain",
        "content_encoding": "latin1",
        "timestamp": 5,
        "priority": 7,
        "app_id": "worker",
    }
    return Delivery(**(known | changes))


class Then:
    """Counts how often the original was let go."""

    def __init__(self) -> None:
        self.count = 0
        self.parked = 0

    def __call__(self, parked: bool = False) -> None:
        self.count += 1
        self.parked += parked


@pytest.fixture
def then() -> Then:
    return Then()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again in an instant instead of five seconds."""
    monkeypatch.setattr("bridge.sidings.AGAIN_SECONDS", 0.01)


def to_parked(publication: Publication) -> bool:
    return publication.routing_key == PARKED


PROPERTIES = (
    "message_id",
    "correlation_id",
    "reply_to",
    "type",
    "content_type",
    "content_encoding",
    "timestamp",
    "priority",
    "app_id",
)


def test_a_parked_message_is_the_original_with_its_reason(rooms: Rooms, then: Then) -> None:
    """Whoever replays it later needs all of it, and the queue that it came from."""
    original = delivery()

    rooms.sidings.park(original, REFUSED, then)

    eventually(lambda: then.count == 1)
    [parked] = rooms.publisher.to(PARKED)
    assert parked.body == b"\xff\x00"
    assert abs(parked.headers["parkedAt"] - time.time()) < 60
    assert {k: v for k, v in parked.headers.items() if k != "parkedAt"} == {
        "outcome": "complete",
        "x": 1,
        "reason": "bad-json",
        "reasonDetail": "no JSON",
        "resultQueue": "a.results",
    }
    for name in PROPERTIES:
        assert getattr(parked, name) == getattr(original, name), name
    assert parked.expiration_ms is None
    assert then.parked == 1
    assert rooms.publisher.sent[0].mandatory


def test_a_long_reason_is_cut(rooms: Rooms, then: Then) -> None:
    """Headers are no place for stack traces."""
    rooms.sidings.park(delivery(), ResultRefused("bad-body", "x" * 5000), then)

    eventually(lambda: then.count == 1)
    assert rooms.publisher.to(PARKED)[0].headers["reasonDetail"] == "x" * 1000


def test_a_waiting_message_remembers_its_queue_by_the_routing_key(rooms: Rooms, then: Then) -> None:
    """The waiting room dead-letters by it: the way back needs no code."""
    original = delivery()

    rooms.sidings.wait(original, then)

    eventually(lambda: then.count == 1)
    assert then.parked == 0, "nothing lies parked, so nothing counts as parked"
    [waiting] = rooms.publisher.through(WAIT)
    assert waiting.routing_key == "a.results"
    assert (waiting.body, waiting.headers) == (original.body, original.headers)
    for name in PROPERTIES:
        assert getattr(waiting, name) == getattr(original, name), name


def test_marks_go_with_a_waiting_message(rooms: Rooms, then: Then) -> None:
    """What the broker would overwrite; kept even where the other headers cannot be written."""
    rooms.publisher.decide = lambda p: Outcome.REFUSED if "x" in p.headers else Outcome.CONFIRMED

    rooms.sidings.wait(delivery(), then, {"deadReason": "rejected"})

    eventually(lambda: then.count == 1)
    first, second = rooms.publisher.through(WAIT)
    assert first.headers == {"outcome": "complete", "x": 1, "deadReason": "rejected"}
    assert second.headers == {"deadReason": "rejected"}


def test_the_original_is_kept_until_the_confirm(rooms: Rooms, then: Then) -> None:
    """Let go sooner, a broker that dies would lose the result."""
    rooms.publisher.decide = lambda _: None
    rooms.sidings.park(delivery(), REFUSED, then)
    eventually(lambda: rooms.publisher.pending)
    assert then.count == 0

    rooms.publisher.settle(Outcome.CONFIRMED)

    eventually(lambda: then.count == 1)


@pytest.mark.parametrize("outcome", [Outcome.NACKED, Outcome.RETURNED])
def test_what_cannot_be_parked_waits(rooms: Rooms, then: Then, outcome: Outcome) -> None:
    """The parking queue is full or missing; the prefetch must not fill up with its victims."""
    rooms.publisher.decide = lambda p: outcome if to_parked(p) else Outcome.CONFIRMED

    rooms.sidings.park(delivery(), REFUSED, then)

    eventually(lambda: then.count == 1)
    assert then.parked == 0, "nothing lies parked, so nothing counts as parked"
    [waiting] = rooms.publisher.through(WAIT)
    assert "reason" not in waiting.headers, "it is read anew when it comes back"


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.LATE])
@pytest.mark.parametrize("siding", ["park", "wait"])
def test_a_copy_of_unknown_fate_is_sent_again(
    rooms: Rooms, then: Then, outcome: Outcome, siding: str
) -> None:
    """The connection went: a second copy is better than none."""
    outcomes = iter([outcome, outcome, Outcome.CONFIRMED])
    rooms.publisher.decide = lambda _: next(outcomes)

    if siding == "park":
        rooms.sidings.park(delivery(), REFUSED, then)
    else:
        rooms.sidings.wait(delivery(), then)

    eventually(lambda: then.count == 1)
    assert len(rooms.publisher.sent) == 3


@pytest.mark.parametrize("outcome", [Outcome.NACKED, Outcome.RETURNED])
def test_a_waiting_room_that_takes_nothing_is_tried_again(
    rooms: Rooms, then: Then, outcome: Outcome
) -> None:
    """Somebody deleted it: it is declared again sooner or later."""
    outcomes = iter([outcome, Outcome.CONFIRMED])
    rooms.publisher.decide = lambda _: next(outcomes)

    rooms.sidings.wait(delivery(), then)

    eventually(lambda: then.count == 1)


@pytest.mark.parametrize("siding", ["park", "wait"])
def test_headers_that_cannot_be_written_again_are_left_out(
    rooms: Rooms, then: Then, siding: str
) -> None:
    """A worker's exotic header must not keep its result for ever."""
    rooms.publisher.decide = lambda p: Outcome.REFUSED if "x" in p.headers else Outcome.CONFIRMED

    if siding == "park":
        rooms.sidings.park(delivery(), REFUSED, then)
    else:
        rooms.sidings.wait(delivery(), then)

    eventually(lambda: then.count == 1)
    last = rooms.publisher.sent[-1].publication
    assert last.body == b"\xff\x00"
    assert last.headers.get("reason") == ("bad-json" if siding == "park" else None)


@pytest.mark.parametrize("siding", ["park", "wait"])
def test_what_rabbitmq_would_act_upon_stands_in_headers(
    rooms: Rooms, then: Then, siding: str
) -> None:
    """An expiration would end the copy too, and a user id other than ours closes the channel."""
    original = delivery(expiration="60000", user_id="worker-a")

    copy = copied(rooms, original, then, siding)

    assert copy.expiration_ms is None
    assert copy.headers["originalExpiration"] == "60000"
    assert copy.headers["originalUserId"] == "worker-a"


@pytest.mark.parametrize("siding", ["park", "wait"])
def test_a_copy_goes_to_nobody_else(rooms: Rooms, then: Then, siding: str) -> None:
    """RabbitMQ sends to every queue in CC and BCC, and the copy is sent with the bridge's rights: a
    worker fenced in by its own could write anywhere.
    """
    original = delivery(headers={"CC": ["b.results"], "BCC": ["b"], "x": 1})

    copy = copied(rooms, original, then, siding)

    assert not {"CC", "BCC"} & copy.headers.keys()
    assert copy.headers["x"] == 1


def test_a_waiting_message_has_not_died_before(rooms: Rooms, then: Then) -> None:
    """RabbitMQ drops a message on its way to a queue in which, it says, it expired already."""
    deaths = {"x-death": [{"queue": "a.results"}], "x-first-death-queue": "a.results", "x": 1}

    waiting = copied(rooms, delivery(headers=deaths), then, "wait")
    parked = copied(rooms, delivery(headers=deaths), then, "park")

    assert waiting.headers == {"x": 1}
    assert deaths.items() <= parked.headers.items(), "there it tells what happened"


@pytest.mark.parametrize("siding", ["park", "wait"])
def test_headers_larger_than_a_frame_are_left_out(rooms: Rooms, then: Then, siding: str) -> None:
    """A message arrives with as many as fit; one mark more, and RabbitMQ ends the connection."""
    headers = {"first": 1, "huge": "x" * 130_000, "last": 2}

    copy = copied(rooms, delivery(headers=headers), then, siding)

    assert "huge" not in copy.headers
    assert (copy.headers["first"], copy.headers["last"]) == (1, 2)


def test_only_the_header_that_cannot_be_written_is_left_out(rooms: Rooms, then: Then) -> None:
    """AMQP knows decimals that pika can read and not write."""
    headers = {"price": Decimal("12345678901"), "currency": "EUR"}

    copy = copied(rooms, delivery(headers=headers), then, "park")

    assert "price" not in copy.headers
    assert copy.headers["currency"] == "EUR"


def test_a_message_that_cannot_be_parked_at_all_waits(rooms: Rooms, then: Then) -> None:
    """RabbitMQ refuses its size, for example, since somebody lowered the limit: no endless loop."""
    rooms.publisher.decide = lambda p: Outcome.REFUSED if to_parked(p) else Outcome.CONFIRMED

    rooms.sidings.park(delivery(), REFUSED, then)

    eventually(lambda: then.count == 1)
    assert then.parked == 0
    assert len(rooms.publisher.to(PARKED)) == 2
    assert len(rooms.publisher.through(WAIT)) == 1


def copied(rooms: Rooms, original: Delivery, then: Then, siding: str) -> Publication:
    """The copy that lies in the siding."""
    before = then.count
    if siding == "park":
        rooms.sidings.park(original, REFUSED, then)
    else:
        rooms.sidings.wait(original, then)
    eventually(lambda: then.count == before + 1)
    return rooms.publisher.sent[-1].publication


def test_a_reason_that_utf_8_cannot_carry_is_written_otherwise(rooms: Rooms, then: Then) -> None:
    """The engine's words may hold half a character, and a header cannot: no endless loop."""
    rooms.sidings.park(delivery(), ResultRefused("engine-refused", "bad \ud800 text"), then)

    eventually(lambda: then.count == 1)
    detail = rooms.publisher.to(PARKED)[0].headers["reasonDetail"]
    assert detail.encode() == b"bad \\ud800 text"


def test_trying_again_takes_its_time(
    rooms: Rooms, then: Then, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away is not hammered."""
    monkeypatch.setattr("bridge.sidings.AGAIN_SECONDS", 60.0)
    rooms.publisher.decide = lambda _: Outcome.UNKNOWN

    rooms.sidings.wait(delivery(), then)

    eventually(lambda: len(rooms.publisher.sent) == 1)
    throughout(lambda: len(rooms.publisher.sent) == 1, 0.3)
    assert then.count == 0


@pytest.mark.parametrize(
    ("outcome", "detail", "missed"),
    [
        (Outcome.RETURNED, "312 NO_ROUTE", 1),
        (Outcome.UNKNOWN, "404 NOT_FOUND - no exchange", 1),
        (Outcome.UNKNOWN, "the connection was lost", 0),
        (Outcome.NACKED, "the queue is full", 0),
    ],
)
def test_a_copy_that_finds_no_queue_has_it_looked_for(
    rooms: Rooms, then: Then, outcome: Outcome, detail: str, missed: int
) -> None:
    """Nobody else meets the parking queue and the waiting room: they would stay deleted."""
    told: list[bool] = []
    publisher = TellingPublisher(outcome, detail)
    sidings = Sidings(
        cast("Publisher", publisher), rooms.callers, PARKED, WAIT, lambda: told.append(True)
    )

    sidings.wait(delivery(), then)

    eventually(lambda: then.count == 1)
    assert len(told) == missed


def test_a_waiting_room_that_is_not_reached_is_told_once(rooms: Rooms, then: Then) -> None:
    """Results hang meanwhile: a warning, and not one for each try of each of them."""
    outcomes = iter([Outcome.RETURNED, Outcome.RETURNED, Outcome.CONFIRMED])
    rooms.publisher.decide = lambda _: next(outcomes)

    with capture_logs() as logs:
        rooms.sidings.wait(delivery(), then)
        eventually(lambda: then.count == 1)

    told = [(line["log_level"], line["event"]) for line in logs if "waiting room" in line["event"]]
    assert told == [
        ("warning", "the waiting room is not reached"),
        ("debug", "the waiting room is not reached"),
        ("info", "the waiting room is reached again"),
    ]


class TellingPublisher:
    """Settles the first message with an outcome and its detail, confirms the others."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        self._first = [(outcome, detail)]

    def publish(self, _publication: Publication, done: Callable[[Outcome, str], None]) -> None:
        done(*(self._first.pop() if self._first else (Outcome.CONFIRMED, "")))
