"""What a running bridge says of itself, after work that is known."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest
from tests.support.stage import Stage
from tests.support.waiting import eventually

DONE = 5
# A failure by the policy is no incident of ours, though the engine makes one of no retries.
EVENTS = {
    "fetched": DONE + 2,
    "confirmed": DONE + 2,
    "completed": DONE,
    "failed": 1,
    "incident": 1,
    "parked": 1,
}
CONFIDENTIAL = "CH93-0076-2011-6238-5295-7"


class Seen:
    """A stage after its work, and what its bridge shows."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def url(self) -> str:
        url = self.stage.bridge.status_url()
        assert url is not None
        return url

    def status(self) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/status.json", timeout=20)
        assert answer.status_code == 200
        return dict(answer.json())

    def topic(self, short: str) -> dict[str, Any]:
        [found] = [t for t in self.status()["topics"] if t["name"] == self.stage.names[short]]
        return dict(found)

    def sample(self, name: str, **labels: str) -> float | None:
        """A sample of /metrics; `topic` by its short name."""
        if "topic" in labels:
            labels["topic"] = self.stage.names[labels["topic"]]
        text = requests.get(f"{self.url}/metrics", timeout=20).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None


@pytest.fixture(scope="module")
def seen(engine: EngineRest, shared_amqp_url: str) -> Iterator[Seen]:
    """Five tasks done, one failed for good, one result parked, and two topics nobody works for."""
    topics: dict[str, dict[str, Any]] = {
        "pay": {"retries": 1},
        "idle": {},
        "later": {"wait_for_consumer": True},
    }
    with Stage(engine, shared_amqp_url, topics, worker_id="status") as stage:
        done = [stage.begin("pay") for _ in range(DONE)]
        for case in done:
            stage.answer(case.message(), {"paid": True})
        failed = stage.begin("pay")
        stage.answer(failed.message(), {"errorMessage": "no card"}, "failure")
        parked = stage.begin("pay")
        stage.answer(parked.message(), b"not JSON")
        stage.begin("idle", {"account": {"value": CONFIDENTIAL, "type": "String"}})
        stage.begin("later")
        stage.begin("later")
        for case in done:
            case.end()
        failed.incident()
        parked.incident()
        # The engine has it all; the bridge counts a moment later.
        eventually(
            lambda: {event: stage.count("pay", event) for event in EVENTS} == EVENTS,
            60,
            what="everything is counted",
        )
        eventually(lambda: stage.count("idle", "confirmed") == 1, 60, what="idle published")
        yield Seen(stage)


def test_the_snapshot_has_what_happened_to_each_topic(seen: Seen) -> None:
    """The first look of an operator: done, failed, parked, by topic."""
    pay = seen.topic("pay")

    assert {event: pay["events"].get(event) for event in EVENTS} == EVENTS
    assert (pay["circuit"], pay["problem"]) == ("closed", None)
    assert (pay["inFlight"], pay["capacity"]) == (0, 1000)
    assert pay["oldestSeconds"] is pay["lockMarginSeconds"] is None


def test_the_snapshot_shows_what_waits_for_an_operator(seen: Seen) -> None:
    """One failed for good, one has an answer that nobody can read: both have an incident."""
    eventually(lambda: seen.topic("pay")["stuck"] == 2, 60, what="2 have no attempts left")
    eventually(lambda: seen.sample("bridge_engine_stuck", topic="pay") == 2, 60, what="as a metric")


def test_the_log_says_where_the_page_is(seen: Seen) -> None:
    """Whoever starts a bridge has its log before their eyes, and no port of it."""
    (started,) = seen.stage.bridge.events("bridge started")

    assert started["page"] == f"http://127.0.0.1:{started['status_port']}/"
    assert "External Task Bridge" in requests.get(started["page"], timeout=20).text


def test_the_snapshot_shows_a_queue_that_nobody_consumes(seen: Seen) -> None:
    """Its message waits, its lock is kept: what is wanting is a worker."""
    idle = eventually(lambda: (t := seen.topic("idle"))["ready"] == 1 and t, 60, what="counted")

    assert (idle["consumers"], idle["unacked"]) == (0, None)
    assert (idle["inFlight"], idle["waiting"]) == (1, 0)
    assert idle["oldestSeconds"] > 0
    assert idle["lockMarginSeconds"] > 0
    assert idle["queue"] == seen.stage.names["idle"]
    assert idle["resultQueue"] == f"{idle['queue']}.results"


def test_the_snapshot_shows_what_waits_in_the_engine(seen: Seen) -> None:
    """A topic that waits for its consumer leaves its tasks where they are."""
    later = eventually(lambda: (t := seen.topic("later"))["waiting"] == 2 and t, 60, what="2 wait")

    assert (later["inFlight"], later["ready"], later["consumers"]) == (0, 0, 0)


def test_the_snapshot_shows_the_whole_bridge(seen: Seen) -> None:
    """Which bridge it is, that it works, and what a person has to look at."""
    status = eventually(
        lambda: (s := seen.status())["parked"] == 1 and s["ready"] and s, 60, what="1 parked"
    )

    assert status["schemaVersion"] == 1
    assert status["workerId"] == "status"
    assert status["now"].endswith("Z")
    assert status["uptimeSeconds"] > 0
    assert (status["ready"], status["problems"]) == (True, {})
    assert status["engine"] == {"url": seen.stage.engine.url, "problem": None}
    assert status["publisher"] == status["consumer"] == {"problem": None}
    assert status["waitingResults"] == 0


