"""Real parts for the tests: one broker node and one engine of each kind for a whole run.

A part that cannot be had fails in continuous integration and skips, loudly, on a laptop.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from deploy.local import choice
from deploy.local.engine_build import EngineKind
from deploy.local.programs import PartError
from tests.support.engine import EngineRest


def missing(error: PartError) -> None:
    """A missing real part: an error where CI is set, a skip elsewhere."""
    if os.environ.get("CI"):
        raise error
    pytest.skip(f"REAL PART MISSING: {error}")


pytest_plugins = ["tests.consumers.matrix"]

# How long an example takes is a word on the machine: on a busy one it is a second.
hypothesis.settings.register_profile(
    "patient",
    hypothesis.settings.default,  # its own profile for continuous integration, where CI is set
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def broker_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[choice.Broker]:
    """A RabbitMQ for the whole run; nobody may stop it (see `own_broker`)."""
    try:
        part = choice.open_broker(directory=tmp_path_factory.mktemp("rabbitmq"))
    except PartError as error:
        missing(error)
        raise
    yield part
    part.close()


@pytest.fixture
def amqp_url(broker_node: choice.Broker) -> Iterator[str]:
    """A virtual host of its own for each test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield broker_node.add_vhost(name)
    broker_node.delete_vhost(name)


@pytest.fixture(scope="session")
def real_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[EngineKind], str]]:
    """Gives the address of a real engine of a kind, started with its first use."""
    started: dict[EngineKind, choice.Engine] = {}

    def get(kind: EngineKind) -> str:
        if kind not in started:
            try:
                started[kind] = choice.open_engine(
                    kind, directory=tmp_path_factory.mktemp(f"engine-{kind}")
                )
            except PartError as error:
                missing(error)
                raise
        return started[kind].url

    yield get
    for part in started.values():
        part.close()


@pytest.fixture(scope="session")
def engine(real_engine: Callable[[EngineKind], str]) -> EngineRest:
    """Camunda 7.24 with what a test does to it over REST."""
    return EngineRest(real_engine("camunda"))
