"""A reload: what differs, what of it is taken over, and what the rooms make of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import plan
from bridge.broker import BrokerOptions, Consumer, Topology
from bridge.changeover import Changeover
from bridge.circuit import Circuit, State
from bridge.errors import BrokerUnavailable, SettingsError
from bridge.messages import Delivery
from bridge.protocol import RetryPolicy
from bridge.reload import Difference, compare
from bridge.settings import Settings, load
from bridge.topics import Topics
from tests.support.rooms import DEAD, Rooms, make_topic, timing
from tests.support.waiting import eventually
from tests.unit.conftest import Open

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The settings that a TOML text means."""

    def read(text: str, **environ: str) -> Settings:
        config = tmp_path / "bridge.toml"
        config.write_text(text)
        return load(config, environ)

    return read


def differ(old: Settings, new: Settings, **consumed: str) -> Difference:
    windows = {name: keys.publish_window for name, keys in old.topics.items()}
    return compare(old, new, windows=windows, consumed=consumed)


def texts(changes: Any) -> dict[str, tuple[str, str]]:
    return {change.key: (change.old, change.new) for change in changes}


# What differs


def test_the_same_settings_do_not_differ(read: Read) -> None:
    """SIGHUP for nothing changes nothing."""
    settings = read("[topics.a]\nretries = 2")

    found = differ(settings, read("[topics.a]\nretries = 2"))

    assert found == Difference(settings, (), (), (), (), ())


def test_topics_are_added_and_removed(read: Read) -> None:
    """Also those that the environment names."""
    found = differ(read("[topics.a]\n[topics.b]"), read("[topics.b]", BRIDGE_TOPICS="c"))

    assert (found.added, found.removed) == (("c",), ("a",))
    assert list(found.settings.topics) == ["b", "c"]
    assert found.changed == ()


def test_a_change_is_told_as_it_is_written(read: Read) -> None:
    """The operator recognizes the line of the file; a default counts for every topic."""
    old = read('[topics."a b"]\nqueue = "q"\n[topics.c]\nvariables = ["x"]')
    new = read(
        '[topic_defaults]\nlease = "20m"\n[topics."a b"]\nqueue = "q"\npriority = true\n'
        '[topics.c]\nprocess_variables = { kind = "vip", n = 1 }\nresult_variable = "r"'
    )

    assert texts(differ(old, new).changed) == {
        'topics."a b".lease': ("10m", "20m"),
        'topics."a b".priority': ("false", "true"),
        "topics.c.lease": ("10m", "20m"),
        "topics.c.variables": ('["x"]', "not set"),
        "topics.c.process_variables": ("{}", '{kind = "vip", n = 1}'),
        "topics.c.result_variable": ("not set", '"r"'),
    }


def test_a_queue_takes_its_routing_key_along(read: Read) -> None:
    """Nobody wrote that key; with an exchange somebody did."""
    plain, moved = read("[topics.a]"), read('[topics.a]\nqueue = "q"')
    routed = read('[topics.a]\nexchange = "x"\nrouting_key = "k"')

    assert texts(differ(plain, moved).changed) == {"topics.a.queue": ('"a"', '"q"')}
    assert texts(differ(plain, routed).changed) == {
        "topics.a.exchange": ('""', '"x"'),
        "topics.a.routing_key": ('"a"', '"k"'),
    }


def test_what_is_wired_in_at_start_stays(read: Read) -> None:
    """Told as long as the file says otherwise, and no secret is told."""
    old = read('[engine]\nusername = "u"\npassword = "old-secret"\n[topics.a]')
    new = read(
        'worker_id = "w2"\nstop_grace = "30s"\n[status]\nlisten = ""\n[engine]\nusername = "u"\n'
        'password = "new-secret"\nheaders = { X-Key = "secret-too" }\n'
        '[broker]\nurl = "amqp://u:secret@h"\nprefetch = 9\n[topics.a]\n[topics.b]'
    )

    found = differ(old, new)

    assert texts(found.restart) == {
        "worker_id": ('"bridge"', '"w2"'),
        "stop_grace": ("20s", "30s"),
        "engine.password": ("[hidden]", "[hidden]"),
        "engine.headers": ("{}", "{X-Key = [hidden]}"),
        "broker.url": ("[hidden]", "[hidden]"),
        "broker.prefetch": ("200", "9"),
        "status.listen": ('"127.0.0.1:9464"', '""'),
    }
    assert found.added == ("b",)
    assert found.settings.engine == old.engine
    assert (found.settings.broker, found.settings.status) == (old.broker, old.status)
    assert (found.settings.worker_id, found.settings.stop_grace) == ("bridge", old.stop_grace)
    assert differ(found.settings, new).restart == found.restart


