"""Start needs no order, stop is graceful and bounded, and neither loses or doubles anything."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.simulated_engine import Hold, SimulatedEngine
from deploy.local.programs import free_port
from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.dying_bridge import LOOP
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually, throughout

PUBLISH_WINDOW = 13.0
SECRET = "s3cret-w0rd"


@pytest.fixture
def simulated() -> Iterator[SimulatedEngine]:
    with SimulatedEngine() as engine:
        yield engine
        engine.faults.clear()


def done(_: Message) -> Reply:
    return Reply({"done": True})


def test_an_engine_that_comes_later_is_waited_for(amqp_url: str) -> None:
    """Said once, not ready until then, and no restart needed."""
    engine = SimulatedEngine(port=free_port())
    topic = unique("late")
    with Bridge(settings(engine.url, amqp_url, {topic: {}}), wait_ready=False) as bridge:
        eventually(lambda: bridge.events("engine does not answer as it should"))
        assert not bridge.is_ready()

        with engine:
            rest = EngineRest(engine.url)
            key = rest.deploy_topics(topic)
            with Worker(amqp_url, topic, done):
                rest.start(key)
                eventually(lambda: rest.running(key) == 0, 40)

            assert bridge.is_ready()
            assert bridge.stop() == 0
        assert len(bridge.events("engine does not answer as it should")) == 1
        assert len(bridge.events("engine answers again")) == 1


def test_refused_engine_credentials_are_told_and_waited_out(amqp_url: str) -> None:
    """A clear line without the secret; calm calls, no busy loop; it is never a crash."""
    with SimulatedEngine(basic_auth=("demo", "demo")) as engine:
        login = {"username": "demo", "password": SECRET}
        wrong = settings(engine.url, amqp_url, {unique("locked"): {}}, engine=login)
        with Bridge(wrong, wait_ready=False) as bridge:
            said = eventually(lambda: bridge.events("engine does not answer as it should"))
            throughout(lambda: not bridge.is_ready(), 2.0)

            assert "does not accept the credentials" in said[0]["reason"]
            assert SECRET not in bridge.log_path.read_text()
            assert len(engine.calls.of("fetchAndLock")) < 20
            assert bridge.stop() == 0


def test_refused_broker_credentials_are_told_and_waited_out(
    engine: EngineRest, amqp_url: str
) -> None:
    """The same at the other side."""
    url = amqp_url.replace("guest:guest", f"guest:{SECRET}")
    topic = unique("locked")
    key = engine.deploy_topics(topic)
    engine.start(key)
    with Bridge(settings(engine.url, url, {topic: {}}), wait_ready=False) as bridge:
        said = eventually(lambda: bridge.events("broker not connected"))
        throughout(lambda: not bridge.is_ready(), 2.0)

        assert "refuses the user name or password" in said[0]["reason"]
        assert SECRET not in bridge.log_path.read_text()
        assert bridge.count(topic, "fetched") == 0
        assert bridge.stop() == 0
    engine.clean(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": {"ulr": "x"}}, "engine.ulr"),
        ({"broker": {"heartbeat": "10 seconds"}}, "broker.heartbeat"),
        ({"token_key_file": "no-such-file"}, "token_key_file"),
        ({"topic_defaults": {"lease": "20s", "publish_window": "13s"}}, "topic_defaults.lease"),
    ],
)
def test_bad_settings_end_with_2_before_anything_starts(
    amqp_url: str, change: dict[str, Any], said: str
) -> None:
    """One clear line with the key; an orchestrator must not restart it for ever."""
    made = settings("http://127.0.0.1:1/engine-rest", amqp_url, {"never": {}}, **change)

    with Bridge(made, wait_ready=False) as bridge:
        code = bridge.wait(10)
        output = bridge.log_path.read_text()

    assert code == 2
    assert any(line.startswith(said) for line in output.splitlines()), output
    with Amqp(amqp_url) as amqp:
        assert amqp.count("bridge.parked") is None


@pytest.mark.parametrize(
    "loop", ["publisher", "consumer", "caller-0", "chores", "lock keeper", "poller", "drainer"]
)
def test_a_loop_that_dies_ends_the_process(amqp_url: str, loop: str) -> None:
    """Half a bridge is worse than none: whoever runs it starts it again, and peers adopt."""
    made = settings("http://127.0.0.1:1/engine-rest", amqp_url, {"never": {}})
    dying = "tests.support.dying_bridge"
    with Bridge(made, wait_ready=False, module=dying, env={LOOP: loop}) as bridge:
        assert bridge.wait(20) == 1
        assert bridge.events("loop died", part=loop)


def test_a_stop_under_load_is_graceful_and_nothing_comes_twice(
    engine: EngineRest, amqp_url: str
) -> None:
    """SIGTERM in the middle of a flow: exit 0 within `stop_grace`, and the next run goes on with
    what is left.
    """
    topic = unique("busy")
    key = engine.deploy_topics(topic)
    engine.start_many(key, 300)
    made = settings(engine.url, amqp_url, {topic: {"max_in_flight": 40}}, stop_grace="10s")
    with Bridge(made) as bridge, Worker(amqp_url, topic, done) as worker:
        eventually(lambda: engine.finished(key) > 50)
        before = time.monotonic()

        assert bridge.stop(limit=12) == 0

        assert time.monotonic() - before < 10
        assert engine.finished(key) < 300, "the stop came too late to prove anything"
        bridge.start()
        eventually(lambda: engine.finished(key) == 300, 40)
        attempts = [message.properties.message_id for message in worker.seen]
        assert len(attempts) == len(set(attempts)) == 300
    assert engine.incidents(key) == []


def test_messages_in_flight_outlive_a_restart(engine: EngineRest, amqp_url: str) -> None:
    """Leased before the end: the next run publishes none of them again, and takes the answers."""
    topic = unique("held")
    key = engine.deploy_topics(topic)
    engine.start_many(key, 20)
    with Bridge(settings(engine.url, amqp_url, {topic: {}})) as bridge, Amqp(amqp_url) as amqp:
        eventually(lambda: amqp.count(topic) == 20)

        assert bridge.stop() == 0
        bridge.start()

        throughout(lambda: amqp.count(topic) == 20, PUBLISH_WINDOW + 1)
        with Worker(amqp_url, topic, done):
            eventually(lambda: engine.finished(key) == 20)


def test_a_second_sigterm_ends_it_at_once(simulated: SimulatedEngine, amqp_url: str) -> None:
    """Asked twice, it does not wait for an engine that hangs; exit code 1."""
    with busy_with_a_hanging_engine(simulated, amqp_url, stop_grace="20s") as bridge:
        bridge.signal(signal.SIGTERM)
        eventually(lambda: bridge.events("bridge stops"))
        before = time.monotonic()

        bridge.signal(signal.SIGTERM)

        assert bridge.wait(5) == 1
        assert time.monotonic() - before < 2


@pytest.mark.parametrize("verb", ["complete", "query"])
def test_a_stop_is_bounded_by_its_grace(
    simulated: SimulatedEngine, amqp_url: str, verb: str
) -> None:
    """`stop_grace` holds though the engine hangs; exit code 1 says that it was not graceful."""
    with busy_with_a_hanging_engine(simulated, amqp_url, verb, stop_grace="2s") as bridge:
        before = time.monotonic()

        assert bridge.stop(limit=10) == 1

        assert time.monotonic() - before < 5
        assert bridge.events("bridge stopped late: stop_grace was too short")


@contextmanager
def busy_with_a_hanging_engine(
    engine: SimulatedEngine, amqp_url: str, verb: str = "complete", *, stop_grace: str
) -> Iterator[Bridge]:
    """A running bridge in the middle of a call that the engine does not answer."""
    topic = unique("hanging")
    rest = EngineRest(engine.url)
    hold = engine.faults.add(verb, when="before", action=Hold(), times=None)
    with Bridge(settings(engine.url, amqp_url, {topic: {}}, stop_grace=stop_grace)) as bridge:
        rest.start(rest.deploy_topics(topic))
        with Worker(amqp_url, topic, done):
            assert hold.reached.wait(20)
        yield bridge
