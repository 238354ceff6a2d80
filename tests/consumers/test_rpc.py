"""A plain RPC server, unchanged, does the work of external tasks.

The consumer that never answers at all is in tests/acceptance/test_outcomes.py (`reply = "none"`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local.choice import Broker
from tests.consumers.stacks import running, vhost
from tests.support.amqp import Amqp
from tests.support.engine import EngineRest
from tests.support.stage import Stage

SERVER = Path(__file__).with_name("rpc_server.py")
TOPIC = {"queue": "rpc_queue", "body": "variable:n", "result_variable": "fib"}


def test_a_bare_number_for_a_bare_number(
    engine: EngineRest, broker_node: Broker, tmp_path: Path
) -> None:
    """The request is one variable, the answer goes to `result_variable`."""
    with (
        vhost(broker_node) as url,
        Amqp(url) as amqp,
        running(
            "the RPC server",
            [sys.executable, SERVER],
            amqp_url=url,
            log=tmp_path / "log",
            ready=lambda: amqp.consumers("rpc_queue") > 0,
        ),
        Stage(engine, url, {"fib": TOPIC}) as stage,
    ):
        case = stage.begin("fib", {"n": {"value": 30, "type": "Integer"}})

        case.end()

        assert case.variables()["fib"] == {"value": 832040, "type": "Integer"}
