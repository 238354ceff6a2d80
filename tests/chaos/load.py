"""Starts process instances over time, and watches the locks meanwhile.  Both outlive the engine."""

from __future__ import annotations

import time

import requests

from tests.chaos.world import World, lock_left
from tests.support.engine import EngineRest

# What an engine in trouble can do to a client of its REST API.
TROUBLE = (requests.RequestException, AssertionError)
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 1.0
# How much longer than a lease a lock may seem to run: the engine's clock counts seconds.
SLACK_SECONDS = 3.0


class Starter:
    """Starts the round's instances, when the plan says; `step` starts one.

    An answer that was lost is no reason to start an instance twice: its business key tells.
    """

    def __init__(self, world: World, keys: tuple[str, ...]) -> None:
        self._world, self._keys = world, keys
        self._rest = EngineRest(world.engine.url)
        self._next = 0
        self._unsure = False
        self._began = time.monotonic()
        self.started: set[str] = set()

    @property
    def done(self) -> bool:
        return self._next >= self._world.options.tasks

    def step(self) -> float | None:
        """Seconds until the next one; None when all are started."""
        number = self._next
        if self.done:
            return None
        key = self._keys[number % len(self._keys)]
        try:
            instance = self._find(number) if self._unsure else None
            variables = {"n": {"value": number, "type": "Integer"}}
            self.started.add(instance or self._rest.start(key, variables, str(number)))
        except TROUBLE:
            self._unsure = True
            return AGAIN_SECONDS
        self._next, self._unsure = number + 1, False
        due = self._began + self._world.options.starts_at(self._next)
        return max(0.0, due - time.monotonic())

    def _find(self, number: int) -> str | None:
        path = "/history/process-instance"
        found = self._rest.call("GET", path, processInstanceBusinessKey=str(number))
        return str(found[0]["id"]) if found else None


class LockWatch:
    """Notes every lock that runs for longer than a lease."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._overlong: dict[str, float] = {}

    @property
    def overlong(self) -> tuple[str, ...]:
        return tuple(
            f"task {task} was locked for {left:.0f} s" for task, left in self._overlong.items()
        )

    def step(self) -> float:
        longest = self._world.options.times.lease + SLACK_SECONDS
        try:
            for task in self._world.locked():
                left = lock_left(task)
                if left > longest:
                    self._overlong[task["id"]] = left
        except TROUBLE:
            return AGAIN_SECONDS
        return LOOK_SECONDS
