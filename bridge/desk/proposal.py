"""A settings file for the topics that an engine has.  Asks the engine alone; writes no secret."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge import plan
from bridge.desk.process_topics import Activity, activities
from bridge.engine.records import EngineRecords
from bridge.settings import BrokerSettings, EngineSettings, load
from bridge.settings.names import is_creatable, result_queue
from bridge.settings.problems import dotted

_HEAD = """\
# Settings of the External Task Bridge, for the topics of the engine at
# {url}.
# What is left out has its default; deploy/bridge.toml of the project shows every key.

worker_id = "bridge"            # owner of the locks: one name for all replicas of a deployment,
                                # another one for each further deployment on the same engine
# token_key_file = "token-key"  # signs correlation ids, so that a worker can finish only its own
                                # tasks: openssl rand -base64 32 > token-key

[engine]
url = {quoted}
# username = "bridge"           # where it asks for credentials; or token_file, oauth2_token_url
# password_file = "/run/secrets/engine-password"

[broker]
# url = "amqp://guest:guest@localhost:5672/%2F"
# username = "bridge"
# password_file = "/run/secrets/broker-password"
"""
_UNFIT = re.compile(r"[^A-Za-z0-9._:-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """An activity and the process that it belongs to."""

    process_key: str
    process_name: str
    activity: Activity

    def __str__(self) -> str:
        activity = _named(self.activity.activity_id, self.activity.name)
        return f"process {_named(self.process_key, self.process_name)}, activity {activity}"


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic, the queue that suits it, and where it comes from (nowhere: only tasks of it are
    there, of an older version of a process).
    """

    name: str
    queue: str
    places: tuple[Place, ...]

    def table(self) -> Iterator[str]:
        """Its lines in the settings file."""
        for place in self.places:
            codes = ", ".join(place.activity.error_codes)
            yield f"# {place}" + (f", error codes: {_line(codes)}" if codes else "")
        if not self.places:
            yield "# tasks of it are there, but no process in its latest version has this topic"
        yield f"[{dotted(('topics', self.name))}]"
        if self.queue != self.name:
            yield f"queue = {json.dumps(self.queue)}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an engine has.  `expressions` are places whose topic only the engine can work out;
    `unusable` are names that no table can have.
    """

    engine_url: str
    topics: tuple[FoundTopic, ...]
    expressions: tuple[Place, ...]
    unusable: tuple[str, ...]

    def as_text(self) -> str:
        """The settings file."""
        lines = [_HEAD.format(url=self.engine_url, quoted=json.dumps(self.engine_url))]
        for place in self.expressions:
            text = f"# {place} takes its topic from {_line(place.activity.topic)}"
            lines += [f"{text}: add a table for each topic that it can be"]
        lines += [f"# topic {name!a} cannot be served: rename it" for name in self.unusable]
        for topic in self.topics:
            lines += ["", *topic.table()]
        return "\n".join(lines) + "\n"

    def as_document(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "schemaVersion": 1,
            "engineUrl": self.engine_url,
            "topics": [
                {"name": t.name, "queue": t.queue, "activities": [*map(_document, t.places)]}
                for t in self.topics
            ],
            "expressions": [*map(_document, self.expressions)],
            "unusable": list(self.unusable),
        }


def engine_settings(
    config: Path | None, url: str | None, environ: Mapping[str, str]
) -> EngineSettings:
    """How to reach the engine: from a settings file, which may lack topics, and the environment;
    `url` wins.  Raises SettingsError.
    """
    given = {"BRIDGE_ENGINE__URL": url} if url is not None else {}
    topics = {"BRIDGE_TOPICS": environ.get("BRIDGE_TOPICS") or "any"}
    return load(config, {**environ, **topics, **given}).engine


def look(engine: EngineSettings) -> Proposal:
    """Ask for the latest version of every process, and for the topics of tasks.  Raises
    EngineError.
    """
    records = EngineRecords(plan.http_options(engine))
    places: defaultdict[str, list[Place]] = defaultdict(list)
    expressions: list[Place] = []
    for process in records.latest_processes():
        for activity in activities(records.process_xml(process.id)):
            place = Place(process.key, process.name or "", activity)
            found = expressions if activity.is_expression else places[activity.topic]
            if place not in found:  # each tenant may have its own copy
                found.append(place)
    names = sorted({*places, *records.topic_names()})
    usable = [name for name in names if _usable(name)]
    queues = queue_names(usable)
    return Proposal(
        engine_url=engine.url,
        topics=tuple(FoundTopic(n, queues[n], tuple(places.get(n, ()))) for n in usable),
        expressions=tuple(expressions),
        unusable=tuple(name for name in names if name not in usable),
    )


def write(found: Proposal, output: Path) -> None:
    """Write the file, which `load` takes.  Raises OSError, and SettingsError before that."""
    text = found.as_text()
    with tempfile.TemporaryDirectory() as directory:
        trial = Path(directory) / "bridge.toml"
        trial.write_text(text, encoding="utf-8")
        load(trial, {})
    output.write_text(text, encoding="utf-8")


def queue_names(topics: list[str]) -> dict[str, str]:
    """A queue for each topic: its own name, unless no queue may have it or another one does."""
    taken = set(BrokerSettings().names.queues)
    taken |= {result_queue(topic, "") for topic in topics if is_creatable(topic)}
    chosen: dict[str, str] = {}
    # Those that keep their names go first.
    for topic in sorted(topics, key=lambda topic: not is_creatable(topic) or topic in taken):
        chosen[topic] = next(name for name in _candidates(topic) if _free(topic, name, taken))
        taken |= {chosen[topic], result_queue(topic, chosen[topic])}
    return chosen


def _free(topic: str, queue: str, taken: set[str]) -> bool:
    results = result_queue(topic, queue)
    # The result queue of a topic with a good name is its own, and reserved above.
    return (
        is_creatable(queue)
        and queue not in taken
        and (is_creatable(topic) or (is_creatable(results) and results not in taken))
    )


def _candidates(topic: str) -> Iterator[str]:
    yield topic
    stem = _UNFIT.sub("-", topic).strip("-")[:150] or "topic"
    stem = f"tasks-of-{stem}" if stem.startswith("amq.") else stem
    yield stem
    yield f"{stem}-tasks"
    number = 2
    while True:
        yield f"{stem}-tasks-{number}"
        number += 1


def _usable(topic: str) -> bool:
    words = topic.split(".")
    return topic.isprintable() and 1 <= len(topic) <= 255 and not {"*", "#"} & set(words)


def _document(place: Place) -> dict[str, Any]:
    return {
        "processDefinitionKey": place.process_key,
        "processName": place.process_name,
        "activityId": place.activity.activity_id,
        "activityName": place.activity.name,
        "topic": place.activity.topic,
        "errorCodes": list(place.activity.error_codes),
    }


def _named(identity: str, name: str) -> str:
    return _line(f"{identity} ({name})" if name and name != identity else identity)


def _line(text: str) -> str:
    """Models are other people's text: a comment must end where its line does."""
    return "".join(char if char.isprintable() else " " for char in text)
