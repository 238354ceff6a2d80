"""`init`: a settings file for the topics that an engine has, which the bridge takes as it is."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.desk import proposal
from bridge.desk.process_topics import ANY_ERROR, Activity, activities
from bridge.desk.proposal import FoundTopic, Place, Proposal, queue_names
from bridge.settings import EngineSettings, load
from bridge.simulated_engine import SimulatedEngine
from tests.support.engine import EngineRest
from tests.unit.test_cli import bridge

MODEL = """<?xml version="1.0" encoding="UTF-8"?>
<b:definitions xmlns:b="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:x="{namespace}"
    targetNamespace="urn:test">
  <b:error id="e1" errorCode="REFUSED"/>
  <b:error id="e2" errorCode="LIMIT"/>
  <b:process id="order" name="Order" isExecutable="true" x:historyTimeToLive="1">
    <b:serviceTask id="charge" name="Charge card" x:type="external" x:topic="payment"/>
    <b:boundaryEvent id="b1" attachedToRef="charge"><b:errorEventDefinition errorRef="e1"/>
    </b:boundaryEvent>
    <b:boundaryEvent id="b2" attachedToRef="charge"><b:errorEventDefinition errorRef="e2"/>
    </b:boundaryEvent>
    <b:boundaryEvent id="b3" attachedToRef="charge"><b:timerEventDefinition/></b:boundaryEvent>
    <b:subProcess id="sub">
      <b:businessRuleTask id="rate" x:type="external" x:topic="rating"/>
      <b:boundaryEvent id="b4" attachedToRef="rate"><b:errorEventDefinition/></b:boundaryEvent>
    </b:subProcess>
    <b:sendTask id="mail" x:type="External" x:topic="${{country}}-mail"/>
    <b:endEvent id="end"><b:messageEventDefinition x:type="external" x:topic="notify"/></b:endEvent>
    <b:serviceTask id="java" x:class="org.example.Java"/>
    <b:serviceTask id="other" x:type="shell" x:topic="none"/>
  </b:process>
</b:definitions>"""

ENGINES = ("http://camunda.org/schema/1.0/bpmn", "http://operaton.org/schema/1.0/bpmn")


@pytest.mark.parametrize("namespace", ENGINES)
def test_every_kind_of_activity_with_a_topic_is_found(namespace: str) -> None:
    """Service, send and business rule tasks and message events, also inside a subprocess."""
    assert activities(MODEL.format(namespace=namespace)) == [
        Activity("payment", "charge", "Charge card", ("REFUSED", "LIMIT")),
        Activity("rating", "rate", "", (ANY_ERROR,)),
        Activity("${country}-mail", "mail", "", ()),
        Activity("notify", "end", "", ()),
    ]


@pytest.mark.parametrize("xml", ["", "<a", "<a/>", MODEL.format(namespace="urn:unknown")])
def test_a_model_without_topics_has_none(xml: str) -> None:
    """One broken model does not end the look at the others."""
    assert activities(xml) == []


# The file


def found(*topics: str) -> Proposal:
    queues = queue_names(list(topics))
    return Proposal(
        "http://localhost:8080/engine-rest",
        tuple(FoundTopic(name, queues[name], ()) for name in topics),
        (),
        (),
    )


AWKWARD = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)
COLLIDING = st.sampled_from(
    ["a", "a.results", "a.results.results", "A b", "a-b", "ä", "bridge.parked", "amq.a", '"', "-"]
)


@given(st.lists(AWKWARD | COLLIDING, min_size=1, max_size=8, unique=True))
def test_whatever_the_topics_are_called_the_file_is_taken(topics: list[str]) -> None:
    """Names that no queue can have, and names whose queues would collide, get one of their own."""
    usable = [topic for topic in topics if not {"*", "#"} & set(topic.split("."))]
    if not usable:
        return
    with pytest.MonkeyPatch.context() as patch:
        written: dict[Path, str] = {}
        patch.setattr(Path, "write_text", lambda path, text, **_: written.update({path: text}))
        patch.setattr(Path, "read_text", lambda path, **_: written[path])
        proposal.write(found(*usable), Path("bridge.toml"))

        settings = load(Path("bridge.toml"), {})

    assert list(settings.topics) == usable


def test_a_topic_keeps_its_name_as_its_queue_where_it_can() -> None:
    """Nobody wants to look a queue's name up."""
    names = queue_names(["payment", "Größe", "payment.results", "bridge.wait", "a b", "a-b"])

    assert names == {
        "payment": "payment",
        "Größe": "Gr-e",
        "payment.results": "payment.results-tasks",
        "bridge.wait": "bridge.wait-tasks",
        "a b": "a-b-tasks",
        "a-b": "a-b",
    }


