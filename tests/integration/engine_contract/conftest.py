"""The contract of the external-task REST API: one suite for the real engines and the simulated one.

What the bridge relies on is asserted here against every engine, so that tests against the
simulated engine prove something about the real ones.  Where an engine differs, the test says so.
"""

from collections.abc import Iterator

import pytest

from bridge.simulated_engine import SimulatedEngine
from tests.integration.engine_contract.client import (
    KINDS,
    TENANT,
    Engine,
    Json,
    new_topic,
    real_engine_url,
)


@pytest.fixture(scope="session", params=KINDS)
def running_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    kind: str = request.param
    if kind == "simulated":
        with SimulatedEngine() as simulated:
            yield from _prepared(kind, simulated.url)
        return
    real_engine = request.getfixturevalue("real_engine")  # only now: it takes seconds to start
    yield from _prepared(kind, real_engine_url(kind) or real_engine(kind))


def _prepared(kind: str, url: str) -> Iterator[Engine]:
    engine = Engine(kind, url)
    engine.deploy()
    engine.deploy(TENANT)
    yield engine
    engine.close()


@pytest.fixture
def engine(running_engine: Engine) -> Iterator[Engine]:
    yield running_engine
    running_engine.clean()


@pytest.fixture
def topic() -> str:
    return new_topic()


@pytest.fixture
def task(engine: Engine, topic: str) -> Json:
    """A task that worker `w` holds for a minute."""
    engine.start(topic)
    return engine.one(topic)
