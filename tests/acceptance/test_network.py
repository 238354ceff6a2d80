"""The network between the bridge and its two neighbours breaks in every way that one machine can
produce, and mends: each task ends once, no attempt is spent, nobody has to help.

One bridge for all tests, with a fault proxy on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest

from deploy.local import choice
from tests.support.amqp import Message
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest
from tests.support.proxy import End, Proxy, Strike, Way
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually, throughout

pytestmark = pytest.mark.timeout(400)

PATIENCE = 60.0  # the machine may be busy; a wait ends as soon as its condition holds
PREFETCH = 10
STORM = 4  # tasks for each of the broker's faults
FETCH = b"/external-task/fetchAndLock"


@dataclass
class Network:
    """The bridge between two proxies, and what its tests look at."""

    stage: Stage
    broker: Proxy
    engine: Proxy
    cases: dict[str, Case] = field(default_factory=dict)

    def heal(self) -> None:
        self.broker.heal()
        self.engine.heal()

    def ready(self) -> None:
        eventually(self.stage.bridge.is_ready, PATIENCE, what="the bridge is ready")

    def warm(self, topic: str) -> None:
        """Have one task of the topic done: its channel is open, and the next message goes out."""
        case = self.stage.begin(topic)
        self.stage.answer(case.message(PATIENCE))
        self.completed(case)

    def begin(self, topic: str) -> None:
        """Begin the topic's tasks, all in one process instance."""
        self.cases[topic] = self.stage.begin(topic, copies=STORM)

    def lost_connections(self) -> int:
        """How often the publisher's connection was lost so far."""
        return len(self.stage.bridge.events("broker not connected", connection="publisher"))

    def twice(self, queue: str) -> bool:
        """Whether the queue holds each of the topic's tasks a second time."""
        return (self.stage.amqp.count(queue) or 0) >= 2 * STORM

    def wait_for_loss(self, seen: int, fault: str) -> None:
        """Wait until the publisher's connection was lost more often than `seen`."""
        eventually(lambda: self.lost_connections() > seen, PATIENCE, what=f"{fault} is noticed")

    def completed(self, case: Case, tasks: int = 1) -> None:
        """The instance ends, after one completion of each task and no failure."""
        eventually(lambda: self.stage.engine.ended_at(case.instance), PATIENCE, what="the end")
        assert self.logged(case, "success") == tasks
        assert self.logged(case, "failure") == 0

    def logged(self, case: Case, what: str) -> int:
        """How often the engine's history has a success or a failure of the instance's tasks."""
        path = "/history/external-task-log/count"
        filters = {"processInstanceId": case.instance, f"{what}Log": "true"}
        return int(self.stage.engine.call("GET", path, **filters)["count"])

    def strike(self, message: Message, verb: str, end: End, passes: int | None) -> Strike:
        """Lose the engine's answer to a call for the message's task."""
        request = f"/external-task/{message.headers['taskId']}/{verb} "
        return self.engine.strike(Strike(request.encode(), end, passes=passes))


LOST_FETCHES = {"fetch-reset": (End.RESET, 0), "fetch-cut": (End.CLOSE, 300)}


@pytest.fixture(scope="module")
def network(
    engine: EngineRest, broker_node: choice.Broker, shared_amqp_url: str
) -> Iterator[Network]:
    """A bridge whose every byte passes a proxy.  Two of its fetches have lost their answers."""
    with Proxy(shared_amqp_url) as broker, Proxy(engine.url) as http:
        stage = Stage(engine, shared_amqp_url, {key: {} for key in TOPICS})
        stage.bridge.__exit__(None, None, None)  # never started: this one goes past the proxies
        stage.bridge = Bridge(
            settings(
                http.url,
                broker.url,
                {key: {} for key in stage.names.values()},
                engine={"read_timeout": "3s"},
                broker={"prefetch": PREFETCH},
            )
        )
        with stage:
            network = Network(stage, broker, http)
            for topic, (end, passes) in LOST_FETCHES.items():
                brings = stage.names[topic].encode()
                strike = http.strike(Strike(FETCH, end, answer=brings, passes=passes))
                assert strike.armed.wait(PATIENCE)  # else the poll under way brings the task
                network.cases[topic] = stage.begin(topic)
                assert strike.struck.wait(PATIENCE)
            yield network
            network.heal()


@pytest.fixture(autouse=True)
def whole(network: Network) -> Iterator[None]:
    """Each test begins on a network that works."""
    network.ready()
    yield
    network.heal()


