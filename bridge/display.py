"""Builds and serves what shows how a bridge stands.  Changes nothing in its rooms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from bridge import __version__, plan
from bridge.circuits import Circuits
from bridge.desk import why
from bridge.desk.asking import Replica
from bridge.engine.records import EngineRecords
from bridge.ledger import Ledger
from bridge.metrics import Metrics
from bridge.queue_counts import count_queues
from bridge.settings import Settings
from bridge.settings.model import Address
from bridge.status import Explained, Gauges, Observatory, Snapshot, StatusServer
from bridge.surroundings import Surroundings
from bridge.topics import Topics

# How long the engine may take to count what waits, or to tell of one task.
LOOK_SECONDS = 5.0


class Display:
    """The status server at an address.  Raises OSError where it cannot listen.

    `settings` gives those in force.  `loops` are to be started by whoever builds us, and not to be
    waited for at a stop: a look at a part that hangs may outlast it.
    """

    def __init__(
        self,
        address: Address,
        *,
        settings: Callable[[], Settings],
        metrics: Metrics,
        topics: Topics,
        ledger: Ledger,
        circuits: Circuits,
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        now = settings()
        options = plan.http_options(now.engine)
        quick = replace(options, read_timeout=min(LOOK_SECONDS, options.read_timeout))
        self._settings = settings
        once = threading.Event()
        once.set()  # a look that fails is not tried again: whoever looks asks again soon
        self._records = EngineRecords(quick, once)
        self._surroundings = Surroundings(
            topics,
            (now.broker.names.parked, now.broker.names.wait),
            partial(count_queues, now.broker),
            self._records.count_tasks,
        )
        self.loops = self._surroundings.loops
        observatory = Observatory(
            topics=topics,
            ledger=ledger,
            circuits=circuits,
            surroundings=self._surroundings,
            names=now.broker.names,
            problems=problems,
        )
        about = {"version": __version__, "worker_id": now.worker_id}
        metrics.registry.register(Gauges(observatory.look, **about))
        self._snapshot = Snapshot(observatory, ledger, metrics, engine_url=now.engine.url, **about)
        self._documents = {
            "/status.json": self._snapshot.status,
            "/tasks.json": self._snapshot.tasks,
            "/why.json": Explained(self._explain).document,
        }
        self._server = StatusServer(
            address.host, address.port, metrics.registry, problems, self._documents
        )

    @property
    def port(self) -> int:
        """Where it listens, also where the settings leave that open."""
        return self._server.port

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def stop(self) -> None:
        """Answer nobody any more, and have the loops end."""
        self._surroundings.stop()
        self._server.stop()

    def _explain(self, key: str) -> dict[str, Any]:
        replica = Replica(lambda path, query: self._documents[f"/{path}"](query))
        return why.look(self._settings(), key, records=self._records, replica=replica).as_json()
