"""One task, a replica that crashes at a named point, a second one that carries on, and a worker."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.crash_points import VARIABLE, CrashPoint, Scene, find
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

MODULE = "tests.support.crashing_bridge"
LONG = 100.0
PROOF_SECONDS = 6.0  # two publish windows: more than that left is a lease
RUN_DOWN_SECONDS = 15  # less than 0.4 leases left: nobody looks after it
TIMES = {"publish_window": "3s", "lease_after": "300ms", "lease": "40s", "retry_pauses": ["1s"]}
# What a scene needs other than that.  "stop": nothing is leased before SIGTERM.  "silent": the
# lease may lapse, so it is short.
KEYS: Mapping[Scene, Mapping[str, Any]] = {
    "stop": {"lease_after": "60s"},
    "silent": {"deadline": "2s", "lease": "12s"},
    "unanswered": {"reply": "none"},
    "expired": {"deadline": "1s"},
}
HELD_BACK = ("outward", "adopt", "stop")
BY_ITSELF = (*HELD_BACK, "unanswered", "expired")  # nobody acts before the crash
CODE = "oops"


@dataclass(frozen=True)
class Ending:
    """What could be seen when everything had come to rest.

    `copies`: published messages by `message_id`.  `failures`: the errorMessages in the engine's
    history.  `completions`: successes there.  `left`: messages in the result queue, the waiting
    room and the dead letters, after the last replica has stopped.
    """

    crash_codes: tuple[int, ...]
    stop_code: int
    copies: Mapping[str, int]
    ended_at: str | None
    completions: int
    failures: tuple[str, ...]
    incidents: int
    parked: int
    left: int
    taken_over: int
    by_worker: Any


class Play:
    """Plays a crash point on a virtual host of its own; `run` may be called once."""

    def __init__(self, point: CrashPoint, engine_url: str, amqp_url: str) -> None:
        self._point = point
        self._scene = point.scene
        self._engine = EngineRest(engine_url)
        self._url = amqp_url
        self._topic = unique(f"crash-{point.name.replace('_', '-')}")
        keys = {"deadline": "600s", **KEYS.get(self._scene, {})}
        self._settings = settings(engine_url, amqp_url, {self._topic: keys}, topic_defaults=TIMES)
        self._worker = Worker(amqp_url, self._topic, self._answer)
        self._taken: list[Message] = []
        self._instance = ""

    def run(self) -> Ending:
        with ExitStack() as stack:
            amqp = stack.enter_context(Amqp(self._url))
            key = self._engine.deploy_topics(self._topic, error_codes=[CODE])
            stack.callback(self._engine.clean, key)
            codes = [self._crash(stack, amqp, key)]
            if self._scene == "adopt":
                codes.append(self._crash_adopting())
            with Bridge(self._settings, module=MODULE) as last:
                self._carry_on(stack, amqp, last, key)
                taken_over = last.count(self._topic, "adopted")
                stop_code = last.stop()
            return self._ending(amqp, key, tuple(codes), stop_code, taken_over)

    # -- before the crash ------------------------------------------------------------------------

    def _crash(self, stack: ExitStack, amqp: Amqp, key: str) -> int:
        """Start the instance and let the first replica crash; its exit code."""
        point = find("after_lease") if self._scene == "adopt" else self._point
        with Bridge(self._settings, module=MODULE, env={VARIABLE: point.variable}) as first:
            self._instance = self._engine.start(key)
            if self._scene == "stop":
                eventually(lambda: first.count(self._topic, "confirmed"), LONG, what="confirmed")
                first.signal(signal.SIGTERM)
            elif self._scene not in BY_ITSELF:
                self._act(stack, amqp, first)
            code = first.wait(LONG)
        self._let_lease_run_down()
        return code

    def _crash_adopting(self) -> int:
        env = {VARIABLE: self._point.variable}
        # It may crash before anybody sees it ready.
        with Bridge(self._settings, module=MODULE, env=env, wait_ready=False) as second:
            code = second.wait(LONG)
        self._let_lease_run_down()
        return code

    def _let_lease_run_down(self) -> None:
        """The state of the engine after a dead replica's lease has run for a while."""
        for task in self._engine.tasks(topicName=self._topic, locked=True):
            ends = datetime.fromisoformat(task["lockExpirationTime"])
            left = (ends - datetime.now(UTC)).total_seconds()
            if self._scene in HELD_BACK and left > PROOF_SECONDS:
                body = {"workerId": "bridge", "newDuration": RUN_DOWN_SECONDS * 1000}
                self._engine.call("POST", f"/external-task/{task['id']}/extendLock", body)

    def _act(self, stack: ExitStack, amqp: Amqp, first: Bridge) -> None:
        """What worker and operator do once the task is in flight."""
        eventually(lambda: first.count(self._topic, "leased"), LONG, what="leased")
        if self._scene == "suspended":
            self._engine.suspend(self._instance, True)
        if self._scene in ("reject", "silent", "cancel"):
            taken = amqp.get(self._topic) if self._scene != "reject" else None
            if self._scene == "reject":
                taken = eventually(lambda: amqp.refuse(self._topic, requeue=False), LONG)
            assert taken is not None, "leased, and no message there"
            self._taken.append(taken)
            if self._scene == "cancel":
                self._engine.delete(self._instance)
        else:
            stack.enter_context(self._worker)

    def _answer(self, message: Message) -> Reply:
        """The scene's answer to the first message of a worker, and success for all that follow."""
        if len(self._worker.seen) > 1 or self._taken:
            return Reply({"by": message.properties.message_id})
        match self._scene:
            case "failure":
                return Reply({"errorMessage": "the worker says so"}, "failure")
            case "bpmnError":
                return Reply({"errorCode": CODE}, "bpmnError")
            case "unlock":
                return Reply({}, "unlock")
            case "extendLock":
                return Reply({"newDuration": 60_000}, "extendLock")
            case "garbage":
                return Reply(b"{no JSON")
            case _:
                return Reply({"by": message.properties.message_id})

    # -- after the crash -------------------------------------------------------------------------

    def _carry_on(self, stack: ExitStack, amqp: Amqp, last: Bridge, key: str) -> None:
        """The last replica and the worker bring everything to its end."""
        match self._scene:
            case "outward" | "adopt" | "stop":
                self._wait_for(last, "confirmed", "adopted")
                stack.enter_context(self._worker)
            case "reject" | "silent" | "expired":
                stack.enter_context(self._worker)
            case "suspended":
                self._engine.suspend(self._instance, False)
            case "extendLock":
                self._wait_for(last, "progress")
                amqp.answer(self._worker.seen[0], Reply({"by": "progress"}))
            case "cancel":
                amqp.answer(self._taken[0], Reply({"by": "late"}))
                self._wait_for(last, "gone")
                return
            case "garbage":
                self._wait_for(last, "parked")
                return
        eventually(lambda: self._engine.finished(key) == 1, LONG, what="the instance ends")
        eventually(lambda: not self._left(amqp), LONG, what="every result is taken")

    def _wait_for(self, bridge: Bridge, *events: str) -> None:
        def seen() -> bool:
            return any(bridge.count(self._topic, event) for event in events)

        eventually(seen, LONG, what=f"{self._point.name}: {' or '.join(events)}")

    def _left(self, amqp: Amqp) -> int:
        queues = [f"{self._topic}.results", "bridge.wait", "bridge.dead-letters"]
        return sum(amqp.count(queue) or 0 for queue in queues)

    def _ending(
        self, amqp: Amqp, key: str, codes: tuple[int, ...], stop_code: int, taken_over: int
    ) -> Ending:
        rest = amqp.drain(self._topic)
        fresh = [m for m in [*self._worker.seen, *rest] if not m.redelivered]
        log = self._engine.call(
            "GET", "/history/external-task-log", processInstanceId=self._instance
        )
        variables = self._engine.history_variables(self._instance)
        return Ending(
            crash_codes=codes,
            stop_code=stop_code,
            copies=Counter(m.properties.message_id for m in [*self._taken, *fresh]),
            ended_at=self._engine.ended_at(self._instance),
            completions=sum(entry["successLog"] for entry in log),
            failures=tuple(entry["errorMessage"] for entry in log if entry["failureLog"]),
            incidents=len(self._engine.incidents(key)),
            parked=amqp.count("bridge.parked") or 0,
            left=self._left(amqp),
            taken_over=taken_over,
            by_worker=variables.get("by", {}).get("value"),
        )