def test_names_of_a_model_cannot_break_out_of_a_comment() -> None:
    """A name with a line end would add a line to the settings."""
    activity = Activity("pay", "charge", 'x\n[engine]\nurl = "http://elsewhere"', ("A\nB",))
    place = Place("order", "Order\r\nentry", activity)
    text = Proposal(
        "http://engine", (FoundTopic("pay", "pay", (place,)),), (place,), ("a\nb",)
    ).as_text()

    tree = tomllib.loads(text)

    assert tree["engine"] == {"url": "http://engine"}
    assert list(tree["topics"]) == ["pay"]


# The command, with an engine


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineRest]:
    with SimulatedEngine() as simulated:
        rest = EngineRest(simulated.url)
        rest.deploy_topics("old-topic", "payment", key="order")
        rest.start("order")
        rest.deploy_topics("payment", "ship", key="order", error_codes=["REFUSED"])
        rest.deploy_topics("payment", key="refund")
        yield rest


def test_a_file_is_written_that_the_bridge_takes(engine: EngineRest, tmp_path: Path) -> None:
    """The topics of the latest versions, and those of which tasks are waiting."""
    done = bridge("init", "--engine-url", engine.url, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "bridge.toml").read_text(encoding="utf-8")
    settings = load(tmp_path / "bridge.toml", {})
    assert settings.engine == EngineSettings(url=engine.url)
    assert list(settings.topics) == ["old-topic", "payment", "ship"]
    above = text.partition("[topics.payment]")[0].splitlines()[-2:]
    assert above == [
        "# process order, activity task-1, error codes: REFUSED",
        "# process refund, activity task-1",
    ]
    assert "tasks of it are there" in text.partition("[topics.old-topic]")[0].splitlines()[-1]


def test_a_file_that_is_there_is_not_overwritten(engine: EngineRest, tmp_path: Path) -> None:
    """Hours of somebody's work may be in it."""
    file = tmp_path / "bridge.toml"
    file.write_text("# mine\n[topics.a]\n", encoding="utf-8")

    refused = bridge("init", "--engine-url", engine.url, cwd=tmp_path)
    kept = file.read_text(encoding="utf-8")
    forced = bridge("init", "--engine-url", engine.url, "--force", cwd=tmp_path)

    assert (refused.returncode, kept) == (2, "# mine\n[topics.a]\n")
    assert "--force" in refused.stderr
    assert forced.returncode == 0
    assert "payment" in load(file, {}).topics


def test_a_program_can_read_what_was_found(engine: EngineRest, tmp_path: Path) -> None:
    """With another name for the file."""
    output = str(tmp_path / "made.toml")
    done = bridge("init", "--json", "--output", output, cwd=tmp_path, BRIDGE_ENGINE__URL=engine.url)

    document = json.loads(done.stdout)
    topics = {topic["name"]: topic for topic in document["topics"]}
    assert document["file"] == output
    assert topics["ship"]["activities"] == [
        {
            "processDefinitionKey": "order",
            "processName": "",
            "activityId": "task-2",
            "activityName": "",
            "topic": "ship",
            "errorCodes": ["REFUSED"],
        }
    ]


def test_an_engine_without_topics_is_not_worth_a_file(tmp_path: Path) -> None:
    """A file without a topic would be refused by everything else."""
    with SimulatedEngine() as empty:
        done = bridge("init", "--engine-url", empty.url, cwd=tmp_path)

    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "deploy" in done.stderr


def test_an_engine_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    """One sentence with the address and the cure."""
    done = bridge("init", "--engine-url", "http://127.0.0.1:1/engine-rest", cwd=tmp_path)

    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_credentials_come_from_where_they_always_come(tmp_path: Path) -> None:
    """And stay there: the file has none."""
    with SimulatedEngine(basic_auth=("demo", "s3cret")) as guarded:
        guarded_rest = EngineRest(guarded.url)
        guarded_rest._session.auth = ("demo", "s3cret")
        guarded_rest.deploy_topics("pay")
        without = bridge("init", "--engine-url", guarded.url, cwd=tmp_path)
        credentials = {"BRIDGE_ENGINE__USERNAME": "demo", "BRIDGE_ENGINE__PASSWORD": "s3cret"}
        done = bridge("init", "--engine-url", guarded.url, cwd=tmp_path, **credentials)

    assert (without.returncode, done.returncode) == (3, 0)
    assert "s3cret" not in (tmp_path / "bridge.toml").read_text(encoding="utf-8")
