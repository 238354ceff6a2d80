"""No secret of the settings and no value of a variable is ever shown: a canary in every place."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from bridge.simulated_engine import Answer, SimulatedEngine, linear_process
from deploy.local import choice
from tests.support.amqp import Amqp
from tests.support.bridge import QUICK, Bridge, settings, toml
from tests.support.dying_bridge import LOOP
from tests.support.roles import manage
from tests.support.waiting import eventually

ASCII = '\\"'
ODD = f"{ASCII}é"


@dataclass
class Canaries:
    """Words that must not sing: one for each place where a secret or a value can stand."""

    made: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def new(self, where: str, odd: str = ODD) -> str:
        """Characters that URLs, headers, shells, JSON and Python write in another way are among
        them; `odd` without é where only ASCII may stand.
        """
        self.made[where] = f"Zq7@c/nary+{where.replace(' ', '.')}{odd}%=end"
        return self.made[where]

    def heard(self, source: str, text: str) -> None:
        """Something that the bridge has said."""
        self.texts[source] = self.texts.get(source, "") + text

    def assert_silent(self) -> None:
        assert all(self.texts.values()), f"nothing was said: {self.texts}"
        for where, canary in self.made.items():
            for form in forms(canary):
                for source, text in self.texts.items():
                    at = text.find(form)
                    assert at < 0, f"{where} in {source}: ...{text[max(0, at - 400) : at + 90]}..."


def forms(canary: str) -> Iterable[str]:
    """As it is, as in a URL, as JSON and Python quote it, and within Base64 at each offset."""
    yield canary
    yield json.dumps(canary)[1:-1]
    yield json.dumps(canary, ensure_ascii=False)[1:-1]
    yield repr(canary)[1:-1]
    yield repr(canary.encode())[2:-1]
    yield quote(canary, safe="")
    yield quote(canary)
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + canary.encode()).decode()
        yield encoded[4 : len(encoded) - 4]


def secret_file(directory: Path, name: str, content: str) -> str:
    path = directory / name
    path.write_text(content + "\n", encoding="utf-8")
    return str(path)


def say(canaries: Canaries, config: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the bridge and listen to it."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *command, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
    )
    canaries.heard(" ".join(command), done.stdout + done.stderr)
    return done


@pytest.fixture
def carrier(broker_node: choice.Broker, amqp_url: str) -> Iterator[tuple[str, str]]:
    """A user of the broker with a canary for a password: its name, and that."""
    password = 'Zq7@c/nary+broker.password\\"é%=end'
    name, vhost = f"carrier-{urlsplit(amqp_url).path[6:]}", urlsplit(amqp_url).path[1:]
    manage(broker_node, "PUT", f"users/{name}", {"password": password, "tags": "administrator"})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    manage(broker_node, "PUT", f"permissions/{vhost}/{name}", rights)
    yield name, password
    manage(broker_node, "DELETE", f"users/{name}")


def test_no_secret_and_no_value_is_ever_shown(
    broker_node: choice.Broker, amqp_url: str, carrier: tuple[str, str], tmp_path: Path
) -> None:
    """At DEBUG, through successes, refusals, the engine's own complaints and every command."""
    canaries, (user, password) = Canaries(), carrier
    canaries.made["broker password"] = password
    place = amqp_url.rpartition("@")[2]
    management = urlsplit(broker_node.management_url)
    engine_password = canaries.new("engine password")
    with SimulatedEngine(basic_auth=("demo", engine_password)) as engine, Amqp(amqp_url) as amqp:
        tables = settings(
            engine.url,
            f"amqp://{quote(user)}:{quote(password, safe='')}@{place}",
            {"pay": {"allowed_variables": ["status"]}},
            token_key_file=secret_file(tmp_path, "key", canaries.new("token key") * 2),
            token_key_file_old=secret_file(tmp_path, "old", canaries.new("old token key") * 2),
            engine={
                "username": "demo",
                "password_file": secret_file(tmp_path, "password", engine_password),
                "headers": {"X-Gateway-Key": canaries.new("header", ASCII)},
            },
            broker={"management_url": f"http://{management.hostname}:{management.port}"},
        )
        engine.deploy(linear_process("p", "pay", error_codes=("E1",)))
        with Bridge(tables) as bridge:
            every_kind_of_answer(canaries, engine, amqp)
            complaints_of_the_engine(canaries, engine, amqp)
            for command in (["check"], ["permissions", "--json"]):
                assert say(canaries, bridge.config, *command).returncode == 0
            for path in ("ready", "metrics", "live", "nowhere"):
                canaries.heard(path, requests.get(f"{bridge.status_url()}/{path}", timeout=10).text)
            assert bridge.stop() == 0
            canaries.heard("log", bridge.log_path.read_text())

    canaries.assert_silent()