def test_a_password_in_a_file_needs_no_restart(read: Read, tmp_path: Path) -> None:
    """It is read again for every connection."""
    secret = tmp_path / "secret"
    text = f'[broker]\nusername = "u"\npassword_file = "{secret}"\n[topics.a]'
    secret.write_text("before")
    old = read(text)
    secret.write_text("after")

    assert differ(old, read(text)).restart == ()


def test_a_publish_window_stays_what_every_replica_has(read: Read) -> None:
    """A lock with two of them left is the proof of a publication, for all replicas; also of a
    topic that comes back.
    """
    old = read('[topics.a]\n[topics.b]\npublish_window = "50s"')
    new = read(
        '[topics.a]\npublish_window = "40s"\n[topics.gone]\npublish_window = "40s"\n[topics.new]'
    )
    windows = {"a": timedelta(seconds=60), "gone": timedelta(seconds=70)}

    with pytest.raises(SettingsError) as caught:
        compare(old, new, windows=windows, consumed={})

    assert caught.value.problems == (
        "topics.gone.lease: at least 10 x publish_window = 700s is wanted, found 10m; "
        "topics.gone.publish_window stays 70s until a restart",
    )


def test_a_window_that_stays_is_told(read: Read) -> None:
    """What can be taken over of the topic is."""
    old, new = read("[topics.a]"), read('[topics.a]\npublish_window = "40s"\nretries = 7')

    found = differ(old, new)

    assert texts(found.windows) == {"topics.a.publish_window": ("1m", "40s")}
    assert texts(found.changed) == {"topics.a.retries": ("3", "7")}
    assert found.settings.topics["a"].publish_window == timedelta(seconds=60)


def test_topics_must_go_with_what_stays(read: Read) -> None:
    """A shorter heartbeat would allow a shorter window, but it is not in use yet."""
    old = read("[topics.a]")
    new = read('[broker]\nheartbeat = "1s"\n[topics.a]\n[topics.b]\npublish_window = "13s"')

    with pytest.raises(SettingsError) as caught:
        differ(old, new)

    [problem] = caught.value.problems
    assert problem.startswith("topics.b.publish_window: more than 2 x (broker.heartbeat + 5s)")
    assert problem.endswith("; broker.heartbeat stays 10s until a restart")


def test_a_queue_that_is_still_consumed_takes_no_tasks(read: Read) -> None:
    """They would be read as results of the topic that had it."""
    old, new = read("[topics.a]"), read('[topics.b]\nqueue = "a.results"')

    with pytest.raises(SettingsError) as caught:
        differ(old, new, **{"a.results": "a"})

    [problem] = caught.value.problems
    assert problem.startswith("topics.b.queue: queue 'a.results' is still consumed for results")


# The shared place


def test_a_topic_that_was_served_stays_known() -> None:
    """Its results, dead letters and locks may come late; but nothing serves it any more."""
    topics = Topics([make_topic("a"), make_topic("b")])
    before = topics.served
    changed = make_topic("b", timing=timing(capacity=7), result_queue="elsewhere")

    topics.replace([changed, make_topic("c")])

    assert list(topics) == list(topics.served) == ["b", "c"]
    assert "a" not in topics
    assert topics.get("a") is None
    assert list(before) == ["a", "b"], "whoever took it sees one moment"
    assert topics.known.keys() == topics.timings.keys() == {"a", "b", "c"}
    assert topics["b"] is topics.known["b"] is changed
    assert topics.timings["b"].capacity == 7
    assert topics.by_result_queue["b.results"] is topics.by_result_queue["elsewhere"] is changed
    assert topics.by_result_queue["a.results"].name == "a"


