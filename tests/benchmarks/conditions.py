"""Under what conditions a run was made; asks the parts that it started, and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping

import psutil

from tests.benchmarks.parts import HEAP, Parts
from tests.benchmarks.plan import Plan


def conditions(parts: Parts, plan: Plan) -> Mapping[str, str]:
    """What a reader has to know of every figure."""
    memory = psutil.virtual_memory().total / 2**30
    engine = parts.rest.call("GET", "/version")["version"]
    return {
        "engine": f"Camunda {engine}, history full, {HEAP}, {_java()}",
        "database": "H2 in memory",
        "broker": f"RabbitMQ {parts.broker.ctl('version').strip()}, one node",
        "queues": "quorum, persistent messages, publisher confirms",
        "machine": f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, everything on it",
        "python": platform.python_version(),
        "run": "quick" if plan.quick else "whole",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _java() -> str:
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    return " ".join((told.stderr.splitlines() or ["java"])[0].split()[:3]).replace('"', "")
