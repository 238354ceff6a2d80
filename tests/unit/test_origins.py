"""`config show`: what is in force and who said so, without a secret."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.desk.origins import MASK, Value, as_document, values
from bridge.errors import SettingsError
from bridge.settings import known_secrets, load
from bridge.settings.model import TopicKeys
from bridge.settings.source import TABLES, TOP_KEYS
from tests.unit.test_cli import bridge

SECRET = "s3cret-of-mine"


def shown(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> dict[str, Value]:
    file = directory / "bridge.toml"
    file.write_text(text, encoding="utf-8")
    return {value.key: value for value in values(file, environ or {})}


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    """The environment over the file over the defaults, and a topic's own over those of all."""
    text = """
        stop_grace = "30s"
        [engine]
        url = "http://engine/"
        callers = 3
        [topic_defaults]
        retries = 5
        deadline = "1h"
        [topics.pay]
        deadline = "2h"
    """
    environ = {
        "BRIDGE_ENGINE__CALLERS": "4",
        "BRIDGE_TOPIC_DEFAULTS__LEASE_AFTER": "2s",
        "BRIDGE_TOPICS": "ship",
    }

    found = shown(tmp_path, text, environ)

    file = tmp_path / "bridge.toml"
    assert {key: (found[key].toml, str(found[key].origin)) for key in CHECKED} == {
        "stop_grace": ('"30s"', f"{file}"),
        "worker_id": ('"bridge"', "default"),
        "engine.url": ('"http://engine"', f"{file} [engine]"),
        "engine.callers": ("4", "BRIDGE_ENGINE__CALLERS"),
        "engine.username": ("not set", "default"),
        "topics.pay": ("{}", f"{file} [topics.pay]"),
        "topics.pay.deadline": ('"2h"', f"{file} [topics.pay]"),
        "topics.pay.retries": ("5", f"{file} [topic_defaults]"),
        "topics.pay.lease_after": ('"2s"', "BRIDGE_TOPIC_DEFAULTS__LEASE_AFTER"),
        "topics.pay.lease": ('"10m"', "default"),
        "topics.ship": ("{}", "BRIDGE_TOPICS"),
        "topics.ship.queue": ('"ship"', "default"),
        "topics.ship.deadline": ('"1h"', f"{file} [topic_defaults]"),
    }


CHECKED = (
    "stop_grace",
    "worker_id",
    "engine.url",
    "engine.callers",
    "engine.username",
    "topics.pay",
    "topics.pay.deadline",
    "topics.pay.retries",
    "topics.pay.lease_after",
    "topics.pay.lease",
    "topics.ship",
    "topics.ship.queue",
    "topics.ship.deadline",
)


def test_every_key_is_shown(tmp_path: Path) -> None:
    """A key that is missing here would be looked for in vain."""
    found = shown(tmp_path, "[topics.pay]")

    tables = {name: model for name, model in TABLES.items() if name != "topic_defaults"}
    wanted = {key for key in TOP_KEYS if key not in {*TABLES, "topics"}}
    wanted |= {f"{name}.{key}" for name, model in tables.items() for key in model.model_fields}
    wanted |= {"topics.pay"} | {f"topics.pay.{key}" for key in TopicKeys.model_fields}
    assert set(found) == wanted


def test_what_is_shown_can_be_written_into_the_file(tmp_path: Path) -> None:
    """Durations, lists and tables as TOML has them: people copy from here."""
    text = """
        [engine]
        headers = { X-Key = "v" }
        [topics.pay]
        retry_pauses = ["1s", "1m"]
        variables = ["a", "ä\\"b"]
        process_variables = { region = "eu", "two words" = 2.5, vip = true }
        priority = true
    """

    found = shown(tmp_path, text)

    given = [
        f"{key.rpartition('.')[2]} = {found[key].toml}" for key in found if _is_own(found[key])
    ]
    read = tomllib.loads("\n".join(given))
    written = tomllib.loads(text)
    assert {k: v for k, v in read.items() if k != "pay"} == {
        **written["topics"]["pay"],
        "headers": {"X-Key": MASK},
    }


def _is_own(value: Value) -> bool:
    return value.origin.kind == "file"


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Wherever it stands; of an address everything else is."""
    for name in ("password", "client"):
        (tmp_path / name).write_text(f"{SECRET}-in-{name}\n", encoding="utf-8")
    text = f"""
        [engine]
        headers = {{ X-Key = "{SECRET}" }}
        oauth2_token_url = "https://sso/token"
        oauth2_client_id = "me"
        oauth2_client_secret_file = "{tmp_path}/client"
        [broker]
        urls = ["amqp://me:{SECRET}@one:5671/shop", "amqps://two"]
        username = "me"
        password_file = "{tmp_path}/password"
        [topics.pay]
    """
    environ = {"BRIDGE_TOPICS": "ship"}

    found = shown(tmp_path, text, environ)

    document = json.dumps(as_document(list(found.values()), None))
    tables = "\n".join(value.toml for value in found.values())
    for secret in known_secrets(load(tmp_path / "bridge.toml", environ)) - {"guest"}:
        assert secret not in document
        assert secret not in tables
    assert found["broker.urls"].value == [f"amqp://me:{MASK}@one:5671/shop", "amqps://two"]
    assert found["broker.url"].value is None
    for key, file in (
        ("broker.password", "password"),
        ("engine.oauth2_client_secret", "client"),
    ):
        assert (found[key].value, found[key].origin.kind) == (MASK, "secretFile")
        assert found[key].origin.name == str(tmp_path / file)


def test_bad_settings_are_told_as_everywhere(tmp_path: Path) -> None:
    """All problems at once, exit code 2, nothing on standard output."""
    text = "[topics.pay]\nretrys = 3\nlease = 5\n"
    with pytest.raises(SettingsError):
        shown(tmp_path, text)

    done = bridge("config", "show", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "topics.pay.retrys" in done.stderr
    assert "topics.pay.lease" in done.stderr


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    """One line per key, so that `grep` finds it; `--set` leaves the defaults out."""
    (tmp_path / "bridge.toml").write_text("[topics.pay]\nretries = 7\n", encoding="utf-8")

    table = bridge("config", "show", cwd=tmp_path).stdout.splitlines()
    own = bridge("config", "show", "--set", "--json", cwd=tmp_path, BRIDGE_WORKER_ID="w").stdout

    assert [line.split() for line in table if "pay.retries" in line] == [
        ["topics.pay.retries", "7", "bridge.toml", "[topics.pay]"]
    ]
    assert json.loads(own) == {
        "schemaVersion": 1,
        "file": "bridge.toml",
        "settings": [
            {
                "key": "worker_id",
                "value": "w",
                "from": {"kind": "environment", "name": "BRIDGE_WORKER_ID"},
            },
            {
                "key": "topics.pay",
                "value": {},
                "from": {"kind": "file", "name": "bridge.toml", "table": "topics.pay"},
            },
            {
                "key": "topics.pay.retries",
                "value": 7,
                "from": {"kind": "file", "name": "bridge.toml", "table": "topics.pay"},
            },
        ],
    }
