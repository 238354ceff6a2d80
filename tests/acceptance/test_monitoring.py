"""Dashboard and alerts on what a real bridge exports, asked of a real Prometheus."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import choice
from tests.support.amqp import Message, Reply, Worker
from tests.support.engine import EngineRest
from tests.support.monitoring import PANELS, README, dashboard_queries, filled
from tests.support.prometheus import RULES, Prometheus
from tests.support.stage import Stage
from tests.support.waiting import eventually

# As they are without settings: the alerts' thresholds suit these.
USUAL = {"publish_window": "60s", "lease": "10m", "lease_after": "5s", "retry_pauses": ["1s"]}
SECONDS = 90
AT_ONCE = ("NoConsumer", "ResultsWait")

pytestmark = pytest.mark.timeout(300)  # with the start of every part


@dataclass(frozen=True)
class Watched:
    """A bridge at work, and the Prometheus that scrapes it."""

    stage: Stage
    prometheus: Prometheus
    more_work: Callable[[], object]

    def asks(self, query: str) -> bool:
        """Whether a query of the dashboard finds something, while work goes on."""
        self.more_work()
        return bool(self.prometheus.query(filled(query, "20s")))


def answer(message: Message) -> Reply | None:
    """Every third task fails once."""
    tried = message.headers.get("retries") is not None
    if message.json["variables"]["n"] % 3 == 0 and not tried:
        return Reply({"errorMessage": "not today"}, "failure")
    return Reply({"done": True})


@pytest.fixture(scope="module")
def watched(
    engine: EngineRest,
    broker_node: choice.Broker,
    shared_amqp_url: str,
    prometheus_program: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """Topic `busy` has a worker, `alone` a task and none; one result is parked, one waits."""
    topics: dict[str, dict[str, object]] = {"busy": {}, "alone": {}, "odd": {}}
    management = urlsplit(broker_node.management_url)  # the same user as for AMQP
    broker = {
        "management_url": f"http://{management.hostname}:{management.port}",
        "wait": "10m",
    }
    with Stage(engine, shared_amqp_url, topics, topic_defaults=USUAL, broker=broker) as stage:
        url = stage.bridge.status_url()
        assert url is not None
        folder = tmp_path_factory.mktemp("prometheus")
        prometheus = Prometheus(prometheus_program, url, folder, AT_ONCE)
        with prometheus, Worker(shared_amqp_url, stage.names["busy"], answer):
            # Growing is a word on what was before.
            eventually(lambda: prometheus.value("bridge_parked_messages") == 0, SECONDS)
            yield Watched(stage, prometheus, work(stage))


def work(stage: Stage) -> Callable[[], object]:
    """Begins what stays, and returns what begins one more task of topic `busy`."""
    stage.begin("alone")
    parked, waits = stage.begin("odd"), stage.begin("odd")
    stage.answer(parked.message(), b"no JSON")
    message = waits.message()
    stage.engine.suspend(waits.instance, True)
    stage.answer(message, {"done": True})
    numbers = iter(range(1_000_000))

    def begin() -> str:
        return stage.engine.start(key, {"n": {"value": next(numbers), "type": "Integer"}})

    key = stage.begin("busy", {"n": {"value": 0, "type": "Integer"}}).key
    return begin


def exported(watched: Watched) -> dict[str, set[str]]:
    """The samples of a scrape: name -> labels."""
    url = watched.stage.bridge.status_url()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(requests.get(f"{url}/metrics", timeout=30).text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each of the bridge's metrics in an expression, with the labels that are matched."""
    for name, matchers in re.findall(r"\b((?:bridge|process)_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*[=!]", matchers))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_something(watched: Watched, panel: dict[str, Any]) -> None:
    """A query can be right in every word and ask for what no bridge exports."""
    for target in panel["targets"]:
        query = target["expr"]
        eventually(partial(watched.asks, query), SECONDS, what=f"samples of {query}")


def test_every_metric_and_label_that_is_asked_for_is_exported(watched: Watched) -> None:
    """A label that is missing matches every sample or none, and nobody sees which."""
    asked = list(selectors("\n".join([RULES.read_text(), *dashboard_queries()])))
    given = {"job", "instance"}  # by Prometheus

    def lacking() -> set[str]:
        known = exported(watched)
        return {
            f"{name}{labels or ''}"
            for name, labels in asked
            if name not in known or not labels - given <= known[name]
        }

    watched.more_work()
    eventually(lambda: not lacking(), SECONDS, what="what is asked for is exported")


def test_the_page_on_monitoring_names_what_is_exported(watched: Watched) -> None:
    """Its table is where people look for a name; one that is missing there does not exist."""
    rows = re.findall(r"^\| (`bridge_.*?) \|", README, re.MULTILINE)
    told = {
        name: set(filter(None, labels.split(",")))
        for row in rows
        for name, labels in re.findall(r"`(\w+)(?:\{([\w,]*)\})?`", row)
    }

    def shown() -> dict[str, set[str]]:
        return {
            re.sub(r"_(bucket|count|sum)$", "", name): labels - {"le"}
            for name, labels in exported(watched).items()
            if name.startswith("bridge_")
        }

    watched.more_work()
    eventually(lambda: told.keys() <= shown().keys(), SECONDS, what="what is told is exported")
    assert told == shown()


def test_the_rules_are_evaluated_without_an_error(watched: Watched) -> None:
    """Prometheus loads what it cannot evaluate: two sides of a join that do not fit, say."""
    healthy = eventually(
        lambda: {rule["health"] for rule in watched.prometheus.rules()} - {"unknown"},
        SECONDS,
        what="every rule was evaluated",
    )

    assert healthy == {"ok"}


def test_what_is_wrong_fires_and_says_where(watched: Watched) -> None:
    """Nobody works on `alone`, a result is parked, another waits: three alerts, with the names."""

    def firing() -> dict[str, str]:
        return {
            alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in watched.prometheus.alerts()
        }

    wanted = {"NoConsumer", "ParkedGrowing", "ResultsWait"}
    found = eventually(lambda: firing() if wanted <= firing().keys() else {}, SECONDS)

    assert found["NoConsumer"] == f"Nobody works on topic {watched.stage.names['alone']}"
    assert not {"OldestTaskTooOld", "TasksWaitInEngine"} & found.keys()
