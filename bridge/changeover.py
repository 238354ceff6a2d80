"""Takes over reloaded settings while the rooms work.  Stops no loop and drops nothing in flight.

A topic that is removed is fetched no more; its results are awaited until nothing of it is in flight
here, then it is left.  What comes later stays in its result queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from bridge import plan
from bridge.broker import Consumer, Exchange, Queue, Topology
from bridge.callers import Callers
from bridge.circuits import Circuits
from bridge.errors import SettingsError
from bridge.ledger import Ledger
from bridge.reload import HIDDEN, Difference, compare
from bridge.settings import Settings, read_token_keys
from bridge.topics import Topics

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 1.0
Keys = tuple[bytes | None, bytes | None]


class Changeover:
    """`reload` is for one thread.  `read` gives settings as at start, or raises SettingsError.
    `expect` is told which topics are served.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read: Callable[[], Settings],
        token_keys: Keys,
        topics: Topics,
        ledger: Ledger,
        circuits: Circuits,
        callers: Callers,
        chores: Callers,
        topology: Topology,
        consumer: Consumer,
        expect: Callable[[Iterable[str]], None],
    ) -> None:
        self._settings = settings
        self._read = read
        self._token_keys = token_keys
        self._topics = topics
        self._ledger = ledger
        self._circuits = circuits
        self._callers = callers
        self._chores = chores
        self._topology = topology
        self._consumer = consumer
        self._expect = expect
        self._lock = threading.Lock()
        # Result queues by name; those of topics that are removed, and those that a topic had before
        # its queue was changed, too: somebody may still answer to them.
        self._results = _result_queues(settings)
        self._left: set[str] = set()
        self._watching = False

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def reload(self) -> None:
        """Read the settings and take over what differs; bad ones change nothing.  Never raises for
        what an operator may have written, and never waits for engine or broker.
        """
        try:
            wanted = self._read()
            keys = read_token_keys(wanted)
            difference = compare(
                self._settings,
                wanted,
                windows={
                    name: timedelta(seconds=timing.publish_window)
                    for name, timing in self._topics.timings.items()
                },
                consumed={queue.name: queue.lane for queue in self._consumed()},
            )
        except SettingsError as error:
            _refuse(error.problems)
            return
        except Exception:
            log.exception("settings not reloaded")  # whatever it was, tasks flow on
            return
        _tell(difference, keys_differ=keys != self._token_keys)
        for change in difference.changed:
            if change.path[-1] == "reply" and self._ledger.held(str(change.path[1])):
                why = "answers to messages that are out are read in the new way"
                log.warning("reply changed with tasks in flight", key=change.key, reason=why)
        self._take_over(difference.settings)

    def _take_over(self, settings: Settings) -> None:
        before, topics = self._topics.served, plan.topics(settings)
        parts = _by_lane(plan.topology(self._settings))
        with self._lock:
            self._settings = settings
            self._results = self._results | _result_queues(settings)
            self._left -= topics.keys()
            self._topology.expect(self._parts())  # before anybody looks at a lane
            for lane, wanted in _by_lane(plan.topology(settings)).items():
                paused = not self._circuits.is_closed(lane) and topics[lane] != before.get(lane)
                if wanted != parts.get(lane) or paused:
                    self._circuits.look_first(lane)
            self._callers.share(len(topics))
            self._expect(topics)
            self._topics.replace(topics.values())
        self._chores.submit("reloaded topics", self._begin)
        if not self._watching and self._topics.known.keys() - self._topics.served.keys():
            self._watching = True
            self._chores.submit("removed topics", self._leave)

    # -- chores ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Declare first: a queue that is missing would be a problem for a moment."""
        self._topology.ensure_again()
        with self._lock:
            self._consume()

    def _leave(self) -> float:
        """Stop waiting for what cannot come; seconds after which to look again."""
        with self._lock:
            for topic in self._topics.known.keys() - self._topics.served.keys():
                in_flight = self._ledger.held(topic)
                if in_flight and topic in self._left:
                    self._left.discard(topic)  # a worker kept it alive, in a last result
                elif not in_flight and topic not in self._left:
                    self._left.add(topic)
                    queues = [queue.name for queue in self._results.values() if queue.lane == topic]
                    log.info("topic left", topic=topic, later_results_stay_in=", ".join(queues))
                else:
                    continue
                self._topology.expect(self._parts())
                self._consume()
        return LEAVE_SECONDS

    def _consume(self) -> None:
        queues = [queue.name for queue in self._consumed()]
        self._consumer.consume((*queues, self._settings.broker.names.dead_letters))

    # -- what belongs to it ----------------------------------------------------------------------

    def _consumed(self) -> list[Queue]:
        return [queue for queue in self._results.values() if queue.lane not in self._left]

    def _parts(self) -> list[Exchange | Queue]:
        parts = plan.topology(self._settings)
        names = {part.label for part in parts}
        return [*parts, *(queue for queue in self._consumed() if queue.label not in names)]


def _by_lane(parts: Iterable[Exchange | Queue]) -> dict[str, list[Exchange | Queue]]:
    lanes: dict[str, list[Exchange | Queue]] = {}
    for part in parts:
        if part.lane:
            lanes.setdefault(part.lane, []).append(part)
    return lanes


def _result_queues(settings: Settings) -> dict[str, Queue]:
    consumed = plan.consumed_queues(settings)
    return {
        part.name: part
        for part in plan.topology(settings)
        if isinstance(part, Queue) and part.lane and part.name in consumed
    }


def _refuse(problems: Iterable[str]) -> None:
    for problem in problems:
        log.error("settings not reloaded", problem=problem)


def _tell(difference: Difference, *, keys_differ: bool) -> None:
    for topic in difference.added:
        log.info("topic added", topic=topic)
    for topic in difference.removed:
        log.info("topic removed", topic=topic)
    for change in difference.changed:
        log.info("setting changed", key=change.key, old=change.old, new=change.new)
    for change in difference.windows:
        told = {"key": change.key, "old": change.old, "new": change.new}
        log.warning("setting stays, stop every replica to change it", **told)
    for change in difference.restart:
        told = {"key": change.key, "old": change.old, "new": change.new}
        log.warning("setting stays until a restart", **told)
    if keys_differ and not any(c.path[0].startswith("token_key") for c in difference.restart):
        told = {"key": "token_key_file", "old": HIDDEN, "new": HIDDEN}
        log.warning("setting stays until a restart", **told)
    log.info(
        "settings reloaded",
        topics=len(difference.settings.topics),
        added=len(difference.added),
        removed=len(difference.removed),
        changed=len(difference.changed),
    )
