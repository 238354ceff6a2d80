"""Parking and waiting: the original is let go only once the copy lies where it belongs."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.broker import Outcome
from bridge.errors import ResultRefused
from bridge.messages import Delivery, Publication
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
    "app_id",
)


def test_a_parked_message_is_the_original_with_its_reason(rooms: Rooms, then: Then) -> None:
    """Whoever replays it later needs all of it, and the queue that it came from."""
    original = delivery()

    rooms.sidings.park(original, REFUSED, then)

    eventually(lambda: then.count == 1)
    [parked] = rooms.publisher.to(PARKED)
    assert parked.body == b"\xff\x00"
    assert parked.headers == {
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