def every_kind_of_answer(canaries: Canaries, engine: SimulatedEngine, amqp: Amqp) -> None:
    """Good and bad ones, all full of canaries; each task ends, or lies still."""
    word = canaries.new
    answers: list[tuple[str | None, Any]] = [
        (None, {"status": word("result")}),
        (None, {"other": word("refused result")}),
        (None, {"status": {"value": word("date"), "type": "Date"}}),
        (None, [word("array")]),
        (None, f'{{"status": "{word("broken JSON")}", '.encode()),
        (word("outcome"), {}),
        ("failure", {"errorMessage": word("message"), "errorDetails": word("details")}),
        ("failure", {"errorMessage": 1, "errorDetails": [word("wrong type")], "retries": "x"}),
        ("bpmnError", {"errorCode": "E1", "errorMessage": word("BPMN message")}),
        ("bpmnError", {"errorCode": [word("error code")]}),
        ("extendLock", {"newDuration": word("duration")}),
        ("extendLock", {"newDuration": 1, "variables": {"status": word("progress")}}),
    ]
    for _ in answers:
        engine.start_process("p", {"iban": word("process variable")}, business_key=word("key"))
    for outcome, body in answers:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"outcome": outcome} if outcome else {}
        reply(amqp, content, {**headers, "x": word("any header")})
    amqp.send("", "pay.results", b"{}", correlation_id=word("token"), message_id=word("id"))
    eventually(lambda: amqp.count("bridge.parked") == 9, 60, what="what is bad lies parked")
    eventually(lambda: engine.tasks(active=True), what="some are still there")


def reply(amqp: Amqp, body: bytes, headers: dict[str, str]) -> None:
    """Take the next task and answer it."""
    message = eventually(lambda: amqp.get("pay"), 40, what="a task")
    assert message is not None
    token = message.properties.correlation_id
    amqp.send("", message.properties.reply_to, body, correlation_id=token, headers=headers)


COMPLAINTS = [
    (verb, status)
    for verb in ("fetchAndLock", "complete", "failure", "getTask", "query", "extendLock")
    for status in (400, 500)
    # A refusal to fetch is about the request, and that has no values: it is told in full.
    if (verb, status) != ("fetchAndLock", 400)
]


def complaints_of_the_engine(canaries: Canaries, engine: SimulatedEngine, amqp: Amqp) -> None:
    """Every call is refused once, and fails once, with a text that quotes a value, as that of a
    process's expression may.
    """
    engine.calls.clear()
    for verb, status in COMPLAINTS:
        kind = "RestException" if status == 400 else "ProcessEngineException"
        quoted = {"type": kind, "message": f"no: {canaries.new(f'{verb} {status}')}", "code": 0}
        engine.faults.add(verb, when="before", action=Answer(status, quoted))
    for _ in range(4):
        engine.start_process("p")
    failure = {"errorMessage": "no", "retries": 1}

    for outcome, body in (("complete", {}), ("complete", {}), ("failure", failure)):
        reply(amqp, json.dumps(body).encode(), {"outcome": outcome})

    def struck() -> bool:
        return set(COMPLAINTS) <= {(call.verb, call.status) for call in engine.calls.of()}

    eventually(struck, 60, what="the engine has complained of everything")