# -- the engine's side -------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """How the answer to a call is lost, and whether the engine has acted."""

    end: End
    passes: int | None

    @property
    def acted(self) -> bool:
        return self.passes is not None


LOSSES = {
    "reset after the engine acted": Loss(End.RESET, 0),
    "black hole after the engine acted": Loss(End.SILENCE, 0),
    "answer cut in the middle": Loss(End.CLOSE, 10),
    "kept-alive connection closed as the request comes": Loss(End.CLOSE, None),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@every_loss
def test_a_complete_whose_answer_is_lost_is_called_again(network: Network, loss: Loss) -> None:
    """Nobody knows whether it was carried out: the second call shows, and 404 counts as done.
    Another topic's task does not wait for it.
    """
    stage, case = network.stage, network.stage.begin("verbs")
    message = case.message(PATIENCE)
    gone = stage.count("verbs", "gone")
    strike = network.strike(message, "complete", loss.end, loss.passes)
    stage.answer(message, {"done": True})
    assert strike.struck.wait(PATIENCE)

    neighbour = stage.begin("neighbour")
    stage.answer(neighbour.message(PATIENCE))

    network.completed(neighbour)
    network.completed(case)
    if loss.acted:
        eventually(lambda: stage.count("verbs", "gone") == gone + 1, PATIENCE)


@every_loss
def test_a_failure_whose_answer_is_lost_is_reported_once(network: Network, loss: Loss) -> None:
    """A second report would cost a second attempt: the engine is asked before it is told again."""
    stage, case = network.stage, network.stage.begin("verbs")
    message = case.message(PATIENCE)
    strike = network.strike(message, "failure", loss.end, loss.passes)
    stage.answer(message, {"errorMessage": "out of stock"}, "failure")
    assert strike.struck.wait(PATIENCE)

    again = case.message(PATIENCE)

    assert again.properties.message_id.endswith(":2")
    assert network.logged(case, "failure") == 1
    stage.answer(again, {})
    case.end()
    assert network.logged(case, "failure") == 1
    assert network.logged(case, "success") == 1


@every_loss
def test_a_bpmn_error_whose_answer_is_lost_is_raised_once(network: Network, loss: Loss) -> None:
    """The path that the error takes begins once."""
    stage = network.stage
    case = stage.begin("verbs", error_codes=("E1",))
    message = case.message(PATIENCE)
    strike = network.strike(message, "bpmnError", loss.end, loss.passes)
    stage.answer(message, {"errorCode": "E1"}, "bpmnError")
    assert strike.struck.wait(PATIENCE)

    eventually(lambda: stage.engine.ended_at(case.instance), PATIENCE)

    assert stage.engine.ended_at(case.instance) == "caught-E1-1"
    assert network.logged(case, "failure") == 0


@every_loss
def test_a_lease_whose_answer_is_lost_stands(network: Network, loss: Loss) -> None:
    """The lock keeper repeats it; what is in flight is neither forgotten nor published again."""
    stage, case = network.stage, network.stage.begin("verbs")
    leased = stage.count("verbs", "leased")
    eventually(case.task, PATIENCE)
    task = case.task()
    assert task is not None
    request = f"/external-task/{task['id']}/extendLock ".encode()
    strike = network.engine.strike(Strike(request, loss.end, passes=loss.passes))

    assert strike.struck.wait(PATIENCE)
    eventually(lambda: stage.count("verbs", "leased") > leased, PATIENCE, what="leased")

    stage.answer(case.message(PATIENCE))
    network.completed(case)
    throughout(lambda: stage.amqp.count(case.queue) == 0, 0.2)


def test_a_half_open_long_poll_ends_by_its_timeout(network: Network) -> None:
    """The engine's host is gone without a word: the read timeout ends the wait, and the next poll
    brings what came meanwhile.
    """
    stage = network.stage
    silence = network.engine.strike(Strike(FETCH, End.SILENCE))
    assert silence.struck.wait(PATIENCE)
    case = stage.begin("quick")

    stage.answer(case.message(PATIENCE))

    network.completed(case)
    problem = "engine does not answer as it should"
    assert stage.bridge.events(problem, reason="no answer in time")
    network.ready()


def test_answers_that_come_just_in_time_are_answers(network: Network) -> None:
    """Half of the read timeout on every call: slower, and nothing is called twice."""
    stage = network.stage
    network.engine.delay(1500, Way.TO_CLIENT)
    gone, leased = stage.count("slow", "gone"), stage.count("slow", "leased")

    case = stage.begin("slow")
    message = case.message(PATIENCE)
    eventually(lambda: stage.count("slow", "leased") > leased, PATIENCE, what="leased")
    stage.answer(message)

    network.completed(case)
    assert stage.count("slow", "gone") == gone


def test_connections_closed_while_idle_cost_nothing(network: Network) -> None:
    """Engines close kept-alive connections when they please: the next call opens another."""
    stage, case = network.stage, network.stage.begin("idle")
    message = case.message(PATIENCE)
    gone = stage.count("idle", "gone")
    network.engine.half_close(Way.TO_CLIENT)

    stage.answer(message)

    network.completed(case)
    assert stage.count("idle", "gone") == gone


def test_results_wait_in_their_queue_while_the_engine_refuses_connections(
    network: Network,
) -> None:
    """No more of them is taken than the prefetch, however many there are; all are applied once."""
    stage, count = network.stage, 3 * PREFETCH
    case = stage.begin("refused", copies=count)
    queue, results = case.queue, f"{case.queue}.results"
    eventually(lambda: stage.amqp.count(queue) == count, PATIENCE, what="all are published")
    network.engine.refuse()
    for message in stage.amqp.drain(queue):
        stage.answer(message)

    eventually(lambda: stage.amqp.count(results) == count - PREFETCH, PATIENCE)
    throughout(lambda: stage.amqp.count(results) == count - PREFETCH, 1.0)
    eventually(lambda: not stage.bridge.is_ready(), PATIENCE)
    network.engine.heal()

    network.completed(case, count)


def test_results_in_hand_when_the_broker_is_lost_are_applied_once(network: Network) -> None:
    """They come again on the next connection; acknowledging them by the old one's tags would
    acknowledge others.
    """
    stage = network.stage
    cases = [stage.begin("redelivered") for _ in range(3)]
    messages = [case.message(PATIENCE) for case in cases]
    eventually(lambda: stage.count("redelivered", "leased") == 3, PATIENCE)
    strikes = [network.strike(message, "complete", End.SILENCE, 0) for message in messages]
    for message in messages:
        stage.answer(message)
    assert all(strike.struck.wait(PATIENCE) for strike in strikes)

    network.broker.reset()

    for case in cases:
        network.completed(case)
    results = f"{cases[0].queue}.results"
    eventually(lambda: stage.count("redelivered", "gone") >= 3, PATIENCE)
    network.ready()
    assert stage.amqp.count(results) == 0


@pytest.mark.parametrize("topic", LOST_FETCHES)
def test_tasks_whose_fetch_was_lost_come_back(network: Network, topic: str) -> None:
    """The engine locked them and nobody knows: after the publish window they are fetched again,
    and published for the first time.
    """
    case = network.cases[topic]

    message = case.message(PATIENCE)

    assert message.properties.message_id.endswith(":-")
    network.stage.answer(message)
    network.completed(case)
    assert network.stage.count(topic, "confirmed") == 1


# -- the broker's side ---------------------------------------------------------------------------


def in_doubt(network: Network, topic: str) -> None:
    """Every message is in its queue, and no confirm gets back to the bridge."""
    network.broker.black_hole(Way.TO_CLIENT)
    network.begin(topic)
    queue = network.stage.names[topic]
    eventually(lambda: network.stage.amqp.count(queue) == STORM, PATIENCE, what="published")


def black_hole_to_bridge(network: Network, topic: str) -> None:
    in_doubt(network, topic)  # only the missing heartbeats tell


def black_hole_to_broker(network: Network, topic: str) -> None:
    network.broker.black_hole(Way.TO_SERVER)
    network.begin(topic)


def reset_in_doubt(network: Network, topic: str) -> None:
    in_doubt(network, topic)
    network.broker.reset()


def half_close_to_bridge(network: Network, topic: str) -> None:
    in_doubt(network, topic)
    network.broker.half_close(Way.TO_CLIENT)


def half_close_to_broker(network: Network, topic: str) -> None:
    network.begin(topic)
    network.broker.half_close(Way.TO_SERVER)


def cut_in_a_published_frame(network: Network, topic: str) -> None:
    network.broker.cut_after(1501, Way.TO_SERVER)
    network.begin(topic)


def cut_in_a_confirm(network: Network, topic: str) -> None:
    network.broker.cut_after(5, Way.TO_CLIENT)
    network.begin(topic)


def cut_in_handshakes(network: Network, topic: str) -> None:
    network.broker.cut_after(300, Way.TO_CLIENT)
    network.broker.cut()
    network.begin(topic)
    broken = network.broker.broken
    eventually(lambda: network.broker.broken >= broken + 2, PATIENCE, what="cut handshakes")
    network.broker.heal()
    network.broker.cut_after(9, Way.TO_SERVER)
    broken = network.broker.broken
    eventually(lambda: network.broker.broken >= broken + 2, PATIENCE, what="cut handshakes")


FAULTS: dict[str, Callable[[Network, str], None]] = {
    "hole-to-bridge": black_hole_to_bridge,
    "hole-to-broker": black_hole_to_broker,
    "reset": reset_in_doubt,
    "half-close-to-bridge": half_close_to_bridge,
    "half-close-to-broker": half_close_to_broker,
    "cut-published-frame": cut_in_a_published_frame,
    "cut-confirm": cut_in_a_confirm,
    "cut-handshake": cut_in_handshakes,
}
OTHERS = ["neighbour", "quick", "verbs", "slow", "idle", "refused", "redelivered", "crawl"]
TOPICS = (*LOST_FETCHES, *FAULTS, *OTHERS)
IN_DOUBT = ("hole-to-bridge", "reset", "half-close-to-bridge")


@pytest.fixture(scope="module")
def storm(network: Network) -> dict[str, list[Message]]:
    """One fault after the other on one bridge, each while its own topic's tasks are published;
    then workers answer everything.  The messages by fault.
    """
    for topic, fault in FAULTS.items():
        network.ready()
        network.warm(topic)
        seen = network.lost_connections()
        fault(network, topic)
        network.wait_for_loss(seen, topic)
        network.broker.heal()
    for topic in IN_DOUBT:
        twice = partial(network.twice, network.stage.names[topic])
        eventually(twice, PATIENCE, what=f"{topic} is published again")
    messages: dict[str, list[Message]] = {topic: [] for topic in FAULTS}

    def work() -> bool:
        for topic, taken in messages.items():
            for message in network.stage.amqp.drain(network.stage.names[topic]):
                taken.append(message)
                network.stage.answer(message)
        cases = [network.cases[topic] for topic in FAULTS]
        return all(network.stage.engine.ended_at(case.instance) for case in cases)

    eventually(work, 2 * PATIENCE, what="every instance ends")
    return messages


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_connection_to_the_broker_loses_nothing(
    network: Network, storm: dict[str, list[Message]], fault: str
) -> None:
    """Each task is completed once and no attempt is spent; only what was in doubt is published
    again, under the same id.
    """
    case, messages = network.cases[fault], storm[fault]
    network.completed(case, STORM)

    ids = {message.properties.message_id for message in messages}
    assert len(ids) == STORM
    assert all(each.endswith(":-") for each in ids)
    doubtful = network.stage.count(fault, "unconfirmed")
    assert len(messages) <= STORM + doubtful
    assert network.stage.engine.incidents(case.key) == []


@pytest.mark.parametrize("fault", IN_DOUBT)
def test_what_was_in_doubt_is_published_again_after_its_window(
    network: Network, storm: dict[str, list[Message]], fault: str
) -> None:
    """Until the lock has lapsed the confirm might still come: no timer of the publisher's own
    sends a second copy, and none costs a retry.
    """
    copies: dict[str, list[int]] = {}
    for message in storm[fault]:
        copies.setdefault(message.properties.message_id, []).append(message.properties.timestamp)

    assert len(copies) == STORM
    for sent in copies.values():
        assert len(sent) >= 2
        # The first copy goes out within half of the window, the second after all of it.
        assert all(later - earlier >= 6 for earlier, later in pairwise(sorted(sent)))


def test_a_slow_link_works_only_slower(network: Network) -> None:
    """Single bytes, each chunk late: no heartbeat is missed, nothing is in doubt."""
    network.warm("crawl")
    lost = network.lost_connections()
    network.broker.delay(100)
    network.broker.slice()

    network.begin("crawl")
    case = network.cases["crawl"]
    messages: list[Message] = []

    def work() -> bool:
        taken = network.stage.amqp.drain(case.queue)
        for message in taken:
            network.stage.answer(message)
        messages.extend(taken)
        return network.stage.engine.ended_at(case.instance) is not None

    eventually(work, PATIENCE, what="the end")
    network.completed(case, STORM)
    assert len(messages) == STORM
    assert network.lost_connections() == lost
