"""A virtual host for the tests of a module that share one bridge."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from deploy.local import choice


@pytest.fixture(scope="module")
def shared_amqp_url(broker_node: choice.Broker) -> Iterator[str]:
    """A virtual host of its own for each module."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield broker_node.add_vhost(name)
    broker_node.delete_vhost(name)
