"""Cases that hurt the worker: a bad body, a flood, a kill, a stop, a lost connection.  Each says
whether a task was lost; what the worker does inside is its own affair.
"""

from __future__ import annotations

from bridge.clock import monotonic
from bridge.conform.answers import usual
from bridge.conform.bench import Bench, LastStand
from bridge.conform.verdict import Failed

# Spring takes 250 at once, the most of the common stacks.
MOST_IN_HAND = 300
FLOOD = MOST_IN_HAND + 20
REQUEUES = 3
QUIET_SECONDS = 0.3
LINGER_SECONDS = 2.0
# Client libraries reconnect after five seconds.
PATIENCE = 2


def poison(bench: Bench) -> None:
    """After a body that is no JSON the worker still lives, works, and has let go of it."""
    if bench.has_program:
        bench.relay.forget()
    _, publication = bench.tasks.make_unreadable()
    bench.publish(publication)
    try:
        bench.answers([bench.send(usual(bench).variables)])
    except Failed as failed:
        raise Failed(f"after a body that is no JSON: {failed}") from None
    if _requeues(bench):
        raise Failed("a body that is no JSON was requeued again and again")


def _requeues(bench: Bench) -> bool:
    """Whether the message goes round between the broker and the worker."""
    if bench.has_program:
        return bench.until(lambda: bench.relay.requeued >= REQUEUES, QUIET_SECONDS)
    gave_up = any(answer.dead == "delivery_limit" for answer in bench.heard)
    return gave_up or bench.requeued(QUIET_SECONDS) > 0


def prefetch(bench: Bench) -> None:
    """Of many messages some stay on the broker, for other workers."""
    taken = _last_stand(bench).taken
    if taken > MOST_IN_HAND:
        raise Failed(f"the worker took {taken} of {FLOOD} messages at once")


def acknowledgement(bench: Bench) -> None:
    """An answered message does not come back when the worker goes."""
    if not _last_stand(bench).acknowledged:
        raise Failed("a message that was answered came back when the worker was gone")


def kill(bench: Bench) -> None:
    """Killed as it is about to answer, the worker gets the message again."""
    task_id = _caught_answering(bench)
    bench.kill()
    _not_lost(bench)
    bench.start()
    bench.answers([task_id])


def stop(bench: Bench) -> None:
    """SIGTERM in the middle of a task: the worker ends, each task is answered or given back."""
    sent = [_caught_answering(bench)]
    sent += [bench.send(usual(bench).variables) for _ in range(2)]
    before = len(bench.heard)
    bench.program.terminate()
    bench.relay.release()
    if not bench.until(lambda: not bench.program.alive):
        raise Failed(f"still running {bench.setup.timeout:g} s after SIGTERM")
    bench.gone()
    owed = set(sent) - {bench.tasks.task_of(delivery) for delivery in bench.clear()}

    def lost() -> int:
        bench.hear()
        unnamed = sum(a.final and a.task_id is None for a in bench.heard[before:])
        return max(0, len(owed - bench.answered) - unnamed)

    if not bench.until(lambda: not lost(), LINGER_SECONDS):
        raise Failed(f"of {len(sent)} tasks {lost()} were neither answered nor given back")


def connection_cut(bench: Bench) -> None:
    """Cut off as it is about to answer, the worker comes back and gets the message again."""
    task_id = _caught_answering(bench)
    bench.relay.cut()
    bench.relay.release()
    try:
        bench.answers([task_id], PATIENCE * bench.setup.timeout)
    except Failed:
        _started_again(bench)
        bench.answers([task_id])


def _started_again(bench: Bench) -> None:
    """What a supervisor does with a worker that ended by itself."""
    if bench.program.alive and not bench.consumers:
        raise Failed("it neither reconnected nor ended")
    if bench.program.code == 0:
        raise Failed("it ended with code 0, as if nothing had happened")
    _not_lost(bench)
    if bench.program.alive:
        raise Failed("it reconnected, and did not answer")
    bench.start()


def _not_lost(bench: Bench) -> None:
    """The message that the worker had in hand is back on the queue."""
    if not bench.until(lambda: bench.ready > 0, LINGER_SECONDS):
        raise Failed("the task is lost: it was acknowledged before its answer was out")


def _caught_answering(bench: Bench) -> str:
    """A task whose answer the worker has just begun to send: it waits at the relay."""
    bench.relay.hold_answers()
    task_id = bench.send(usual(bench).variables)
    bench.until(lambda: bench.relay.held.is_set() or not bench.program.alive)
    if not bench.program.alive:
        raise Failed(f"no answer: {bench.epitaph()}")
    if not bench.relay.held.is_set():
        raise Failed(f"no answer within {bench.setup.timeout:g} s")
    return task_id


def _last_stand(bench: Bench) -> LastStand:
    """Answer one, take what it wants of many, be killed; done once for both of its cases."""
    if bench.last_stand is not None:
        return bench.last_stand
    relay = bench.relay
    relay.forget()
    answered = bench.send(usual(bench).variables)
    bench.answers([answered])
    bench.until(lambda: relay.acknowledged > 0, LINGER_SECONDS)
    bench.wait(QUIET_SECONDS)  # the relay has seen it a moment before the broker
    relay.hold_deliveries()
    for _ in range(FLOOD):
        bench.send(usual(bench).variables)
    taken = FLOOD - _steady(bench)
    bench.kill()
    back = {bench.tasks.task_of(delivery) for delivery in bench.clear()}
    bench.last_stand = LastStand(taken, acknowledged=answered not in back)
    return bench.last_stand


def _steady(bench: Bench) -> int:
    """How many messages wait, once that has not changed for a while."""
    last, since = bench.ready, monotonic()

    def steady() -> bool:
        nonlocal last, since
        if (now := bench.ready) != last:
            last, since = now, monotonic()
        return monotonic() - since > QUIET_SECONDS

    bench.until(steady)
    return last
