"""A plain RPC server, which knows nothing of the bridge, does the work of external tasks.

The consumer that never answers at all is in tests/acceptance/test_outcomes.py (`reply = "none"`).
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from deploy.local.choice import Broker
from tests.consumers.stacks import CONSUMERS, running, vhost
from tests.support.amqp import Amqp
from tests.support.engine import EngineRest
from tests.support.stage import Stage

SERVER = Path(__file__).with_name("rpc_server.py")
PAGE = CONSUMERS / "python" / "README.md"


def test_a_bare_number_for_a_bare_number(
    engine: EngineRest, broker_node: Broker, tmp_path: Path
) -> None:
    """The request is one variable, the answer goes to `result_variable`: by the settings that the
    page shows.
    """
    [settings] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
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
        Stage(engine, url, tomllib.loads(settings)["topics"]) as stage,
    ):
        case = stage.begin("fib", {"n": {"value": 30, "type": "Integer"}})

        case.end()

        assert case.variables()["fib"] == {"value": 832040, "type": "Integer"}