# The rooms


def test_a_newcomer_is_fetched_beside_the_poll_under_way(open_rooms: Open) -> None:
    """A long poll that began without it must not keep its first task."""
    rooms = open_rooms()
    rooms.topics.replace([make_topic("a"), make_topic("b")])
    task_id = rooms.instance("b")

    rooms.dispatcher._drain()

    [call] = rooms.engine.calls.of("fetchAndLock")
    assert [topic["topicName"] for topic in call.body["topics"]] == ["b"]
    assert not call.body.get("asyncResponseTimeout")
    assert task_id in rooms.ledger


def test_what_a_poll_brings_of_a_removed_topic_is_given_back(open_rooms: Open) -> None:
    """Nobody would wait for its answer; others that serve the topic can have it at once."""
    rooms = open_rooms().start()
    rooms.instance()
    fetched = rooms.client.fetch_and_lock([rooms.topics["a"].fetch], 1)
    rooms.topics.replace([make_topic("b")])

    rooms.handover.take(fetched.tasks[0], fetched.began)

    eventually(lambda: rooms.lock_left(fetched.tasks[0].id) < 0)
    rooms.settled()
    assert rooms.publisher.sent == []
    assert len(rooms.ledger) == 0


def test_a_removed_topic_is_fetched_no_more(open_rooms: Open) -> None:
    """Also where the rest of it was about to be drained."""
    rooms = open_rooms()
    rooms.instance()
    rooms.dispatcher._draining["a"] = 0.0
    rooms.topics.replace([make_topic("b")])

    rooms.dispatcher._drain()

    assert [
        topic["topicName"]
        for call in rooms.engine.calls.of("fetchAndLock")
        for topic in call.body["topics"]
    ] == ["b"]


def test_a_removed_topic_is_answered_for(open_rooms: Open) -> None:
    """Its lock is kept while a worker is busy, its result applied."""
    rooms = open_rooms(make_topic("a"), make_topic("b")).start(keeper=True)
    entry = rooms.in_flight()

    rooms.topics.replace([make_topic("b")])
    rooms.advance(6)

    rooms.leased(entry)
    rooms.answer(entry)
    eventually(lambda: rooms.task(entry.task_id) is None)
    assert rooms.ledger.held("a") == 0


def test_a_dead_letter_of_a_removed_topic_is_understood(open_rooms: Open) -> None:
    """What nobody took within its time goes back to the engine."""
    rooms = open_rooms(make_topic("a"), make_topic("b")).start()
    entry = rooms.in_flight()
    rooms.topics.replace([make_topic("b")])
    death = {"x-death": [{"reason": "expired", "queue": "a"}]}

    rooms.reporter.deliver(rooms.result(entry, queue=DEAD, type="a", headers=death))

    eventually(lambda: rooms.count("released") == 1)


def test_only_what_is_served_is_adopted(open_rooms: Open) -> None:
    """With the times that it has now."""
    rooms = open_rooms()
    long = make_topic("b", timing=timing(publish_window=70, lease=700))
    for topic in (make_topic("a"), long):
        rooms.instance(topic.name)
        [task] = rooms.client.fetch_and_lock([topic.fetch], 1).tasks
        rooms.client.extend_lock(task.id, 200)

    rooms.topics.replace([long])
    rooms.start(keeper=True)

    eventually(lambda: rooms.count("adopted", "b") == 1)
    rooms.settled()
    assert rooms.count("adopted", "a") == 0


def test_less_room_stops_fetching_and_drops_nothing(open_rooms: Open) -> None:
    """What is in flight stays; room comes back with its answers."""
    rooms = open_rooms().start()
    entries = [rooms.in_flight() for _ in range(3)]

    rooms.topics.replace([make_topic("a", timing=timing(capacity=2))])

    assert (rooms.ledger.held("a"), rooms.ledger.room("a")) == (3, 0)
    for entry in entries[:2]:
        rooms.answer(entry)
    eventually(lambda: rooms.ledger.room("a") == 1)


