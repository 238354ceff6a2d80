"""An engine behind OAuth 2.0: the bridge signs in by itself, and nothing that happens to tokens,
secrets or the authorization server costs more than time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.amqp import Message, Reply, Worker
from tests.support.authorization import AuthorizationServer, TokenGate
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

LIMIT = 60


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        server.add_client("bridge", "first secret")
        yield server


@pytest.fixture
def gate(engine: EngineRest, server: AuthorizationServer) -> Iterator[TokenGate]:
    with TokenGate(engine.url, server) as gate:
        yield gate


class Shop:
    """A topic with a worker; a bridge that signs in; `do` puts instances through them."""

    def __init__(
        self, engine: EngineRest, gate: TokenGate, server: AuthorizationServer, secret_file: Path
    ) -> None:
        self._engine = engine
        self.topic = unique("signed-in")
        self.secret_file = secret_file
        self.secret_file.write_text("first secret\n", encoding="utf-8")
        self._key = engine.deploy_topics(self.topic)
        self._wanted = 0
        self._sign_in = {
            "url": gate.url,
            "oauth2_token_url": server.url,
            "oauth2_client_id": "bridge",
            "oauth2_client_secret_file": str(secret_file),
        }

    def settings(self, amqp_url: str) -> dict[str, Any]:
        topics: dict[str, dict[str, Any]] = {self.topic: {}}
        return settings(self._engine.url, amqp_url, topics, engine=self._sign_in)

    def do(self, count: int = 5) -> None:
        """Start instances and wait for their ends."""
        self._engine.start_many(self._key, count)
        self._wanted += count
        eventually(lambda: self._engine.finished(self._key) == self._wanted, LIMIT)

    def failures(self) -> list[Any]:
        return self._engine.incidents(self._key)


@pytest.fixture
def shop(engine: EngineRest, gate: TokenGate, server: AuthorizationServer, tmp_path: Path) -> Shop:
    return Shop(engine, gate, server, tmp_path / "secret")


def done(_: Message) -> Reply:
    return Reply({"done": True})


def engine_problem(bridge: Bridge) -> str:
    """What /ready says of the engine; empty where all is well."""
    url = eventually(bridge.status_url, LIMIT, what="the bridge has started")
    return requests.get(f"{url}/ready", timeout=30).text if not bridge.is_ready() else ""


def test_tokens_expire_are_revoked_and_secrets_rotate(
    shop: Shop, server: AuthorizationServer, gate: TokenGate, amqp_url: str
) -> None:
    """Weeks of a deployment in seconds: every task is done, and nobody has to restart anything."""
    server.seconds = 4
    with Bridge(shop.settings(amqp_url)) as bridge, Worker(amqp_url, shop.topic, done):
        shop.do()
        eventually(lambda: server.sign_ins >= 3, LIMIT, what="tokens that expired were renewed")
        shop.do()

        server.seconds = 3600
        server.revoke_all()
        signed_in = server.sign_ins
        shop.do()
        assert gate.refused
        assert server.sign_ins > signed_in

        server.clients["bridge"].secrets = {"first secret", "second secret"}
        shop.secret_file.write_text("second secret\n", encoding="utf-8")
        server.clients["bridge"].secrets = {"second secret"}
        server.revoke_all()
        shop.do()

        assert shop.failures() == []
        assert "secret" not in bridge.log_path.read_text(encoding="utf-8").replace("secret_", "")


def test_an_authorization_server_that_is_away_or_refuses_is_named_and_waited_for(
    shop: Shop, server: AuthorizationServer, amqp_url: str
) -> None:
    """At start and later; the engine was not to blame, and /ready does not say so."""
    server.stop()
    with Bridge(shop.settings(amqp_url), wait_ready=False) as bridge, ExitStack() as later:
        eventually(lambda: "authorization server" in engine_problem(bridge), LIMIT)
        server.start()
        eventually(bridge.is_ready, LIMIT)
        later.enter_context(Worker(amqp_url, shop.topic, done))
        shop.do()

        server.stop()
        server.revoke_all()
        eventually(lambda: "authorization server" in engine_problem(bridge), LIMIT)
        server.clients["bridge"].secrets = {"another secret"}
        server.start()
        eventually(lambda: "oauth2_client_secret_file" in engine_problem(bridge), LIMIT)
        shop.secret_file.write_text("another secret", encoding="utf-8")
        eventually(bridge.is_ready, LIMIT)
        shop.do()

        assert shop.failures() == []
