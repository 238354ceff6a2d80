"""How the bridge stands, as metrics: computed when they are scraped, never kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from bridge.status.overview import Overview, TopicView

PARTS = ("engine", "publisher", "consumer")

_OF_A_TOPIC: tuple[tuple[str, str, Callable[[TopicView], float | None]], ...] = (
    ("bridge_tasks_in_flight", "Tasks that this replica answers for", lambda t: t.in_flight),
    ("bridge_tasks_capacity", "Tasks that this replica may hold", lambda t: t.capacity),
    (
        "bridge_task_oldest_seconds",
        "Since when the oldest task in flight was fetched, or adopted",
        lambda t: t.oldest,
    ),
    (
        "bridge_lock_margin_seconds",
        "How long the locks of what is in flight run at least",
        lambda t: t.lock_margin,
    ),
    (
        "bridge_topic_paused",
        "1 while nothing is fetched, because a message or a fetch was refused",
        lambda t: t.is_paused,
    ),
    (
        "bridge_queue_ready",
        "Messages of the task queue that wait for a worker",
        lambda t: t.ready,
    ),
    (
        "bridge_queue_unacked",
        "Messages of the task queue at workers; with management_url alone",
        lambda t: t.unacked,
    ),
    (
        "bridge_queue_consumers",
        "Consumers of the task queue",
        lambda t: t.consumers,
    ),
    (
        "bridge_engine_waiting",
        "Tasks that can be fetched from the engine",
        lambda t: t.waiting,
    ),
    (
        "bridge_engine_stuck",
        "Tasks in the engine with no retries left",
        lambda t: t.stuck,
    ),
)


class Gauges(Collector):
    """What is not known, or does not exist where nothing is in flight, is left out."""

    def __init__(self, look: Callable[[], Overview], *, version: str, worker_id: str) -> None:
        self._look = look
        self._info = {"version": version, "worker_id": worker_id}

    def collect(self) -> Iterator[Metric]:
        overview = self._look()
        yield InfoMetricFamily("bridge", "The bridge itself", value=self._info)
        connected = GaugeMetricFamily(
            "bridge_connected", "1 while the part works, 0 while it does not", labels=["part"]
        )
        for part in PARTS:
            connected.add_metric([part], part not in overview.problems)
        yield connected
        for name, text, value_of in _OF_A_TOPIC:
            yield _gauge(name, text, {t.name: value_of(t) for t in overview.topics})
        parked = "Results that a person has to look at"
        waiting = "Results that wait for a better time"
        yield from _one("bridge_parked_messages", parked, overview.parked)
        yield from _one("bridge_waiting_results", waiting, overview.waiting_results)


def _gauge(name: str, text: str, values: dict[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["topic"])
    for topic, value in values.items():
        if value is not None:
            family.add_metric([topic], value)
    return family


def _one(name: str, text: str, value: int | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, text, value=value)
