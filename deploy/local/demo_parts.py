"""The two parts that the demo stands on, a broker and an engine: start them, watch them, end them.

Which ones is decided by deploy.local.choice; this adds the simulated engine where no real one can
be had, and says so loudly.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from deploy.local.choice import Broker, Engine, open_broker, open_engine
from deploy.local.demo_broker import log_in
from deploy.local.demo_files import RUN, short
from deploy.local.demo_left import Running
from deploy.local.demo_screen import DemoError, Screen
from deploy.local.engine import answers
from deploy.local.engine_build import is_built
from deploy.local.programs import PartError, Program, free_port
from deploy.local.system import look

_SIMULATED_SECONDS = 20


@dataclass(frozen=True)
class Address:
    """Where the engine's REST API is, and who asks for it."""

    url: str
    username: str = ""
    password: str = ""

    @classmethod
    def of(cls, url: str) -> "Address":
        """Take the credentials out of a URL."""
        parts = urlsplit(url)
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        return cls(urlunsplit(place), unquote(parts.username or ""), unquote(parts.password or ""))


@dataclass
class Parts:
    """The addresses are set by `start`."""

    screen: Screen
    keep: bool
    amqp_url: str = ""
    engine: Address = field(default_factory=lambda: Address(""))
    engine_given: bool = False
    _opened: list[tuple[str, Broker | Engine]] = field(default_factory=list)
    _simulated: list[Program] = field(default_factory=list)

    def start(self, started: Callable[[], None]) -> None:
        """Start or find both; `started` is called whenever something more runs."""
        with self.screen.step("RabbitMQ") as step, _cured("AMQP_URL"):
            broker = open_broker(directory=RUN / "rabbitmq", keep=self.keep)
            self._opened.append(("RabbitMQ", broker))
            started()
            log_in(broker.url)
            self.amqp_url = broker.url
            step.detail = without_password(broker.url)
        engine = self._real_engine()
        if engine is None:
            self._simulate()
        else:
            self._opened.append(("engine", engine))
            self.engine = Address.of(engine.url)
            self.engine_given = not engine.controllable
        started()

    @property
    def simulated(self) -> bool:
        """Whether the engine is the simulated one."""
        return bool(self._simulated)

    def processes(self) -> tuple[Running, ...]:
        """The processes that would stay behind if the demo were killed now."""
        return (
            *(Running.of(program.name, program.pid) for program in self._simulated),
            *(Running.of(name, pid) for name, part in self._opened for pid in part.pids),
        )

    def containers(self) -> tuple[str, ...]:
        """The containers that would stay behind."""
        return tuple(part.container for _, part in self._opened if part.container)

    def watch(self) -> None:
        """Raise PartError when a part of ours has ended before its time."""
        for program in self._simulated:
            if not program.running:
                program.fail("ended before its time")
        for name, part in self._opened:
            if not all(map(Running.alive, part.pids)):
                cure = "its log is below .cache/demo/run; is there memory left?"
                raise DemoError(f"{name} ended before its time", cure)

    def close(self) -> None:
        """End what is ours; what was given stays."""
        for program in self._simulated:
            program.stop(grace_s=_SIMULATED_SECONDS)
        for _, part in reversed(self._opened):
            part.close()

    def _real_engine(self) -> Engine | None:
        """The engine; None where neither Java nor Docker can be had."""
        if not os.environ.get("ENGINE_URL") and not is_built("camunda"):
            self.screen.say("    the first start builds Camunda 7.24 with Maven: some two minutes")
        try:
            with self.screen.step("engine") as step, _cured("ENGINE_URL"):
                engine = open_engine("camunda", directory=RUN, keep=self.keep)
                step.detail = Address.of(engine.url).url
                return engine
        except DemoError as error:
            machine = look()
            if os.environ.get("ENGINE_URL") or machine.docker or not machine.lacks("engine"):
                raise
            self.screen.simulated(str(error))
            return None

    def _simulate(self) -> None:
        with self.screen.step("engine") as step:
            port = free_port()
            self.engine = Address(f"http://127.0.0.1:{port}/engine-rest")
            command = [sys.executable, "-m", "bridge.simulated_engine", "--port", str(port)]
            engine = Program("simulated engine", command, log=RUN / "simulated-engine.log")
            self._simulated.append(engine)
            engine.wait_until(lambda: answers(self.engine.url), limit_s=_SIMULATED_SECONDS)
            step.detail = f"SIMULATED, {self.engine.url}"


@contextmanager
def _cured(variable: str) -> Iterator[None]:
    """A part that cannot be had, as one failure of the demo with what its user can do."""
    try:
        yield
    except PartError as error:
        given = f"correct {variable}, or leave it out and the demo starts its own"
        cure = given if os.environ.get(variable) else f"the logs in {short(RUN)} say more"
        raise DemoError(str(error), cure) from error


def without_password(url: str) -> str:
    """The URL as it may be shown: a password that is not the default one is left out."""
    parts = urlsplit(url)
    if parts.password in {None, "guest"}:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
