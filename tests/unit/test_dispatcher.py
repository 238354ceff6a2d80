"""Engine to RabbitMQ: room is never exceeded, faults stay with their topic, stop gives back."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from bridge import dispatcher
from bridge.broker import Outcome
from bridge.clock import monotonic
from bridge.errors import BrokerUnavailable
from bridge.messages import LockedTask, Publication
from bridge.simulated_engine import Answer, Drop, Hold, SimulatedEngine
from tests.support.rooms import Rooms, make_topic, timing
from tests.support.waiting import eventually, throughout
from tests.unit.conftest import Open


@pytest.fixture
def one(open_rooms: Open) -> Rooms:
    """One replica that fetches topic `a`."""
    return open_rooms().start(dispatcher=True)


def task_of(publication: Publication) -> str:
    return str(publication.headers["taskId"])


def published(rooms: Rooms, topic: str = "a") -> list[str]:
    return [task_of(p) for p in rooms.publisher.to(topic)]


def fetches(rooms: Rooms, topic: str = "a") -> list[Any]:
    calls = rooms.engine.calls.of("fetchAndLock")
    return [c.body for c in calls if any(t["topicName"] == topic for t in c.body["topics"])]


def lapse(rooms: Rooms) -> None:
    """Let every lock lapse.  Only the engine's time jumps: a poll under way is no older for it."""
    rooms.engine.clock.advance(61)


def paused(rooms: Rooms, topic: str = "a") -> None:
    """Wait until a topic is left alone: no poll of before covers it any more."""
    eventually(lambda: not rooms.circuits.is_closed(topic))
    if len(rooms.topics) == 1:
        eventually(lambda: rooms.engine.waiting_polls == 0)


# The path of a task


def test_a_task_becomes_a_message(one: Rooms) -> None:
    """Persistent and mandatory is the publisher's affair; the rest is said here."""
    task_id = one.instance(variables={"amount": 5})

    eventually(lambda: published(one) == [task_id])

    [sent] = one.publisher.sent
    message = sent.publication
    assert json.loads(message.body)["variables"] == {"amount": 5}
    assert one.signer.verify(message.correlation_id, "a").task_id == task_id
    assert (message.message_id, message.reply_to) == (f"{task_id}:-", "a.results")
    assert sent.mandatory
    eventually(lambda: one.count("confirmed") == 1)
    assert one.count("fetched") == 1
    assert one.ledger.held("a") == 1


def test_a_task_is_remembered_before_it_is_published(one: Rooms) -> None:
    """Its result may beat the confirm."""
    seen: list[bool] = []

    def decide(publication: Publication) -> Outcome:
        seen.append(task_of(publication) in one.ledger)
        return Outcome.CONFIRMED

    one.publisher.decide = decide
    one.instance()

    eventually(lambda: seen == [True])


def test_the_token_names_the_attempt(one: Rooms) -> None:
    """The next attempt's message is another message."""
    task_id = one.instance()
    eventually(lambda: len(published(one)) == 1)
    one.ledger.settle(task_id)
    one.client.failure(
        task_id, message="m", details="", retries=2, pause=0, variables={}, local_variables={}
    )

    eventually(lambda: published(one) == [task_id, task_id])

    again = one.publisher.sent[1].publication
    assert again.message_id == f"{task_id}:2"
    assert one.signer.verify(again.correlation_id, "a").retries == 2


def test_one_long_poll_serves_all_topics(open_rooms: Open) -> None:
    """The engine has one thread for all waiting polls; a quarter of the window bounds the wait."""
    short = make_topic("b", timing=timing(publish_window=0.8))
    rooms = open_rooms(make_topic("a"), short).start(dispatcher=True)

    eventually(lambda: rooms.engine.calls.of("fetchAndLock"))

    call = rooms.engine.calls.of("fetchAndLock")[0]
    assert [t["topicName"] for t in call.body["topics"]] == ["a", "b"]
    assert call.body["asyncResponseTimeout"] == 200


def test_the_poll_asks_for_the_smallest_room(open_rooms: Open) -> None:
    """Any topic may fill it alone."""
    small = make_topic("b", timing=timing(capacity=7))
    rooms = open_rooms(make_topic("a"), small).start(dispatcher=True)

    eventually(lambda: rooms.engine.calls.of("fetchAndLock"))

    assert rooms.engine.calls.of("fetchAndLock")[0].body["maxTasks"] == 7