def test_new_retries_count_where_the_model_names_none(open_rooms: Open) -> None:
    """The model is remembered, the settings beside it are not."""
    three = make_topic("a", model_retries=True)
    rooms = open_rooms(three).start()
    first, second = rooms.in_flight(), rooms.in_flight()
    rooms.answer(first, {"errorMessage": "boom"}, "failure")
    eventually(lambda: rooms.count("failed") == 1)

    rooms.topics.replace([replace(three, retries=RetryPolicy(9, (5.0,)))])
    rooms.answer(second, {"errorMessage": "boom"}, "failure")

    eventually(lambda: rooms.count("failed") == 2)
    left = [task["retries"] for e in (first, second) if (task := rooms.task(e.task_id))]
    assert left == [2, 8]


# A topic whose queue has not been looked at


@pytest.fixture
def circuit() -> Circuit:
    return Circuit(lambda: 1.0)


def test_a_new_topic_flows_once_its_queue_is_there(circuit: Circuit) -> None:
    """No task is tried: none was refused yet."""
    circuit.trip(90, "the old exchange is missing")
    circuit.look_first(100)

    assert (circuit.state, circuit.reason) == (State.OPEN, None)
    assert circuit.begin_try(100)
    assert circuit.half_open() is False, "nothing was told that is over now"
    assert circuit.state is State.CLOSED


def test_a_look_that_fails_is_repeated_and_told(circuit: Circuit) -> None:
    """With growing pauses; a broker that is away refuses no message."""
    circuit.look_first(100)
    assert circuit.begin_try(100)
    assert circuit.trip(100, "no broker")

    assert not circuit.begin_try(100.9)
    assert circuit.begin_try(101)
    assert circuit.half_open() is True
    assert (circuit.state, circuit.reason) == (State.CLOSED, None)


def test_what_is_refused_after_the_look_is_tried_with_one_task(circuit: Circuit) -> None:
    """As ever."""
    circuit.look_first(100)
    circuit.begin_try(100)
    circuit.half_open()
    circuit.trip(101, "full")
    circuit.begin_try(103)

    circuit.half_open()

    assert circuit.state is State.HALF_OPEN


def test_a_topic_that_is_being_looked_at_is_no_problem(open_rooms: Open) -> None:
    """The bridge stays ready; one whose queue cannot be had is a problem."""
    rooms = open_rooms()
    rooms.circuits.look_first("a")
    assert not rooms.circuits.is_closed("a")
    assert rooms.circuits.problems() == {}

    def away(_: str) -> bool:
        raise BrokerUnavailable("no broker")

    rooms.repair = away
    rooms.circuits.look()
    rooms.start()

    eventually(lambda: rooms.circuits.problems() == {"a": "no broker"})


# Taking over


class Desk:
    """A changeover on real rooms; nothing is declared, and no connection carries the consumer."""

    def __init__(self, rooms: Rooms, settings: Settings) -> None:
        self.rooms, self.wanted, self.served = rooms, settings, list[str]()
        rooms.topics.replace(plan.topics(settings).values())
        self.topology = Topology(BrokerOptions(()), "never", plan.topology(settings))
        self.consumer = Consumer(plan.consumed_queues(settings), 10, _nobody, _nobody)
        self.changeover = Changeover(
            settings,
            read=lambda: self.wanted,
            token_keys=(None, None),
            topics=rooms.topics,
            ledger=rooms.ledger,
            circuits=rooms.circuits,
            callers=rooms.callers,
            chores=rooms.chores,
            topology=self.topology,
            consumer=self.consumer,
            expect=self.served.extend,
        )

    def reload(self, settings: Settings) -> None:
        self.wanted = settings
        self.changeover.reload()

    def consumed(self) -> set[str]:
        self.consumer.work()  # what the connection's thread would do
        return set(self.consumer.problems()) - {"bridge.dead-letters"}


def _nobody(_: Delivery | str) -> None:
    """What is delivered, or missing, where nothing is."""


