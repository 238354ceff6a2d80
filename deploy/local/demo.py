"""`make demo`: the whole path of external tasks on this machine, from start to a counted end.

Starts what is missing, runs instances of every demo process, and believes the engine's history
alone: exit code 0 only when every instance ended as it should.  Leaves nothing running unless
KEEP=1 asks for it; `python -m deploy.local.demo down` ends what was kept.
"""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import requests

from deploy.local import demo_bridge, demo_cases
from deploy.local.demo_bridge import PROCESSES
from deploy.local.demo_broker import wait_until_consumed
from deploy.local.demo_engine import DemoEngine, DemoEngineError, Deployment
from deploy.local.demo_files import KEY, RUN, alone, fresh, short
from deploy.local.demo_left import Left, Running, end, end_left, forget, left_running, remember
from deploy.local.demo_parts import Parts, without_password
from deploy.local.demo_screen import DemoError, Screen
from deploy.local.programs import PartError, Program, free_port

_READY_SECONDS = 30


@dataclass(frozen=True)
class Options:
    """What the environment asks for."""

    keep: bool
    instances: int
    limit_seconds: float

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Options":
        """KEEP, INSTANCES and LIMIT; raises DemoError."""
        try:
            instances = int(environ.get("INSTANCES") or 200)
            limit = float(environ.get("LIMIT") or 120)
            demo_cases.cases(instances)
        except ValueError as error:
            cure = "give INSTANCES as a whole number, LIMIT as a number of seconds, or neither"
            raise DemoError(f"INSTANCES or LIMIT cannot be used: {error}", cure) from error
        return cls(environ.get("KEEP", "") not in {"", "0"}, instances, limit)


