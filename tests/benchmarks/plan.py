"""How much of everything a run does: whole, or quick enough to look at between two changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Counts of one run.  Rates and shares do not depend on them, only how far they scatter."""

    quick: bool = False
    rounds: int = 5
    tasks: int = 2000
    pinned_rounds: int = 3
    pinned_tasks: int = 1000
    warm_up_tasks: int = 4000
    alone_tasks: int = 10_000
    latency_tasks: int = 200
    latency_blocks: int = 3
    in_flight: int = 50_000
    watch_seconds: float = 30.0
    renewal_seconds: float = 100.0
    replica_tasks: int = 3000
    flood: int = 10_000
    starts: int = 5
    growth_in_flight: Sequence[int] = (100, 1000, 10_000, 50_000)
    growth_topics: Sequence[int] = (1, 10, 100, 1000)
    growth_bytes: Sequence[int] = (100, 1000, 10_000, 100_000, 1_000_000)
    growth_workers: Sequence[int] = (1, 2, 4, 8, 16, 32)
    growth_replicas: Sequence[int] = (1, 2, 3, 4)
    growth_tasks: int = 5000


WHOLE = Plan()
QUICK = Plan(
    quick=True,
    rounds=2,
    tasks=500,
    pinned_rounds=1,
    pinned_tasks=300,
    warm_up_tasks=800,
    alone_tasks=3000,
    latency_tasks=40,
    latency_blocks=1,
    in_flight=5_000,
    watch_seconds=5.0,
    renewal_seconds=0.0,
    replica_tasks=600,
    flood=1000,
    starts=2,
    growth_in_flight=(100, 1000),
    growth_topics=(1, 100),
    growth_bytes=(100, 10_000),
    growth_workers=(1, 4),
    growth_replicas=(1, 2),
    growth_tasks=500,
)
TINY = Plan(
    quick=True,
    rounds=1,
    tasks=60,
    pinned_rounds=1,
    pinned_tasks=30,
    warm_up_tasks=50,
    alone_tasks=200,
    latency_tasks=10,
    latency_blocks=1,
    in_flight=300,
    watch_seconds=1.0,
    renewal_seconds=0.0,
    replica_tasks=60,
    flood=50,
    starts=1,
    growth_in_flight=(10, 100),
    growth_topics=(1, 3),
    growth_bytes=(100, 1000),
    growth_workers=(1, 2),
    growth_replicas=(1, 2),
    growth_tasks=60,
)
