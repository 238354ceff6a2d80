"""A simulated engine: the external-task REST API over HTTP with the real lock rules.

For tests, for users who test their workers without Java, and for a demo without Java.  It runs
deployed BPMN files as paths of external tasks; it is no engine: no database, no user tasks, no
timers, no expressions beyond `${variable}`.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.clock import Clock
from bridge.simulated_engine.errors import RestError
from bridge.simulated_engine.faults import Answer, Call, CallLog, Drop, Faults, Hold
from bridge.simulated_engine.linear import linear_process
from bridge.simulated_engine.processes import Deployment
from bridge.simulated_engine.routes import Routes
from bridge.simulated_engine.server import EngineServer

__all__ = [
    "Answer",
    "Call",
    "CallLog",
    "Clock",
    "Drop",
    "Faults",
    "Hold",
    "RestError",
    "SimulatedEngine",
    "linear_process",
]


class SimulatedEngine:
    """An engine on loopback whose time, faults and calls a test controls.

    Use it as a context manager, or by `start()` and `stop()`.  `stop` then `start` is an outage:
    the port and the state stay.  `clock`, `faults` and `calls` may be used at any time.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        port: int = 0,
        basic_auth: tuple[str, str] | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.faults = Faults()
        self.calls = CallLog()
        self._port = port
        self._basic_auth = basic_auth
        self._routes = Routes(self.clock)
        self._server: EngineServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:<port>/engine-rest`; known after the first start."""
        return f"http://127.0.0.1:{self._port}/engine-rest"

    def start(self) -> str:
        """Listen and return `url`; raises OSError when the port is taken."""
        if self._server is not None:
            return self.url
        self._server = EngineServer(
            ("127.0.0.1", self._port), self._routes, self.faults, self.calls, self._basic_auth
        )
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="simulated-engine", daemon=True
        )
        self._thread.start()
        return self.url

    def stop(self) -> None:
        """Stop listening, forget the faults, end waiting polls (500) and cut all connections."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        server.server_close()
        self.faults.clear()
        self._routes.fetcher.close()
        server.close_connections(grace_s=1.0)
        self._thread.join(5)

    def deploy(self, *sources: Path | bytes, tenant_id: str | None = None) -> list[str]:
        """Deploy BPMN files (paths or texts) without HTTP; returns the definition ids."""
        files = {
            source.name if isinstance(source, Path) else f"{number}.bpmn": (
                source.read_bytes() if isinstance(source, Path) else source
            )
            for number, source in enumerate(sources)
        }
        deployed = self._routes.processes.deploy(Deployment(None, tenant_id, files))
        return list(deployed["deployedProcessDefinitions"] or ())

    def start_process(
        self,
        key: str,
        variables: Mapping[str, Any] | None = None,
        *,
        business_key: str | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Start the newest version without HTTP; returns the process instance's id.

        A variable is a plain JSON value, or `{"value":…, "type":…, "valueInfo":…}`.  Raises
        `RestError` with the engine's answer for what it would refuse.
        """
        processes = self._routes.processes
        typed = {
            name: value if isinstance(value, dict) and "value" in value else {"value": value}
            for name, value in (variables or {}).items()
        }
        body = Body({"variables": typed, "businessKey": business_key})
        return str(processes.start(processes.latest(key, tenant_id), body)["id"])

    def tasks(self, **filters: Any) -> list[dict[str, Any]]:
        """The tasks as `POST /external-task` would list them, by its filters, without a call."""
        return self._routes.tasks.listed(Body(filters))

    @property
    def waiting_polls(self) -> int:
        """How many long polls wait for a task right now."""
        return self._routes.fetcher.waiting

    def __enter__(self) -> "SimulatedEngine":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
