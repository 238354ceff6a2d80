"""What a parked message says of itself, and what the commands refuse before they ask anybody."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.broker.holding import UNREADABLE, Held
from bridge.cli import app
from bridge.cli.parked_text import none_of, show_document, shown
from bridge.cli.printing import as_json
from bridge.desk.parked import Chosen
from bridge.desk.parked_message import (
    Parked,
    Shown,
    digest_of,
    id_of,
    is_unreadable,
    parked_at,
    reason_of,
    source_of,
)
from bridge.messages import Delivery

BASE = Delivery(
    queue="bridge.parked",
    body=b"{bad",
    headers={"reason": "bad-json", "resultQueue": "pay.results", "trace": "t"},
    generation=0,
    tag=1,
    message_id="m1",
    correlation_id="c1",
)
DEATH = {"queue": "pay.results", "reason": "delivery_limit", "time": datetime(2026, 1, 2)}  # noqa: DTZ001 (as pika may give it)
UNREACHABLE = 'url = "amqp://guest:guest@127.0.0.1:1/%2F"'


def digest(**changes: object) -> str:
    return digest_of(Held(replace(BASE, **changes)))  # type: ignore[arg-type]


def test_an_id_does_not_change_by_being_looked_at() -> None:
    """It is typed into the next command: RabbitMQ's counts, and where it lies, do not matter."""
    counted = {**BASE.headers, "x-delivery-count": 3, "x-acquired-count": 4}

    assert digest(headers=counted, tag=7, redelivered=True) == digest()


def test_a_copy_that_takes_the_place_of_a_message_has_its_id() -> None:
    """It cannot have the user id of another user, which then stands in a header."""
    copied = {**BASE.headers, "originalUserId": "worker"}

    assert digest(headers=copied) == digest(user_id="worker")


def test_an_unreadable_message_has_the_id_of_the_copy_of_its_body() -> None:
    """Its properties do not outlive the second look, and the id was read at the first."""
    unreadable = Held(replace(BASE, headers={}, correlation_id=None), "ValueError")
    fresh = {"reason": UNREADABLE, "reasonDetail": "why"}
    copy = Held(Delivery(BASE.queue, BASE.body, fresh, generation=0, tag=2))

    assert digest_of(copy) == digest_of(unreadable)
    assert digest_of(replace(unreadable, delivery=replace(BASE, body=b"x"))) != digest_of(copy)
    assert [is_unreadable(one) for one in (unreadable, copy, Held(BASE))] == [True, True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"{bad "},
        {"message_id": "m2"},
        {"correlation_id": None},
        {"timestamp": 1},
        {"headers": {**BASE.headers, "trace": "u"}},
        {"headers": {**BASE.headers, "at": datetime(2026, 1, 1, tzinfo=UTC)}},
    ],
)
def test_two_messages_that_differ_have_two_ids(changes: dict[str, object]) -> None:
    """Nobody shall drop another one than the one they have read."""
    assert digest(**changes) != digest()


def test_twins_are_numbered() -> None:
    """They do not differ in anything, so any of them may be the second."""
    assert (id_of("ab", 1), id_of("ab", 2)) == ("ab", "ab-2")


def test_what_rabbitmq_parked_by_itself_tells_its_own_reason() -> None:
    """A result that the bridge could not survive was moved by its queue's delivery limit."""
    moved = replace(BASE, headers={"x-death": [DEATH]})

    assert (reason_of(moved), source_of(moved)) == ("delivery_limit", "pay.results")
    assert parked_at(moved) == datetime(2026, 1, 2, tzinfo=UTC).timestamp()


def test_our_own_marks_come_first() -> None:
    """An earlier death was only a stay in the waiting room."""
    both = replace(BASE, headers={**BASE.headers, "parkedAt": 5, "x-death": [DEATH]})

    assert (reason_of(both), source_of(both), parked_at(both)) == ("bad-json", "pay.results", 5.0)


