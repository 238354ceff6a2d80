"""Builds the rooms, starts their loops, watches them, stops them in order.  The only composition.

If a loop dies the process dies: whoever runs us starts us again, and an empty memory is a start
like any other.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Literal

import structlog

from bridge import __version__, plan
from bridge.attempts import Attempts
from bridge.broker import ConnectionThread, Consumer, Publisher, Topology
from bridge.callers import Callers
from bridge.changeover import Changeover
from bridge.circuits import Circuits
from bridge.clock import monotonic
from bridge.dispatcher import Dispatcher
from bridge.display import Display
from bridge.engine import EngineClient
from bridge.errors import BrokerUnavailable, SettingsError
from bridge.gone_notices import GoneNotices
from bridge.handover import Handover
from bridge.ledger import Ledger
from bridge.lock_keeper import LockKeeper
from bridge.messages import Delivery
from bridge.metrics import Metrics
from bridge.outcomes import Outcomes
from bridge.reporter import Reporter
from bridge.settings import Settings, read_token_keys
from bridge.settings.model import Address
from bridge.sidings import Sidings
from bridge.tokens import TokenSigner
from bridge.topics import Topics
from bridge.unanswered import Unanswered

log = structlog.get_logger(__name__)

EXIT_OK = 0
EXIT_DIED = 1
CONFIRM_SECONDS = 10.0
SLOW_STOP_SECONDS = 1.0
SIGNAL_SECONDS = 0.5
CONNECTING_SECONDS = 5.0
RESULTS_IN_HAND = 4  # of the largest size, for each result queue


class Service:
    """One replica.  `run` returns the exit code; `read` gives the settings anew, for a reload."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        self._grace = settings.stop_grace.total_seconds()
        self._stopping = threading.Event()  # no more fetching
        self._ended = threading.Event()  # a stop was asked for, or a loop died
        # What `run` is to do next.  No event: a signal handler cannot set one whose lock the wait
        # holds that it interrupts.
        self._asked: SimpleQueue[Literal["reload", "end"]] = SimpleQueue()
        self._died: str | None = None
        self._threads: list[threading.Thread] = []
        self._loops: list[tuple[str, Callable[[], None]]] = []
        self._build(settings, read)

    def run(self) -> int:
        """Run until SIGTERM, SIGINT or the death of a loop; 0 after a graceful stop, else 1.
        SIGHUP has the settings read again.
        """
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, lambda *_: self._asked.put("reload"))
        if self._display is not None:
            self._display.start()
            for name, loop in self._display.loops:
                self._start(name, loop, awaited=False)
        for name, loop in self._loops:
            self._start(name, loop)
        port = None if self._display is None else self._display.port
        host = self._changeover.settings.status.listen.rpartition(":")[0]
        at = {"status_port": port, "page": None if port is None else f"http://{host}:{port}/"}
        log.info("bridge started", version=__version__, topics=len(self._topics), **at)
        while self._next() == "reload" and not self._ended.is_set():
            self._changeover.reload()
        if self._died is not None:
            log.error("bridge stops, a part died", part=self._died)
            return EXIT_DIED
        return self._stop()

    # -- build -----------------------------------------------------------------------------------

    def _build(self, settings: Settings, read: Callable[[], Settings]) -> None:
        self._topics = Topics(plan.topics(settings).values())
        self._names = settings.broker.names
        self._metrics = metrics = Metrics()
        options = plan.broker_options(settings.broker)
        try:
            options.parameters("")
        except OSError as error:
            why = (
                f"broker: a certificate or password file cannot be used ({error.strerror or error})"
            )
            raise SettingsError((why,)) from error
        parts = plan.topology(settings)
        self._topology = Topology(options, settings.broker.declare, parts)
        self._engine = engine = EngineClient(
            plan.http_options(settings.engine),
            settings.worker_id,
            stopping=self._ended,
            called=metrics.called,
        )
        self._ledger = ledger = Ledger(self._topics.timings)
        self._callers = callers = Callers(settings.engine.callers, groups=len(self._topics))
        self._chores = chores = Callers(1)  # looks at queues: apart, since a broker may hang
        attempts = Attempts(engine, ledger, metrics)
        outcomes = Outcomes(engine, attempts, ledger, metrics)
        token_keys = read_token_keys(settings)
        signer = TokenSigner(*token_keys)
        self._publisher = publisher = Publisher()
        names = self._names
        self._consumer = Consumer(
            plan.consumed_queues(settings),
            settings.broker.prefetch,
            self._deliver,
            self._repair_queue,
            max_bytes=RESULTS_IN_HAND * settings.broker.max_result_bytes,
        )
        self._reporter = Reporter(
            engine=engine,
            outcomes=outcomes,
            ledger=ledger,
            callers=callers,
            sidings=Sidings(publisher, callers, names.parked, names.wait, self._repair_parts),
            ack=self._consumer.ack,
            holds=self._consumer.holds,
            signer=signer,
            topics=self._topics,
            metrics=metrics,
            dead_letters=names.dead_letters,
        )
        unanswered = Unanswered(
            outcomes=outcomes,
            ledger=ledger,
            callers=callers,
            gate=engine.gate,
            closing=self._reporter.closing,
        )
        self._circuits = Circuits(self._topics, chores, self._topology.ensure_lane)
        handover = Handover(
            engine=engine,
            ledger=ledger,
            publisher=publisher,
            callers=callers,
            attempts=attempts,
            signer=signer,
            topics=self._topics,
            circuits=self._circuits,
            metrics=metrics,
            complete_unanswered=unanswered.complete,
            stopping=self._stopping,
        )
        self._dispatcher = Dispatcher(
            engine=engine,
            ledger=ledger,
            publisher=publisher,
            handover=handover,
            circuits=self._circuits,
            chores=chores,
            topics=self._topics,
            options=plan.fetch_options(settings.engine, settings.stop_grace),
            consumers=self._topology.consumers,
            stopping=self._stopping,
        )
        self._keeper = LockKeeper(
            engine=engine,
            ledger=ledger,
            callers=callers,
            attempts=attempts,
            topics=self._topics,
            metrics=metrics,
            publishing=publisher.connected,
            announce_gone=GoneNotices(publisher, names.gone_exchange).announce,
            complete_unanswered=unanswered.complete,
            renew_warn=settings.renew_warn,
            stopping=self._stopping,
        )
        self._changeover = Changeover(
            settings,
            read=read,
            token_keys=token_keys,
            topics=self._topics,
            ledger=ledger,
            circuits=self._circuits,
            callers=callers,
            chores=chores,
            topology=self._topology,
            consumer=self._consumer,
            expect=metrics.expect,
        )
        chores.submit("every part, now and then", self._look_after_parts)
        ensure = self._topology.ensure
        self._publishing = ConnectionThread("publisher", options, publisher, ensure)
        self._consuming = ConnectionThread("consumer", options, self._consumer, ensure)
        publisher.attach(self._publishing)
        self._consumer.attach(self._consuming)
        metrics.expect(self._topics)
        address = settings.status.address
        self._display = None if address is None else self._build_display(address)
        self._loops = [
            ("publisher", self._publishing.run),
            ("consumer", self._consuming.run),
            *((f"caller-{n}", callers.run_one) for n in range(callers.size)),
            ("chores", chores.run_one),
            ("lock keeper", self._keeper.run),
            ("poller", self._dispatcher.run_poller),
            ("drainer", self._dispatcher.run_drainer),
        ]

    def _build_display(self, address: Address) -> Display:
        return Display(
            address,
            settings=lambda: self._changeover.settings,
            metrics=self._metrics,
            topics=self._topics,
            ledger=self._ledger,
            circuits=self._circuits,
            problems=self.problems,
        )

    def _deliver(self, delivery: Delivery) -> None:
        self._reporter.deliver(delivery)  # built after the consumer, whose `ack` it needs

    def _repair_queue(self, queue: str) -> None:
        def repair() -> None:
            try:
                self._topology.ensure_queue(queue)
            except BrokerUnavailable as error:
                log.debug("queue not looked at", queue=queue, reason=str(error))

        if (key := f"queue {queue}") not in self._chores:
            self._chores.submit(key, repair)

    def _repair_parts(self) -> None:
        def repair() -> None:
            self._topology.ensure_again()

        if (key := "every part") not in self._chores:
            self._chores.submit(key, repair)

    def _look_after_parts(self) -> float:
        if self._publishing.problem is not None:
            return CONNECTING_SECONDS  # a connection looks before it begins
        return self._topology.ensure_again()

    # -- watch -----------------------------------------------------------------------------------

    def problems(self) -> dict[str, str]:
        """What keeps the bridge from carrying tasks now, by part; empty: ready."""
        problems: dict[str, str] = {}
        if self._dispatcher.problem is not None:
            problems["engine"] = self._dispatcher.problem
        if self._publishing.problem is not None or not self._publisher.ready.is_set():
            problems["publisher"] = self._publishing.problem or "blocked by RabbitMQ"
        if self._consuming.problem is not None:
            problems["consumer"] = self._consuming.problem
        problems.update(self._topology.problems)
        for queue, why in self._consumer.problems().items():
            problems[f"queue {queue}"] = why
        for topic, why in self._circuits.problems().items():
            problems[f"topic {topic}"] = why
        return problems

    def _start(self, name: str, loop: Callable[[], None], *, awaited: bool = True) -> None:
        def watched() -> None:
            try:
                loop()
            except Exception:
                log.exception("loop died", part=name)
                self._died = name
                self._end()
            else:
                if not self._ended.is_set():
                    self._died = name
                    self._end()

        thread = threading.Thread(target=watched, name=name, daemon=True)
        if awaited:
            self._threads.append(thread)
        thread.start()

    # -- stop ------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._ended.is_set():
            os._exit(EXIT_DIED)  # asked twice: now
        self._stopping.set()
        self._end()
        log.info("bridge stops", signal=signal.Signals(number).name)

    def _next(self) -> Literal["reload", "end"]:
        # A signal that comes in the moment before a wait does not interrupt it.
        while True:
            with suppress(Empty):
                return self._asked.get(timeout=SIGNAL_SECONDS)

    def _end(self) -> None:
        self._ended.set()
        self._asked.put("end")

    def _stop(self) -> int:
        """Fetch no more, let what is under way reach its place, lease what is in flight, leave."""
        limit = monotonic() + self._grace
        last = threading.Timer(self._grace + SLOW_STOP_SECONDS, self._leave_late)
        last.daemon = True
        last.start()  # a call that hangs must not hold what has to end

        def left() -> float:
            return max(0.0, limit - monotonic())

        self._join("lock keeper", left())
        self._keeper.lease_all(left())  # what is out already; the poll may take a while
        self._join("poller", left())
        self._join("drainer", left())
        self._publisher.take_back()
        self._wait_for_confirms(min(CONFIRM_SECONDS, self._grace / 3, left()))
        leased = self._keeper.lease_all(left())
        self._consumer.stop_deliveries()
        finished = self._callers.wait_idle(left())
        self._reporter.closing.set()
        self._wait_for_confirms(left())
        self._callers.stop()
        self._chores.stop()
        self._publishing.stop()
        self._consuming.stop()
        for thread in self._threads:
            thread.join(left())
        if self._display is not None:
            self._display.stop()
        if leased and finished and left() > 0:
            log.info("bridge stopped")
            return EXIT_OK
        self._tell_late()
        return EXIT_DIED

    def _leave_late(self) -> None:
        self._tell_late()
        os._exit(EXIT_DIED)

    def _tell_late(self) -> None:
        log.error("bridge stopped late: stop_grace was too short", in_flight=len(self._ledger))

    def _join(self, name: str, seconds: float) -> None:
        for thread in self._threads:
            if thread.name == name:
                thread.join(seconds)

    def _wait_for_confirms(self, seconds: float) -> None:
        limit = monotonic() + seconds
        pause = threading.Event()
        while self._publisher.backlog > 0 and monotonic() < limit:
            pause.wait(0.02)