@pytest.mark.parametrize("kind", ["token_file", "two_tokens", "password", "broker"])
def test_refused_credentials_are_not_told(kind: str, amqp_url: str, tmp_path: Path) -> None:
    """A wrong password is most often a right one for something else."""
    canaries = Canaries()
    secret = canaries.new(kind, ASCII if kind == "token_file" else ODD)
    given: dict[str, dict[str, Any]] = {
        "token_file": {"engine": {"token_file": secret_file(tmp_path, "token", secret)}},
        "two_tokens": {"engine": {"token_file": secret_file(tmp_path, "two", f"{secret}\n2")}},
        "password": {"engine": {"username": "demo", "password": secret}},
        "broker": {"broker": {"username": "guest", "password": secret}},
    }
    told = "broker not connected" if kind == "broker" else "engine does not answer as it should"
    with SimulatedEngine(basic_auth=("demo", "demo")) as engine:
        tables = settings(engine.url, amqp_url, {"pay": {}}, **given[kind])
        with Bridge(tables, wait_ready=False) as bridge:
            eventually(lambda: bridge.events(told), 60, what=told)
            ready = requests.get(f"{bridge.status_url()}/ready", timeout=10)
            assert ready.status_code == 503
            canaries.heard("ready", ready.text)
            assert say(canaries, bridge.config, "check").returncode == 1
            bridge.stop()
            canaries.heard("log", bridge.log_path.read_text())

    canaries.assert_silent()


def test_a_crash_does_not_tell_secrets(amqp_url: str, tmp_path: Path) -> None:
    """A loop dies with an exception that quotes the broker's address: the traceback is there, the
    password is not.
    """
    canaries = Canaries()
    password = canaries.new("broker")
    url = amqp_url.replace("guest:guest", f"guest:{quote(password, safe='')}")
    tables = settings("http://127.0.0.1:1/engine-rest", url, {"pay": {}})
    dying = "tests.support.dying_bridge"
    with Bridge(tables, wait_ready=False, module=dying, env={LOOP: "poller"}) as bridge:
        assert bridge.wait() == 1
        log = bridge.log_path.read_text()
        canaries.heard("log", log)
        assert bridge.events("loop died", part="poller")

    assert "cannot go on with BrokerOptions(urls=('amqp://guest:[hidden]@" in log
    canaries.assert_silent()


def test_settings_that_are_refused_are_not_quoted(tmp_path: Path) -> None:
    """Nobody knows which of the wrong values is a secret in the wrong place."""
    canaries = Canaries()
    word = canaries.new
    userinfo = f"user:{quote(word('userinfo'), safe='')}"
    tables: dict[str, Any] = {
        "worker_id": [word("worker id")],
        "token_key_file": secret_file(tmp_path, "key", "short"),
        "engine": {
            "url": f"http://{userinfo}@localhost/",
            "password": word("password"),
            "password_file": secret_file(tmp_path, "password", word("password file")),
            "token": [word("token")],
            "headers": {"X": word("header") + "\u00e9", "Y": [word("header list")]},
            "pasword": word("misspelt"),
            "read_timeout": word("duration"),
        },
        "broker": {
            "url": f"amqp://{userinfo}@localhost:99999/",
            "urls": [f"http://{userinfo}@localhost/"],
            "password": 7,
            "management_url": f"http://{userinfo}@localhost:15672",
            "declare": word("choice"),
        },
        "status": {"listen": word("address")},
        "topic_defaults": {**QUICK, "body": word("body")},
        "topics": {"pay": {"routing_key": "{" + word("routing key") + "}"}},
    }
    config = tmp_path / "bridge.toml"
    config.write_text(toml(tables))

    for command in (["run"], ["check", "--json"]):
        assert say(canaries, config, *command).returncode == 2
    config.write_text(f'[engine]\npassword = "{word("unclosed")}')
    assert say(canaries, config, "run").returncode == 2

    canaries.assert_silent()
