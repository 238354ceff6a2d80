"""`python -m tests.support.hasty_bridge run ...` is the bridge with windows of seconds.

The settings refuse a publish window within which a dead connection could go unnoticed, and leases
and deadlines that are short against it.  A test whose connections do not die may have them all the
same, so that a deadline passes while it waits.
"""

from collections.abc import Iterator

from bridge.cli import main
from bridge.settings import checks
from bridge.settings.checks import Problem
from bridge.settings.model import BrokerSettings, TopicSettings

# Still ten publish windows to a lease: the band in which peers adopt must not be empty.
HASTY = {
    "publish_window": "2s",
    "lease_after": "300ms",
    "lease": "20s",
    "deadline": "20s",
    "retry_pauses": ["1s"],
}


def no_limits(topic: TopicSettings, broker: BrokerSettings) -> Iterator[Problem]:
    yield from ()


if __name__ == "__main__":
    checks._times = no_limits
    main()
