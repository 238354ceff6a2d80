"""Parts that the tests of a module, or of the whole run, share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from deploy.local import choice
from deploy.local.engine import start_engine
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.support.engine import EngineRest
from tests.support.prometheus import installed


@pytest.fixture(scope="module")
def shared_amqp_url(broker_node: choice.Broker) -> Iterator[str]:
    """A virtual host of its own for each module."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield broker_node.add_vhost(name)
    broker_node.delete_vhost(name)


@pytest.fixture(scope="session")
def guarded_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRest]:
    """An engine that asks for credentials and heeds authorizations; demo/demo may everything."""
    properties = {
        "spring.profiles.active": "basic-auth",
        "camunda.bpm.authorization.enabled": "true",
    }
    try:
        part = start_engine(
            "camunda", properties=properties, log_dir=tmp_path_factory.mktemp("guarded")
        )
    except PartError as error:
        missing(error)
        raise
    with part:
        rest = EngineRest(part.url)
        rest._session.auth = ("demo", "demo")
        user = {"profile": {"id": "weak"}, "credentials": {"password": "weak"}}
        rest.call("POST", "/user/create", user)
        yield rest


@pytest.fixture(scope="session")
def prometheus_program() -> str:
    """The path of Debian's prometheus."""
    try:
        return installed()
    except PartError as error:
        missing(error)
        raise
