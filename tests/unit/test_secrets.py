"""Every secret of the settings is known, so that none is written."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from bridge.settings import Settings, known_secrets, load
from tests.support.bridge import toml


def given(directory: Path, **tables: object) -> Settings:
    file = directory / "bridge.toml"
    file.write_text(toml({**tables, "topics": {"pay": {}}}))
    return load(file, {})


def test_each_place_for_a_secret_is_known(tmp_path: Path) -> None:
    """Values, files and the passwords in addresses; percent-encoded too, as addresses have them."""
    for name in ("password", "token", "key", "old"):
        (tmp_path / name).write_text(f"{name} {'x' * 32}\n")
    settings = given(
        tmp_path,
        token_key_file=str(tmp_path / "key"),
        token_key_file_old=str(tmp_path / "old"),
        engine={"token_file": str(tmp_path / "token"), "headers": {"X-Key": "in a header"}},
        broker={
            "urls": ["amqp://me:first%2Fone@a/", "amqp://me:second@b/"],
            "username": "me",
            "password_file": str(tmp_path / "password"),
        },
    )

    known = known_secrets(settings)

    plain = {f"{name} {'x' * 32}" for name in ("password", "token", "key", "old")}
    plain |= {"in a header", "first/one", "second", "guest"}
    assert known == plain | {quote(secret, safe="") for secret in plain}


def test_hosts_and_users_are_no_secrets(tmp_path: Path) -> None:
    """A log that hides them tells an operator nothing."""
    broker = {"url": "amqps://carrier:secret@rabbit.shop:5671/%2F"}

    assert known_secrets(given(tmp_path, broker=broker)) == {"secret"}


@pytest.mark.parametrize("secret", ['back\\slash "quoted"', "it's \u00e4", 'it\'s "\u00e4"\n'])
def test_a_secret_is_known_as_python_and_json_write_it(tmp_path: Path, secret: str) -> None:
    """An exception quotes what it held; a body of a request is JSON."""
    known = known_secrets(given(tmp_path, engine={"username": "demo", "password": secret}))

    for around in ("", "'", '"', "'\""):
        text = f"{around} {secret} {around}"
        for written in (
            repr(text),
            repr([text]),
            repr(text.encode()),
            json.dumps(text),
            json.dumps(text, ensure_ascii=False),
        ):
            assert any(form in written for form in known), written