def test_the_metrics_say_the_same(seen: Seen) -> None:
    """A dashboard and the page must not tell two stories."""
    eventually(lambda: seen.sample("bridge_parked_messages") == 1, 60, what="1 parked")
    eventually(lambda: seen.sample("bridge_queue_ready", topic="idle") == 1, 60, what="1 ready")
    eventually(lambda: seen.sample("bridge_engine_waiting", topic="later") == 2, 60, what="2 wait")

    completed = seen.sample("bridge_tasks_total", topic="pay", event="completed")
    assert completed == DONE
    for stage, passed in (("confirm", DONE + 2), ("reply", DONE + 1), ("engine", DONE + 1)):
        labels = {"topic": "pay", "stage": stage}
        eventually(partial(is_sample, seen, "bridge_stage_seconds_count", passed, labels))
    assert seen.sample("bridge_engine_call_seconds_count", verb="complete", outcome="ok") == DONE
    assert seen.sample("bridge_tasks_in_flight", topic="idle") == 1
    assert seen.sample("bridge_lock_margin_seconds", topic="pay") is None
    assert seen.sample("bridge_topic_paused", topic="pay") == 0
    assert seen.sample("bridge_queue_consumers", topic="idle") == 0
    assert seen.sample("bridge_queue_unacked", topic="idle") is None
    assert seen.sample("bridge_waiting_results") == 0
    assert seen.sample("bridge_info", worker_id="status") == 1
    for part in ("engine", "publisher", "consumer"):
        eventually(partial(is_sample, seen, "bridge_connected", 1, {"part": part}))


def is_sample(seen: Seen, name: str, value: float, labels: dict[str, str]) -> bool:
    return seen.sample(name, **labels) == value


def test_a_task_in_flight_is_listed(seen: Seen) -> None:
    """What the bridge holds, and for how long yet."""
    [record] = seen.stage.engine.tasks(topicName=seen.stage.names["idle"])

    def listed(**query: str) -> dict[str, Any]:
        return dict(requests.get(f"{seen.url}/tasks.json", query, timeout=20).json())

    document = listed(task=record["id"])
    [task] = document["tasks"]
    assert (task["taskId"], task["retries"]) == (record["id"], None)
    assert task["confirmed"] is True
    assert task["lockSecondsLeft"] > 0
    assert task["deadlineSecondsLeft"] > 3600
    by_topic = listed(topic=seen.stage.names["idle"])
    assert [t["taskId"] for t in by_topic["tasks"]] == [record["id"]]
    assert listed(topic=seen.stage.names["pay"]) == {"schemaVersion": 1, "total": 0, "tasks": []}
    assert listed(task="nobody")["tasks"] == []


def test_why_is_answered_by_the_bridge_itself(seen: Seen) -> None:
    """The page asks for it; a command asks on its own."""
    [record] = seen.stage.engine.tasks(topicName=seen.stage.names["idle"])

    def ask() -> requests.Response:
        """False, as a response is, where the engine takes longer than anybody would wait."""
        return requests.get(f"{seen.url}/why.json", {"key": record["id"]}, timeout=30)

    answer = eventually(ask, what="an answer")

    assert answer.status_code == 200
    [task] = answer.json()["tasks"]
    assert (answer.json()["found"], task["taskId"]) == ("task", record["id"])
    assert "consumer" in task["waitsFor"]
    assert {fact["source"] for fact in task["facts"]} == {"engine", "broker", "bridge"}


def test_no_variable_is_shown(seen: Seen) -> None:
    """Whoever may see how the bridge stands need not be allowed to see the business."""
    [record] = seen.stage.engine.tasks(topicName=seen.stage.names["idle"])
    shown = [
        requests.get(f"{seen.url}/{path}", timeout=30).text
        for path in ("", "ready", "metrics", "status.json", "tasks.json")
    ]
    shown.append(requests.get(f"{seen.url}/why.json", {"key": record["id"]}, timeout=30).text)

    assert all(shown)
    assert not [text for text in shown if CONFIDENTIAL in text]


@pytest.fixture(params=["away", "silent"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port where nobody listens, or one that takes connections and never answers."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # nobody else gets it
        if request.param == "silent":
            place.listen()
        yield int(place.getsockname()[1])


def test_the_bridge_is_seen_while_engine_and_broker_cannot_be(nowhere: int) -> None:
    """Then most of all: what is wrong is said, what is not known is null, and nobody hangs."""
    engine_url = f"http://127.0.0.1:{nowhere}/engine-rest"
    made = settings(engine_url, f"amqp://guest:guest@127.0.0.1:{nowhere}/%2F", {"pay": {}})
    with Bridge(made, wait_ready=False) as bridge:
        url = eventually(bridge.status_url, 60, what="started")

        def told() -> dict[str, Any]:
            return dict(requests.get(f"{url}/status.json", timeout=20).json())

        status = eventually(lambda: (s := told())["consumer"]["problem"] and s, 60, what="told")
        metrics = requests.get(f"{url}/metrics", timeout=20).text

        [topic] = status["topics"]
        assert not status["ready"]
        assert status["parked"] is topic["waiting"] is topic["ready"] is None
        assert 'bridge_connected{part="consumer"} 0.0' in metrics
        assert "bridge_engine_waiting{" not in metrics
        why = requests.get(f"{url}/why.json", {"key": "x"}, timeout=20)
        assert (why.status_code, why.json()["found"]) == (200, "none")
        bridge.kill()