@dataclass
class Demo:
    """One run; `close` ends what it started, whatever has happened."""

    options: Options
    screen: Screen
    parts: Parts
    bridge: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    listen: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    """The bridge's status address."""
    session: requests.Session = field(default_factory=requests.Session)
    deployed: list[Deployment] = field(default_factory=list)

    def run(self) -> bool:
        """Every step in turn; True when every instance ended as it should."""
        self.parts.start(self._remember)
        deployment = self._deploy()
        self._start_bridge()
        self._start_workers()
        good = self._play(deployment)
        if self.parts.simulated:
            self.screen.simulated("no real engine took part in these counts")
        if self.options.keep:
            amqp_url = without_password(self.parts.amqp_url)
            self.screen.kept(self.parts.engine.url, amqp_url, f"http://{self.listen}", short(RUN))
        return good

    def close(self) -> None:
        """End everything, what uses the broker first."""
        with self.screen.step("stopped") as step:
            killed = end(_pids(self.workers)) + end(_pids(self.bridge))
            if self.parts.engine_given:
                self._tidy()  # after the bridge, whose calls would collide with it
            self.parts.close()
            step.detail = f"{', '.join(killed)} by force" if killed else "everything"
        self.session.close()
        forget()

    @property
    def engine(self) -> DemoEngine:
        """The engine's REST API, once the parts have started."""
        address = self.parts.engine
        self.session.trust_env = False  # a proxy of the environment knows no loopback address
        self.session.auth = (address.username, address.password) if address.username else None
        return DemoEngine(address.url, self.session)

    def _remember(self) -> None:
        # In the order of their end: what uses the broker first.
        groups = (_pids(self.workers), _pids(self.bridge), self.parts.processes())
        remember(Left(groups, self.parts.containers()))

    def _deploy(self) -> Deployment:
        with self.screen.step("processes") as step:
            deployment = self.engine.deploy(PROCESSES.glob("*.bpmn"), "external-task-bridge demo")
            self.deployed.append(deployment)
            names = ", ".join(sorted(deployment.definitions))
            step.detail = f"{names} on {self.engine.version()}"
        return deployment

    def _start_bridge(self) -> None:
        with self.screen.step("bridge") as step:
            settings = demo_bridge.write_settings(
                RUN, KEY, self.parts.engine, self.parts.amqp_url, self.listen
            )
            self.bridge.append(demo_bridge.start_bridge(settings, RUN / "bridge.log"))
            self._remember()
            self._wait_for(demo_bridge.result_queues(), "the bridge does not consume")
            step.detail = f"settings {short(settings)}, log {short(RUN / 'bridge.log')}"

    def _start_workers(self) -> None:
        with self.screen.step("workers") as step:
            for topic in demo_bridge.WORKERS:
                log = RUN / f"{topic}.log"
                self.workers.append(demo_bridge.start_worker(topic, self.parts.amqp_url, log))
                self._remember()
            self._wait_for([*demo_bridge.WORKERS], "no worker consumes")
            step.detail = ", ".join(demo_bridge.WORKERS)

    def _wait_for(self, queues: list[str], problem: str) -> None:
        idle = wait_until_consumed(self.parts.amqp_url, queues, _READY_SECONDS, self._watch)
        if idle:
            reason = f"{problem} {', '.join(idle)} after {_READY_SECONDS} s"
            raise DemoError(reason, f"the logs in {short(RUN)} say why")

    def _watch(self) -> None:
        """Raise when a process of the demo has ended before its time."""
        for program in [*self.bridge, *self.workers]:
            if not program.running:
                program.fail("ended before its time")
        self.parts.watch()

    def _play(self, deployment: Deployment) -> bool:
        engine = self.engine
        with self.screen.step("instances") as step:
            started = {}
            for number, case in enumerate(demo_cases.cases(self.options.instances)):
                definition = deployment.definitions[case.process]
                started[engine.start(definition, f"demo-{number}", case.variables)] = case
            step.detail = f"{len(started)} started"

        def settled() -> int:
            self._watch()
            return engine.count_settled(deployment)

        in_time = self.screen.follow(len(started), settled, self.options.limit_seconds)
        stories = engine.stories(deployment)
        self.screen.table(demo_cases.table(started, stories))
        wrong = demo_cases.astray(started, stories)
        if wrong:
            self._complain(wrong, in_time=in_time)
        return not wrong

    def _complain(self, wrong: list[str], *, in_time: bool) -> None:
        when = "" if in_time else f" within {self.options.limit_seconds:g} s"
        more = [f"and {len(wrong) - 10} more"] if len(wrong) > 10 else []
        sentences = "\n    ".join([*wrong[:10], *more])
        self.screen.failure(
            f"{len(wrong)} of {self.options.instances} not as due{when}:\n    {sentences}",
            f"the logs in {short(RUN)} say why; LIMIT=300 gives a slow machine more time",
        )

    def _tidy(self) -> None:
        """Leave the engine that its user gave as it was found."""
        for deployment in self.deployed:
            try:
                self.engine.undeploy(deployment)
            except DemoEngineError as error:
                self.screen.say(f"  deployment {deployment.id} stays in your engine: {error}")


def _pids(programs: list[Program]) -> tuple[Running, ...]:
    return tuple(Running.of(one.name, one.pid) for one in programs if one.running)


def down(screen: Screen) -> bool:
    """End what an earlier run left running; True when there was something."""
    left = left_running()
    if left != Left():
        with screen.step("earlier") as step:
            end_left(left)
            step.detail = f"ended what was left running: {left.names()}"
    forget()
    return left != Left()


def demo(screen: Screen) -> int:
    """Run the demo; returns the exit code."""
    options = Options.read(os.environ)
    with alone():
        down(screen)
        fresh()
        running = Demo(options, screen, Parts(screen, options.keep))
        kept = False
        try:
            good = running.run()
            kept = options.keep
        finally:
            if not kept:
                running.close()
    return 0 if good else 1


def main(arguments: list[str]) -> int:
    """`demo`, or `demo down`."""
    screen = Screen()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        if arguments != ["down"]:
            return demo(screen)
        if not down(screen):
            screen.say("no demo is running")
    except DemoError as error:
        screen.failure(str(error), error.cure)
    except PartError as error:
        screen.failure(str(error), f"the logs in {short(RUN)} say more")
    except KeyboardInterrupt:
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
