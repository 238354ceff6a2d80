"""SIGHUP: topics are added, removed and changed while tasks flow; what needs a restart is said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings, toml
from tests.support.engine import EngineRest, unique
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

LIMIT = 60.0
ENDS = ("settings reloaded", "settings not reloaded")
Topics = Mapping[str, Mapping[str, Any]]


class Reloaded:
    """A bridge whose settings file a test writes anew."""

    def __init__(
        self, engine: EngineRest, amqp_url: str, topics: Topics, *, wait_ready: bool = True
    ) -> None:
        self._made = (engine.url, amqp_url)
        self.bridge = Bridge(settings(*self._made, topics), wait_ready=wait_ready)

    def ask(self, topics: Topics, **top: Any) -> None:
        """Write the file and send SIGHUP."""
        self.bridge.config.write_text(toml(settings(*self._made, topics, **top)))
        self.bridge.signal(signal.SIGHUP)

    def reload(self, topics: Topics, **top: Any) -> dict[str, Any]:
        """The same, and wait for the answer."""
        before = self.answers()
        self.ask(topics, **top)
        eventually(lambda: self.answers() > before, LIMIT, what="an answer to SIGHUP")
        return next(line for line in reversed(self.bridge.log()) if line["event"] in ENDS)

    def stops(self) -> None:
        """Gracefully; a failing test has its last words."""
        assert self.bridge.stop() == 0, self.bridge.tail()

    def answers(self) -> int:
        return sum(len(self.bridge.events(event)) for event in ENDS)

    def told(self, event: str) -> dict[str, tuple[str, str]]:
        return {line["key"]: (line["old"], line["new"]) for line in self.bridge.events(event)}


def done(_: Message) -> Reply:
    return Reply({"done": True})


def process(engine: EngineRest, short: str) -> tuple[str, str]:
    """A topic and the key of a process with one task of it."""
    topic = unique(short)
    return topic, engine.deploy_topics(topic)


def test_a_topic_that_is_added_flows_at_once(engine: EngineRest, amqp_url: str) -> None:
    """Its queues are declared, its tasks fetched, its answers applied; nobody sees a problem."""
    (first, first_key), (second, second_key) = process(engine, "first"), process(engine, "second")
    reloaded = Reloaded(engine, amqp_url, {first: {}})
    with reloaded.bridge as bridge:
        engine.start(second_key)

        answer = reloaded.reload({first: {}, second: {}})

        assert (answer["topics"], answer["added"], answer["changed"]) == (2, 1, 0)
        eventually(lambda: bridge.count(second, "confirmed") == 1, LIMIT)
        with Worker(amqp_url, second, done), Worker(amqp_url, first, done):
            engine.start(second_key)
            engine.start(first_key)
            eventually(lambda: engine.finished(second_key) == 2, LIMIT)
            eventually(lambda: engine.finished(first_key) == 1, LIMIT)
        eventually(bridge.is_ready, LIMIT)
        assert bridge.events("queue not consumed") == []
        reloaded.stops()


def test_a_topic_that_is_removed_finishes_what_is_in_flight(
    engine: EngineRest, amqp_url: str
) -> None:
    """No more is fetched; the one that is out is answered for and completed; then the topic is
    left, and what comes later stays in its queue until the topic is back.
    """
    (kept, _), (removed, key) = process(engine, "kept"), process(engine, "removed")
    reloaded = Reloaded(engine, amqp_url, {kept: {}, removed: {}})
    with reloaded.bridge as bridge, Amqp(amqp_url) as amqp:
        engine.start(key)
        eventually(lambda: bridge.count(removed, "leased") == 1, LIMIT)

        assert reloaded.reload({kept: {}})["removed"] == 1

        engine.start(key)
        message = eventually(lambda: amqp.get(removed), LIMIT)
        assert message is not None
        assert bridge.events("topic left") == []
        amqp.answer(message, done(message))
        eventually(lambda: engine.finished(key) == 1, LIMIT)
        [left] = eventually(lambda: bridge.events("topic left"), LIMIT)
        assert left["later_results_stay_in"] == f"{removed}.results"
        eventually(lambda: amqp.consumers(f"{removed}.results") == 0, LIMIT)
        amqp.answer(message, done(message))
        eventually(lambda: amqp.count(f"{removed}.results") == 1, LIMIT)
        # What a poll under way brought is given back.
        eventually(lambda: len(engine.tasks(topicName=removed, notLocked=True)) == 1, LIMIT)
        assert amqp.count(removed) == 0

        reloaded.reload({kept: {}, removed: {}})

        with Worker(amqp_url, removed, done):
            eventually(lambda: engine.finished(key) == 2, LIMIT)
        eventually(lambda: amqp.count(f"{removed}.results") == 0, LIMIT)
        eventually(bridge.is_ready, LIMIT)
        reloaded.stops()


def test_what_a_topic_is_changed_to_holds_from_the_next_task_on(
    engine: EngineRest, amqp_url: str
) -> None:
    """Room, queue, filter and what its workers may write; a message in the old queue is still
    answered, and one that dies there still comes back as a failure.
    """
    topic, key = process(engine, "changed")
    old, new = {"max_in_flight": 1, "queue": f"{topic}-old"}, {"queue": f"{topic}-new"}
    reloaded = Reloaded(engine, amqp_url, {topic: old})
    with reloaded.bridge as bridge, Amqp(amqp_url) as amqp:
        engine.start_many(key, 3)
        eventually(lambda: amqp.count(f"{topic}-old") == 1, LIMIT)

        reloaded.reload({topic: new | {"variables": ["n"], "allowed_variables": ["done"]}})

        assert reloaded.told("setting changed").keys() == {
            f"topics.{topic}.{name}"
            for name in ("max_in_flight", "queue", "variables", "allowed_variables")
        }
        eventually(lambda: amqp.count(f"{topic}-new") == 2, LIMIT)
        amqp.refuse(f"{topic}-old", requeue=False)
        eventually(lambda: bridge.count(topic, "failed") == 1, LIMIT)
        eventually(lambda: amqp.count(f"{topic}-new") == 3, LIMIT)  # its second attempt
        first, *others = amqp.drain(f"{topic}-new")
        amqp.answer(first, Reply({"somethingElse": 1}))
        assert engine.incidents(key) or eventually(lambda: engine.incidents(key), LIMIT)
        for message in others:
            amqp.answer(message, done(message))
        eventually(lambda: engine.finished(key) == 2, LIMIT)
        reloaded.stops()
    engine.clean(key)


def test_a_paused_topic_is_mended_by_a_reload(engine: EngineRest, amqp_url: str) -> None:
    """Whoever corrects an exchange or a filter does not wait for the end of a pause."""
    topic, key = process(engine, "mended")
    wrong = {topic: {"exchange": "nobody-has-made-it"}}
    reloaded = Reloaded(engine, amqp_url, wrong, wait_ready=False)
    with reloaded.bridge as bridge:
        engine.start(key)
        eventually(lambda: bridge.events("topic paused"), LIMIT)

        reloaded.reload({topic: {}})

        engine.start(key)  # the first one is locked for as long as a publish window
        with Amqp(amqp_url) as amqp:
            eventually(lambda: amqp.count(topic) is not None, LIMIT)
        with Worker(amqp_url, topic, done):
            eventually(lambda: engine.finished(key) > 0, LIMIT)
        eventually(bridge.is_ready, LIMIT)
        reloaded.stops()
    engine.clean(key)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("worker_id = ", "is not valid TOML"),
        ('[topics.a]\nlease = "ten minutes"', "topics.a.lease"),
        ('token_key_file = "no-such-file"\n[topics.a]', "token_key_file"),
        ('[engine]\nca_file = "bridge.toml"\n[topics.a]', "engine.ca_file"),
    ],
)
def test_bad_settings_change_nothing(
    engine: EngineRest, amqp_url: str, text: str, problem: str
) -> None:
    """One line for each problem, and everything flows as before."""
    topic, key = process(engine, "unharmed")
    reloaded = Reloaded(engine, amqp_url, {topic: {}})
    with reloaded.bridge as bridge, Worker(amqp_url, topic, done):
        ca_file = str(bridge.config)
        bridge.config.write_text(text.replace("bridge.toml", ca_file))
        bridge.signal(signal.SIGHUP)

        [told] = eventually(lambda: bridge.events("settings not reloaded"), LIMIT)
        assert problem in told["problem"]
        engine.start(key)
        eventually(lambda: engine.finished(key) == 1, LIMIT)
        eventually(bridge.is_ready, LIMIT)
        assert bridge.events("settings reloaded") == []
        reloaded.stops()


def test_what_needs_a_restart_is_said_and_left_as_it_is(engine: EngineRest, amqp_url: str) -> None:
    """Secrets are never told; the topics beside them are taken over; and the publish window, which
    all replicas share, stays too.
    """
    topic, key = process(engine, "stays")
    reloaded = Reloaded(engine, amqp_url, {topic: {}})
    with reloaded.bridge as bridge:
        reloaded.reload(
            {topic: {"publish_window": "14s", "lease": "140s"}},
            worker_id="another",
            broker={"prefix": "elsewhere", "username": "guest", "password": "s3cret-w0rd"},
            engine={"url": "http://127.0.0.1:9/nowhere"},
        )

        assert reloaded.told("setting stays until a restart") == {
            "worker_id": ('"bridge"', '"another"'),
            "broker.prefix": ('"bridge"', '"elsewhere"'),
            "broker.username": ("not set", '"guest"'),
            "broker.password": ("not set", "[hidden]"),
            "engine.url": (f'"{engine.url}"', '"http://127.0.0.1:9/nowhere"'),
        }
        window = f"topics.{topic}.publish_window"
        stays = reloaded.told("setting stays, stop every replica to change it")
        assert stays == {window: ("13s", "14s")}
        assert reloaded.told("setting changed") == {f"topics.{topic}.lease": ("130s", "140s")}
        assert "s3cret-w0rd" not in bridge.log_path.read_text()
        with Worker(amqp_url, topic, done):
            engine.start(key)
            eventually(lambda: engine.finished(key) == 1, LIMIT)
        eventually(bridge.is_ready, LIMIT)

        refused = reloaded.reload({topic: {"publish_window": "12100ms", "lease": "121s"}})

        assert "at least 10 x publish_window" in refused["problem"]
        assert refused["problem"].endswith(f"{window} stays 13s until a restart")
        reloaded.stops()


def test_a_reload_during_an_outage_of_the_broker_is_taken_over_after_it(
    engine: EngineRest, amqp_url: str
) -> None:
    """What is missing is declared as soon as somebody answers, as at start."""
    (first, first_key), (second, second_key) = process(engine, "before"), process(engine, "during")
    with Proxy(amqp_url) as proxy:
        reloaded = Reloaded(engine, proxy.url, {first: {}})
        with reloaded.bridge as bridge:
            proxy.refuse()
            eventually(lambda: not bridge.is_ready(), LIMIT)

            reloaded.reload({second: {}})
            engine.start(first_key)
            engine.start(second_key)
            proxy.heal()

            eventually(bridge.is_ready, LIMIT)
            with Amqp(amqp_url) as amqp:
                eventually(lambda: amqp.count(second) == 1, LIMIT)
            with Worker(amqp_url, second, done):
                eventually(lambda: engine.finished(second_key) == 1, LIMIT)
            assert bridge.count(first, "confirmed") == 0
            reloaded.stops()
    engine.clean(first_key)


@pytest.mark.timeout(240)
def test_ten_reloads_under_load_lose_and_double_nothing(engine: EngineRest, amqp_url: str) -> None:
    """One topic comes and goes, one moves between two queues, one stays; a second replica works on
    with its own settings, undisturbed; the last reload comes with the stop.
    """
    stays, comes, moves = (unique(short) for short in ("stays", "comes", "moves"))
    keys = {topic: engine.deploy_topics(topic) for topic in (stays, comes, moves)}
    queues = [f"{moves}-{n}" for n in range(2)]
    count, reloads = 250, 10
    wanted = {stays: count + reloads, comes: count, moves: count}

    def settings_of(number: int) -> Topics:
        """Of the reload with this number."""
        room: dict[str, Any] = {"max_in_flight": 20 + number, **PATIENT}
        topics = {stays: room, moves: {"queue": queues[number % 2], **room}, comes: room}
        return {topic: keys for topic, keys in topics.items() if topic != comes or not number % 2}

    def start_all(topic: str) -> None:
        EngineRest(engine.url).start_many(keys[topic], count)

    reloaded = Reloaded(engine, amqp_url, settings_of(0))
    other = Reloaded(engine, amqp_url, {stays: {"max_in_flight": 20, **PATIENT}})
    with reloaded.bridge as bridge, other.bridge as peer, Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare(queues[1], durable=True, arguments=TASK_QUEUE)
        workers = [Worker(amqp_url, queue, done) for queue in (stays, comes, *queues)]
        for worker in workers:
            worker.__enter__()
        load = [threading.Thread(target=start_all, args=(topic,)) for topic in keys]
        for thread in load:
            thread.start()
        for number in range(1, reloads + 1):
            assert reloaded.reload(settings_of(number))["topics"] == 3 - number % 2
            before = engine.finished(keys[stays])
            engine.start(keys[stays])  # the load may be done by now
            eventually(lambda: engine.finished(keys[stays]) > before, LIMIT, what="it flows")  # noqa: B023
        for thread in load:
            thread.join()
        eventually(lambda: {t: engine.finished(k) for t, k in keys.items()} == wanted, LIMIT * 2)
        reloaded.ask(settings_of(reloads + 1))
        bridge.signal(signal.SIGHUP)

        reloaded.stops()
        other.stops()

        for worker in workers:
            worker.__exit__(None, None, None)
        seen = [message.properties.message_id for worker in workers for message in worker.seen]
        assert len(seen) == len(set(seen)) == sum(wanted.values())
        assert all(message_id.endswith(":-") for message_id in seen)
        assert amqp.count("bridge.parked") == amqp.count("bridge.wait") == 0
        refused = [*bridge.events("topic paused"), *peer.events("topic paused")]
        # An engine under load fails now and then, which is nobody's fault here.
        assert [e for e in refused if "engine refuses to fetch" not in e["reason"]] == []
    assert [engine.incidents(key) for key in keys.values()] == [[]] * 3


# A machine with too much to do may need more than half of a quick window to publish.
PATIENT = {"publish_window": "30s", "lease": "300s"}
TASK_QUEUE = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": "bridge.dead",
    "x-dead-letter-strategy": "at-least-once",
}