def test_a_removed_topic_is_left_when_nothing_is_in_flight(open_rooms: Open, read: Read) -> None:
    """Until then its results are consumed; and again where something comes to be in flight."""
    rooms = open_rooms().start()
    desk = Desk(rooms, read("[topics.a]\n[topics.b]"))
    entry = rooms.in_flight()

    desk.reload(read("[topics.b]\n[topics.c]"))

    eventually(lambda: desk.consumed() == {"a.results", "b.results", "c.results"})
    assert list(rooms.topics) == ["b", "c"] == desk.served
    rooms.ledger.settle(entry.task_id)
    eventually(lambda: desk.consumed() == {"b.results", "c.results"})
    rooms.ledger.admit(entry.task_id, "a", None, 0, 0)
    eventually(lambda: "a.results" in desk.consumed())
    rooms.ledger.settle(entry.task_id)
    eventually(lambda: "a.results" not in desk.consumed())
    desk.reload(read("[topics.a]"))
    eventually(lambda: desk.consumed() == {"a.results"})


def test_the_result_queue_of_before_is_still_consumed(open_rooms: Open, read: Read) -> None:
    """Messages that are out name it, and replicas that were not reloaded yet go on naming it."""
    rooms = open_rooms().start()
    desk = Desk(rooms, read('[topics."a b"]\nqueue = "old"'))

    desk.reload(read('[topics."a b"]\nqueue = "new"'))

    eventually(lambda: desk.consumed() == {"old.results", "new.results"})
    assert rooms.topics.by_result_queue["old.results"] is rooms.topics["a b"]


def test_bad_settings_are_told_and_change_nothing(open_rooms: Open, read: Read) -> None:
    """A line each."""
    desk = Desk(open_rooms().start(), read("[topics.a]"))
    before = desk.rooms.topics.served

    def refuse() -> Settings:
        raise SettingsError(("first problem", "second problem"))

    desk.changeover._read = refuse
    with capture_logs() as told:
        desk.changeover.reload()

    assert desk.rooms.topics.served is before
    assert desk.consumed() == {"a.results"}
    assert [(line["event"], line["problem"]) for line in told] == [
        ("settings not reloaded", "first problem"),
        ("settings not reloaded", "second problem"),
    ]


def test_a_reader_that_breaks_changes_nothing(open_rooms: Open, read: Read) -> None:
    """A traceback helps whoever mends the reader; the tasks flow on."""
    desk = Desk(open_rooms().start(), read("[topics.a]"))
    before = desk.rooms.topics.served

    def break_down() -> Settings:
        raise RuntimeError("nobody thought of this")

    desk.changeover._read = break_down
    with capture_logs() as told:
        desk.changeover.reload()

    assert desk.rooms.topics.served is before
    assert [line["event"] for line in told] == ["settings not reloaded"]


@pytest.mark.parametrize("busy", [True, False])
def test_answers_that_will_be_read_anew_are_told(open_rooms: Open, read: Read, busy: bool) -> None:
    """A Celery failure, read as plain JSON, would complete its task."""
    desk = Desk(open_rooms().start(), read('[topics.a]\nreply = "celery"\ncelery_task = "t"'))
    if busy:
        desk.rooms.in_flight()

    with capture_logs() as told:
        desk.reload(read("[topics.a]"))

    keys = [line["key"] for line in told if line["log_level"] == "warning"]
    assert keys == (["topics.a.reply"] if busy else [])


def test_token_keys_that_differ_need_a_restart(
    open_rooms: Open, read: Read, tmp_path: Path
) -> None:
    """The path is the same, the key is not: nobody would see it otherwise."""
    key = tmp_path / "key"
    key.write_text("k" * 32)
    desk = Desk(open_rooms().start(), read(f'token_key_file = "{key}"\n[topics.a]'))

    with capture_logs() as told:
        desk.changeover.reload()

    stays = [line for line in told if line["event"] == "setting stays until a restart"]
    assert [line["key"] for line in stays] == ["token_key_file"]
    assert "k" * 32 not in str(told)