def test_a_poll_that_found_all_there_was_is_not_followed_by_a_fetch(one: Rooms) -> None:
    """At low load a task costs one call to fetch it, and no second one that finds nothing."""
    started: list[str] = []
    for _ in range(3):
        started.append(one.instance())
        eventually(lambda: published(one) == started)

    assert all("asyncResponseTimeout" in call for call in fetches(one))


def test_a_topic_is_polled_again_when_its_queue_has_answered(
    one: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that covered a topic without a queue would lock tasks in vain."""
    monkeypatch.setattr(dispatcher, "DRAIN_PATIENCE_SECONDS", 10.0)
    polls: list[int] = []

    def decide(_: Publication) -> Outcome:
        time.sleep(0.1)
        polls.append(one.engine.waiting_polls)
        return Outcome.NACKED

    one.publisher.decide = decide
    one.instance()

    paused(one)
    assert polls == [0]
    throughout(lambda: one.engine.waiting_polls == 0, 0.3)


# Room


def test_the_room_of_a_topic_is_never_exceeded(open_rooms: Open) -> None:
    """Back-pressure: what the workers do not answer stays in the engine, unlocked."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=5)))
    for _ in range(20):
        rooms.instance()
    rooms.start(dispatcher=True)

    eventually(lambda: len(published(rooms)) == 5)
    throughout(lambda: len(published(rooms)) == 5, 0.4)

    assert len(rooms.engine.tasks(locked=True)) == 5
    assert rooms.ledger.room("a") == 0


def test_room_that_comes_back_is_used(open_rooms: Open) -> None:
    """Each result makes place for a task."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=2)))
    tasks = {rooms.instance() for _ in range(6)}
    rooms.start(dispatcher=True)

    for number in range(6):
        eventually(lambda n=number: len(published(rooms)) > n)  # type: ignore[misc]
        done = published(rooms)[number]
        rooms.client.complete(done, {}, {})
        rooms.ledger.settle(done)

    assert set(published(rooms)) == tasks
    assert len(published(rooms)) == 6


def test_without_room_nothing_is_fetched(open_rooms: Open) -> None:
    """A fetch locks what it brings: there must be a place for it."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=1)))
    rooms.in_flight()
    rooms.engine.calls.clear()
    rooms.start(dispatcher=True)

    throughout(lambda: fetches(rooms) == [], 0.4)


def test_without_a_broker_nothing_is_fetched(open_rooms: Open) -> None:
    """Its messages would only wait while their locks lapse."""
    rooms = open_rooms()
    rooms.publisher.ready.clear()
    task_id = rooms.instance()
    rooms.start(dispatcher=True)
    throughout(lambda: fetches(rooms) == [], 0.3)

    rooms.publisher.ready.set()

    eventually(lambda: published(rooms) == [task_id])


def test_a_backlog_of_bytes_stops_the_fetch_of_its_topic(open_rooms: Open) -> None:
    """Large messages fill the memory long before the room is used up; other topics go on."""
    rooms = open_rooms(make_topic("a"), make_topic("b"))
    rooms.publisher.backlog_bytes = {"a": 65 * 1024 * 1024}
    large, small = rooms.instance("a"), rooms.instance("b")
    rooms.start(dispatcher=True)
    eventually(lambda: published(rooms, "b") == [small])
    throughout(lambda: fetches(rooms, "a") == [], 0.3)

    rooms.publisher.backlog_bytes = {}

    eventually(lambda: published(rooms, "a") == [large])


def test_a_topic_may_wait_for_a_consumer(open_rooms: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens the tasks stay visible in the engine."""
    monkeypatch.setattr("bridge.dispatcher.COUNT_CONSUMERS_SECONDS", 0.05)
    rooms = open_rooms(make_topic("a", wait_for_consumer=True, queue="qa"))
    listening, asked = [0], set[str]()

    def consumers(queue: str) -> int:
        asked.add(queue)
        return listening[0]

    rooms.consumers = consumers
    task_id = rooms.instance()
    rooms.start(dispatcher=True)
    eventually(lambda: asked == {"qa"})
    throughout(lambda: fetches(rooms) == [], 0.3)

    listening[0] = 1

    eventually(lambda: published(rooms) == [task_id])


def test_consumers_that_cannot_be_counted_change_nothing(
    open_rooms: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker was away for a moment: the last count stands."""
    monkeypatch.setattr("bridge.dispatcher.COUNT_CONSUMERS_SECONDS", 0.02)
    rooms = open_rooms(make_topic("a", wait_for_consumer=True))
    counts, failures = iter([1]), list[int]()

    def consumers(_: str) -> int:
        for count in counts:
            return count
        failures.append(1)
        raise BrokerUnavailable("away")

    rooms.consumers = consumers
    rooms.start(dispatcher=True)
    eventually(lambda: len(failures) > 2)

    task_id = rooms.instance()

    eventually(lambda: published(rooms) == [task_id])


def test_a_flood_of_one_topic_does_not_delay_the_first_task_of_another(open_rooms: Open) -> None:
    """Promise 6: `b` gets through while `a` has hundreds waiting and no room left."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=20)), make_topic("b"))
    for _ in range(300):
        rooms.instance("a")
    rooms.start(dispatcher=True)
    eventually(lambda: len(published(rooms, "a")) == 20)

    task_id = rooms.instance("b")

    eventually(lambda: published(rooms, "b") == [task_id], 3)
    assert len(published(rooms, "a")) == 20


def test_a_flood_that_is_worked_off_does_not_keep_others_out(open_rooms: Open) -> None:
    """Every task of `a` is answered at once, so that its room never ends."""
    rooms = open_rooms(make_topic("a"), make_topic("b"))
    for _ in range(300):
        rooms.instance("a")

    def decide(publication: Publication) -> Outcome:
        if publication.lane == "a":
            rooms.ledger.settle(task_of(publication))
        return Outcome.CONFIRMED

    rooms.publisher.decide = decide
    rooms.start(dispatcher=True)
    eventually(lambda: len(published(rooms, "a")) >= 50)

    task_id = rooms.instance("b")

    eventually(lambda: published(rooms, "b") == [task_id], 3)
    eventually(lambda: len(published(rooms, "a")) == 300)


# What becomes of messages


def test_a_message_that_is_too_late_is_dropped(open_rooms: Open) -> None:
    """After half the window nobody knows whose the task is by the time it is read."""
    rooms = open_rooms()
    answer = rooms.engine.faults.add("fetchAndLock", when="after", action=Hold())
    task_id = rooms.instance()
    rooms.start(dispatcher=True)
    assert answer.reached.wait(10)

    rooms.advance(31)
    answer.release()

    eventually(lambda: rooms.count("late") == 1)
    assert published(rooms) == []
    assert task_id not in rooms.ledger
    assert rooms.circuits.is_closed("a"), "the broker is not to blame"
    lapse(rooms)

    eventually(lambda: published(rooms) == [task_id])


@pytest.mark.parametrize("outcome", [Outcome.RETURNED, Outcome.NACKED])
def test_a_refused_message_pauses_its_topic_and_has_its_queue_repaired(
    one: Rooms, outcome: Outcome
) -> None:
    """A missing or full queue costs no business retry: the lock lapses, the task comes again."""
    one.publisher.decide = lambda _: outcome
    task_id = one.instance()

    paused(one)
    assert "the test says" in one.circuits.problems()["a"]
    assert task_id not in one.ledger
    one.publisher.decide = lambda _: Outcome.CONFIRMED
    one.advance(61)

    eventually(lambda: one.repairs == ["a"])
    eventually(lambda: len(published(one)) == 2)
    eventually(lambda: one.circuits.is_closed("a"))
    assert one.engine.tasks()[0]["retries"] is None
    assert one.count(outcome.value) == 1
    assert one.circuits.problems() == {}


def test_a_confirm_of_before_the_refusal_does_not_end_the_pause(one: Rooms) -> None:
    """The pipeline still holds messages that the queue took before it was full."""
    one.publisher.decide = lambda _: None
    one.instance()
    one.instance()
    eventually(lambda: len(one.publisher.pending) == 2)
    one.publisher.pending.reverse()
    one.publisher.settle(Outcome.NACKED, "full")
    one.publisher.settle(Outcome.CONFIRMED)

    eventually(lambda: one.count("confirmed") == 1)

    assert one.circuits.problems() == {"a": "full"}


def test_a_paused_topic_is_not_fetched(one: Rooms) -> None:
    """Each fetch would lock tasks for a window in vain."""
    one.publisher.decide = lambda _: Outcome.NACKED
    one.instance()
    paused(one)
    one.engine.calls.clear()
    one.publisher.sent.clear()

    throughout(lambda: published(one) == [], 0.4)


def test_a_topic_whose_queue_stays_unusable_is_tried_with_single_tasks(one: Rooms) -> None:
    """Half open: one task, not a hundred, finds out."""
    one.publisher.decide = lambda _: Outcome.NACKED
    one.instance()
    paused(one)
    for _ in range(30):
        one.instance()
    one.publisher.sent.clear()

    one.advance(2)

    eventually(lambda: len(published(one)) == 1)
    throughout(lambda: len(published(one)) == 1, 0.3)


def test_a_repaired_topic_without_tasks_is_probed_once_a_second(one: Rooms) -> None:
    """Nothing can prove it; asking in a loop would only load the engine."""
    one.publisher.decide = lambda _: Outcome.NACKED
    one.instance()
    paused(one)
    one.engine.calls.clear()
    one.advance(2)
    eventually(lambda: len(fetches(one)) == 1)

    throughout(lambda: len(fetches(one)) == 1, 0.5)

    one.advance(1)
    eventually(lambda: len(fetches(one)) == 2)


@pytest.mark.parametrize("broken", ["cannot be declared", "broker away"])
def test_a_queue_that_cannot_be_repaired_keeps_the_topic_paused(one: Rooms, broken: str) -> None:
    """The reason stays visible; the next try comes later."""

    def repair(_: str) -> bool:
        if broken == "broker away":
            raise BrokerUnavailable("no broker")
        return False

    one.repair = repair
    one.publisher.decide = lambda _: Outcome.RETURNED
    one.instance()
    paused(one)
    one.publisher.sent.clear()
    one.advance(2)

    eventually(lambda: one.repairs == ["a"])
    one.settled()

    throughout(lambda: published(one) == [], 0.3)
    reason = one.circuits.problems()["a"]
    assert reason == ("no broker" if broken == "broker away" else "the test says returned")
    one.advance(3)
    eventually(lambda: one.repairs == ["a", "a"])


def test_another_topic_flows_while_one_is_paused(open_rooms: Open) -> None:
    """One bad queue never stops the others."""
    rooms = open_rooms(make_topic("a"), make_topic("b")).start(dispatcher=True)
    rooms.publisher.decide = lambda p: Outcome.NACKED if p.lane == "a" else Outcome.CONFIRMED
    rooms.instance("a")
    eventually(lambda: not rooms.circuits.is_closed("a"))

    task_id = rooms.instance("b")

    eventually(lambda: published(rooms, "b") == [task_id])


def test_a_message_of_unknown_fate_is_forgotten_and_offered_again(one: Rooms) -> None:
    """The connection went: a duplicate is better than a loss."""
    one.publisher.decide = lambda _: None
    task_id = one.instance()
    eventually(lambda: one.publisher.pending)
    one.publisher.ready.clear()

    one.publisher.settle(Outcome.UNKNOWN, "connection lost")

    eventually(lambda: task_id not in one.ledger)
    assert one.circuits.is_closed("a"), "the connection's loss is not the queue's fault"
    assert one.lock_left(task_id) > 50


def test_a_channel_that_closes_pauses_its_topic(one: Rooms) -> None:
    """Connected and yet unknown: the exchange is missing, for example."""
    one.publisher.decide = lambda _: None
    one.instance()
    eventually(lambda: one.publisher.pending)

    one.publisher.settle(Outcome.UNKNOWN, "404 no exchange")

    eventually(lambda: one.circuits.problems() == {"a": "404 no exchange"})


def test_a_message_that_cannot_be_written_is_an_incident(one: Rooms) -> None:
    """No further attempt could mend it; the queue is not to blame."""
    one.publisher.decide = lambda _: Outcome.REFUSED
    task_id = one.instance()

    eventually(lambda: (one.task(task_id) or {})["retries"] == 0)

    assert "cannot be written" in (one.task(task_id) or {})["errorMessage"]
    eventually(lambda: task_id not in one.ledger)
    assert one.circuits.is_closed("a")


def test_a_task_too_large_for_a_message_is_an_incident(open_rooms: Open) -> None:
    """The operator reads which setting would help."""
    rooms = open_rooms(make_topic("a", shape={"max_bytes": 900})).start(dispatcher=True)
    task_id = rooms.instance(variables={"text": "x" * 1000})
    good = rooms.instance()

    eventually(lambda: (rooms.task(task_id) or {})["retries"] == 0)

    assert "max_task_bytes" in (rooms.task(task_id) or {})["errorMessage"]
    eventually(lambda: published(rooms) == [good])
    eventually(lambda: task_id not in rooms.ledger)


def test_a_task_id_that_no_token_can_carry_stops_nobody(one: Rooms) -> None:
    """An engine may have an id generator of its own."""
    ends = "2099-01-01T00:00:00.000+0000"
    odd = LockedTask(id="a/b", topic_name="a", process_instance_id="p", lock_expiration_time=ends)

    one.handover.take(odd, monotonic())
    good = one.instance()

    eventually(lambda: published(one) == [good])
    eventually(lambda: odd.id not in one.ledger)


def test_an_incident_that_cannot_be_raised_lets_the_task_go(one: Rooms) -> None:
    """It comes again with its lock's end; the callers live on."""
    one.engine.faults.add("getTask", when="before", times=None, action=Answer(500, {"code": 0}))
    one.publisher.decide = lambda _: Outcome.REFUSED

    task_id = one.instance()

    eventually(lambda: one.engine.calls.of("getTask", task_id))
    eventually(lambda: task_id not in one.ledger)


def test_a_task_whose_worker_never_answers_is_completed_by_its_confirm(open_rooms: Open) -> None:
    """`reply = "none"`."""
    rooms = open_rooms(make_topic("a", replies={"profile": "none"})).start(dispatcher=True)
    rooms.publisher.decide = lambda _: None
    task_id = rooms.instance()
    eventually(lambda: rooms.publisher.pending)
    assert rooms.task(task_id) is not None

    rooms.publisher.settle(Outcome.CONFIRMED)

    eventually(lambda: rooms.task(task_id) is None)
    eventually(lambda: rooms.ledger.held("a") == 0)


# Files


def file(content: bytes) -> dict[str, Any]:
    info = {"filename": "f.txt", "mimeType": "text/plain"}
    return {"value": base64.b64encode(content).decode(), "type": "File", "valueInfo": info}


@pytest.mark.parametrize(("limit", "inline"), [(0, False), (3, True), (2, False)])
def test_a_small_file_travels_inline(open_rooms: Open, limit: int, inline: bool) -> None:
    """Up to the topic's limit; the address is always there."""
    rooms = open_rooms(make_topic("a", file_inline_max=limit)).start(dispatcher=True)
    rooms.instance(variables={"scan": file(b"abc"), "n": 1})

    eventually(lambda: published(rooms))

    scan = json.loads(rooms.publisher.sent[0].publication.body)["variables"]["scan"]
    assert scan["filename"] == "f.txt"
    assert scan["url"].startswith(rooms.engine.url)
    assert scan.get("content") == ("YWJj" if inline else None)
    assert len(rooms.engine.calls.of("variableData")) == (0 if limit == 0 else 1)


def test_a_file_that_cannot_be_read_stays_an_address(open_rooms: Open) -> None:
    """The worker may still fetch it itself."""
    rooms = open_rooms(make_topic("a", file_inline_max=100)).start(dispatcher=True)
    rooms.engine.faults.add("variableData", when="before", action=Drop())
    rooms.instance(variables={"scan": file(b"abc")})

    eventually(lambda: published(rooms))

    scan = json.loads(rooms.publisher.sent[0].publication.body)["variables"]["scan"]
    assert "content" not in scan


# The engine


def test_an_engine_that_is_away_is_tried_again(one: Rooms) -> None:
    """`/ready` tells why; its return needs nobody."""
    one.engine.stop()
    eventually(lambda: one.dispatcher.problem)

    one.engine.start()
    task_id = one.instance()

    eventually(lambda: published(one) == [task_id])
    eventually(lambda: one.dispatcher.problem is None)


def test_one_bad_filter_does_not_keep_other_topics_from_their_tasks(open_rooms: Open) -> None:
    """The engine refuses the whole request for it: it is found and left out."""
    bad = make_topic("bad", fetch={"lockDuration": 0})
    rooms = open_rooms(make_topic("a"), bad, make_topic("b")).start(dispatcher=True)
    first, second = rooms.instance("a"), rooms.instance("b")

    eventually(lambda: published(rooms, "a") == [first])
    eventually(lambda: published(rooms, "b") == [second])

    eventually(lambda: list(rooms.circuits.problems()) == ["bad"])
    assert not rooms.circuits.is_closed("bad")
    third = rooms.instance("b")
    eventually(lambda: published(rooms, "b") == [second, third])


def test_a_topic_whose_fetch_works_again_flows(one: Rooms) -> None:
    """An engine that stumbled once must not pause a topic for good."""
    stumble = Answer(500, {"type": "ProcessEngineException", "message": "x", "code": 0})
    one.engine.faults.add("fetchAndLock", when="before", action=stumble)
    paused(one)
    one.advance(2)

    eventually(lambda: one.circuits.is_closed("a"), what="closed without a task to prove it")

    task_id = one.instance()
    eventually(lambda: published(one) == [task_id])


def test_a_lost_answer_of_a_fetch_costs_a_window_and_no_task(one: Rooms) -> None:
    """What was locked and never heard of comes again when its lock lapses."""
    one.engine.faults.add("fetchAndLock", when="response", action=Drop(), times=1)
    task_id = one.instance()
    eventually(lambda: one.dispatcher.problem is None and len(fetches(one)) > 2)

    lapse(one)

    eventually(lambda: published(one) == [task_id])


# Stop


def test_a_task_that_was_fetched_while_stopping_is_given_back(open_rooms: Open) -> None:
    """Never given to the broker: another replica may have it at once."""
    rooms = open_rooms()
    answer = rooms.engine.faults.add("fetchAndLock", when="after", action=Hold())
    task_id = rooms.instance()
    rooms.start(dispatcher=True)
    assert answer.reached.wait(10)

    rooms.stopping.set()
    answer.release()

    eventually(lambda: rooms.engine.calls.of("unlock", task_id))
    eventually(lambda: task_id not in rooms.ledger)
    assert rooms.lock_left(task_id) < 0
    assert published(rooms) == []


def test_what_waits_for_its_channel_is_given_back_at_the_stop(one: Rooms) -> None:
    """The publisher takes it back as LATE."""
    one.publisher.decide = lambda _: None
    task_id = one.instance()
    eventually(lambda: one.publisher.pending)

    one.stopping.set()
    one.publisher.take_back()

    eventually(lambda: one.engine.calls.of("unlock", task_id))
    eventually(lambda: one.lock_left(task_id) < 0)


def test_a_task_that_a_peer_holds_by_now_is_not_unlocked(one: Rooms) -> None:
    """An older copy of it has failed and a peer has fetched the retry: /unlock checks no owner."""
    one.publisher.decide = lambda _: None
    task_id = one.instance()
    eventually(lambda: one.publisher.pending)
    one.engine_sets_retries(task_id, 2)

    one.stopping.set()
    one.publisher.take_back()

    eventually(lambda: task_id not in one.ledger)
    one.settled()
    assert one.engine.calls.of("unlock") == ()


def test_what_may_be_anothers_already_is_not_unlocked(one: Rooms) -> None:
    """/unlock checks no owner: with less than a third of the window left it is too late."""
    one.publisher.decide = lambda _: None
    task_id = one.instance()
    eventually(lambda: one.publisher.pending)
    one.advance(41)

    one.stopping.set()
    one.publisher.take_back()

    eventually(lambda: task_id not in one.ledger)
    one.settled()
    assert one.engine.calls.of("unlock") == ()


def test_an_unlock_that_fails_lets_the_lock_lapse(one: Rooms) -> None:
    """A stop has no patience."""
    one.publisher.decide = lambda _: None
    task_id = one.instance()
    eventually(lambda: one.publisher.pending)
    one.engine.faults.add("unlock", when="before", times=None, action=Answer(500, {"code": 0}))

    one.stopping.set()
    one.publisher.take_back()

    eventually(lambda: one.engine.calls.of("unlock", task_id))
    eventually(lambda: task_id not in one.ledger)
    one.settled()


def test_a_message_confirmed_after_the_stop_began_counts(one: Rooms) -> None:
    """It is in its queue: it must be leased, not given back."""
    one.publisher.decide = lambda _: None
    task_id = one.instance()
    eventually(lambda: one.publisher.pending)
    one.stopping.set()

    one.publisher.settle(Outcome.CONFIRMED)

    eventually(lambda: one.count("confirmed") == 1)
    assert task_id in one.ledger
    assert one.engine.calls.of("unlock") == ()


def test_tasks_of_a_topic_that_nobody_asked_for_are_left_alone(
    rooms: Rooms, simulated: SimulatedEngine
) -> None:
    """An engine's mistake must not end in a foreign queue."""
    rooms.instance("b")
    fetched = rooms.client.fetch_and_lock([{"topicName": "b", "lockDuration": 60_000}], 1)

    rooms.handover.take(fetched.tasks[0], fetched.began)

    rooms.settled()
    assert len(rooms.ledger) == 0
    assert rooms.publisher.sent == []
    assert simulated.calls.of("unlock") == ()
