"""The engine refuses, dies or is not there while the bridge runs: what workers have done is kept,
applied once, and nobody is blamed for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.simulated_engine import Answer, Drop, SimulatedEngine
from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually, throughout

PAGE = "<!doctype html><html><body>Sign in</body></html>"


@pytest.fixture
def simulated() -> Iterator[SimulatedEngine]:
    """An engine whose faults a test decides; what runs at the end is let go."""
    with SimulatedEngine() as engine:
        yield engine
        engine.faults.clear()


def done(_: Message) -> Reply:
    return Reply({"done": True})


def published(amqp: Amqp, topic: str, count: int) -> list[Message]:
    """Take so many task messages off their queue."""
    taken: list[Message] = []

    def look() -> bool:
        taken.extend(amqp.drain(topic))
        return len(taken) >= count

    eventually(look, 60, what=f"{count} messages")
    assert len(taken) == count
    return taken


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401), "does not accept the credentials"),
        (Answer(200, PAGE), "not the engine's own answer"),
        (Answer(503, headers={"Retry-After": "1"}), "busy or away"),
    ],
    ids=["password rotated", "login page", "throttled"],
)
def test_results_outlive_an_engine_that_does_not_take_them(
    simulated: SimulatedEngine, amqp_url: str, answer: Answer, words: str
) -> None:
    """Sixty answers wait for it with calm calls; none is parked, none sent twice."""
    topic, rest = unique("waits"), EngineRest(simulated.url)
    key = rest.deploy_topics(topic)
    rest.start_many(key, 60)
    made = settings(simulated.url, amqp_url, {topic: {}}, broker={"prefetch": 50})
    with Bridge(made) as bridge, Amqp(amqp_url) as amqp:
        messages = published(amqp, topic, 60)
        simulated.faults.add("*", when="before", action=answer, times=None)
        simulated.calls.clear()
        for message in messages:
            amqp.answer(message, done(message))

        eventually(lambda: amqp.count(f"{topic}.results") == 10, what="the prefetch is full")
        eventually(lambda: not bridge.is_ready())
        throughout(lambda: amqp.count(f"{topic}.results") == 10, 1.0, what="nothing is requeued")
        assert len(simulated.calls.of("complete")) < 40
        [told] = bridge.events("engine does not answer as it should")[:1]
        assert words in told["reason"]
        simulated.faults.clear()

        eventually(lambda: rest.finished(key) == 60, 60)
        eventually(bridge.is_ready, 30)
        assert bridge.count(topic, "confirmed") == 60
        assert bridge.count(topic, "completed") == 60
        assert amqp.count("bridge.parked") == 0
        assert rest.incidents(key) == []


def test_an_engine_that_dies_in_mid_load_loses_nothing(
    simulated: SimulatedEngine, amqp_url: str
) -> None:
    """Completes under way are cut, half of them carried out: each task ends once."""
    topic, rest = unique("dies"), EngineRest(simulated.url)
    key = rest.deploy_topics(topic)
    rest.start_many(key, 150)
    made = settings(simulated.url, amqp_url, {topic: {}})
    with Bridge(made) as bridge, Worker(amqp_url, topic, done) as worker:
        for dead in (30, 80):
            eventually(lambda n=dead: rest.finished(key) >= n, 40)  # type: ignore[misc]
            simulated.faults.add("complete", when="after", action=Drop(), times=4)
            simulated.stop()
            eventually(lambda: not bridge.is_ready())
            simulated.start()
            eventually(bridge.is_ready, 40)

        eventually(lambda: rest.finished(key) == 150, 60)
        assert all(m.properties.message_id.endswith(":-") for m in worker.seen)
        assert {m.headers["taskId"] for m in worker.seen} == {
            call.task_id for call in simulated.calls.of("complete")
        }
        assert rest.incidents(key) == []


def test_a_wrong_address_is_told_and_costs_no_result(
    engine: EngineRest, simulated: SimulatedEngine, amqp_url: str
) -> None:
    """The path is missing: not ready, a line that names the cure; answers lie where they are."""
    topic, rest = unique("lost"), EngineRest(simulated.url)
    key = rest.deploy_topics(topic)
    rest.start_many(key, 3)
    right = settings(simulated.url, amqp_url, {topic: {}})
    wrong = settings(engine.url.removesuffix("/engine-rest"), amqp_url, {topic: {}})
    with Bridge(right), Amqp(amqp_url) as amqp:
        messages = published(amqp, topic, 3)

    with Bridge(wrong, wait_ready=False) as bridge, Amqp(amqp_url) as amqp:
        told = eventually(lambda: bridge.events("engine does not answer as it should"))
        assert "/engine-rest" in told[0]["reason"]
        for message in messages:
            amqp.answer(message, done(message))
        eventually(lambda: amqp.count(f"{topic}.results") == 0, what="taken in hand")
        throughout(lambda: amqp.count("bridge.parked") == 0, 1.0)
        assert not bridge.is_ready()
        assert bridge.stop() == 0
        assert amqp.count(f"{topic}.results") == 3

    with Bridge(right):
        eventually(lambda: rest.finished(key) == 3)


@pytest.mark.timeout(180)
def test_missing_rights_for_one_process_stop_no_other(
    guarded_engine: EngineRest, amqp_url: str
) -> None:
    """Withdrawn while its workers work: their results wait for an administrator and are applied
    then; those of the other process flow.
    """
    user = {"profile": {"id": "clerk"}, "credentials": {"password": "clerk"}}
    guarded_engine.call("POST", "/user/create", user)
    mine, other = unique("mine"), unique("other")
    keys = {topic: guarded_engine.deploy_topics(topic) for topic in (mine, other)}
    rights = {topic: allow(guarded_engine, key) for topic, key in keys.items()}
    for key in keys.values():
        guarded_engine.start_many(key, 5)
    login = {"username": "clerk", "password": "clerk"}
    made = settings(guarded_engine.url, amqp_url, {mine: {}, other: {}}, engine=login)
    with Bridge(made) as bridge, Amqp(amqp_url) as amqp:
        messages = [*published(amqp, mine, 5), *published(amqp, other, 5)]

        guarded_engine.call("DELETE", f"/authorization/{rights[mine]}")
        for message in messages:
            amqp.answer(message, done(message))

        eventually(lambda: guarded_engine.finished(keys[other]) == 5)
        eventually(lambda: bridge.count(mine, "waiting") >= 5)
        assert guarded_engine.finished(keys[mine]) == 0
        assert bridge.is_ready()
        allow(guarded_engine, keys[mine])

        eventually(lambda: guarded_engine.finished(keys[mine]) == 5)
        assert amqp.count("bridge.parked") == 0
        assert guarded_engine.incidents(keys[mine]) == []


def allow(engine: EngineRest, key: str) -> str:
    """Let the clerk read and update the instances of a process; the authorization's id."""
    right: dict[str, Any] = {"type": 1, "userId": "clerk", "resourceType": 6, "resourceId": key}
    right["permissions"] = ["READ_INSTANCE", "UPDATE_INSTANCE"]
    return str(engine.call("POST", "/authorization/create", right)["id"])