@pytest.mark.parametrize("death", [None, "x", [], ["x"], [{}], [{"queue": 1, "time": "soon"}]])
def test_headers_of_any_shape_are_read(death: object) -> None:
    """Whoever may publish there may write anything."""
    strange = replace(BASE, headers={"resultQueue": 5, "parkedAt": "x", "x-death": death})

    assert (reason_of(strange), source_of(strange), parked_at(strange)) == ("unknown", None, None)


def test_messages_are_chosen_by_id_reason_and_topic() -> None:
    """All that is said must hold."""
    parked = Parked("ab", "bad-json", "pay", None, "pay.results", None, 4)

    assert parked in Chosen()
    assert parked in Chosen(frozenset({"ab"}), "JSON", "pay")
    assert parked not in Chosen(frozenset({"cd"}))
    assert parked not in Chosen(reason="token")
    assert parked not in Chosen(topic="ship")


def test_whatever_a_header_holds_can_be_shown() -> None:
    """As text and as JSON; a body that is no text comes in Base64."""
    headers = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("9.90"),
        "blob": b"\xff",
        "nested": {"list": [1, 2.5, None, math.nan]},
        "wild": "\x1b[2J",
    }
    parked = Parked("ab", "bad-json", "pay", None, "pay.results", 61.0, 1)
    found = Shown(parked, "why\x07", {"messageId": "m"}, headers, b"\xff")

    document = json.loads(as_json(show_document(found, with_body=True)))
    text = shown(found, with_body=True)

    assert document["headers"] == {
        "at": "2026-01-02 00:00:00+00:00",
        "price": "9.90",
        "blob": "\\xff",
        "nested": {"list": [1, 2.5, None, "nan"]},
        "wild": "\x1b[2J",
    }
    assert document["bodyBase64"] == "/w=="
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.endswith("\n\\xff")


@pytest.mark.parametrize(
    ("total", "reason", "topic", "words"),
    [
        (0, None, "pay", "nothing is parked"),
        (1, None, "no\x1bsuch", "none of topic no\\x1bsuch; 1 in all"),
        (3, "json", None, "none with reason json; 3 in all"),
        (3, "json", "pay", "none of topic pay with reason json; 3 in all"),
    ],
)
def test_that_nothing_was_chosen_does_not_mean_that_nothing_is_parked(
    total: int, reason: str | None, topic: str | None, words: str
) -> None:
    """A mistyped topic must not read as an all-clear."""
    assert none_of(total, reason, topic) == words


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bridge.toml"
    path.write_text(f"[broker]\n{UNREACHABLE}\n[topics.pay]\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay"], "--all"),
        (["drop", "ab", "--all"], "--all"),
        (["replay", "ab", "cd", "--edit", "x"], "--edit"),
        (["replay", "--all", "--edit", "x"], "--edit"),
        (["replay", "ab", "--edit", "not-there"], "not-there"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: Path, arguments: list[str], words: str) -> None:
    """Before anything is touched."""
    done = CliRunner().invoke(app, ["parked", *arguments, "--config", str(config)])

    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "ab"], ["replay", "ab", "--yes"], ["drop", "--all", "--yes"]]
)
def test_a_broker_that_is_away_is_exit_code_3(config: Path, arguments: list[str]) -> None:
    """A script can tell it from a queue with nothing in it."""
    done = CliRunner().invoke(app, ["parked", *arguments, "--config", str(config)])

    assert done.exit_code == 3
    assert done.stderr.startswith("RabbitMQ at 127.0.0.1:1: ")
    assert "[broker] url" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["parked", "list"], ["parked", "show", "ab"], ["parked", "drop", "ab"], ["topics"], ["top"]],
)
def test_bad_settings_are_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    """With the key, before anybody is asked."""
    path = tmp_path / "bridge.toml"
    path.write_text("[topics.pay]\nretrys = 3\n")

    done = CliRunner().invoke(app, [*arguments, "--config", str(path)])

    assert (done.exit_code, "topics.pay.retrys" in done.stderr) == (2, True)
