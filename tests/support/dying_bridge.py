"""`python -m tests.support.dying_bridge run ...` is the bridge with a lock keeper that dies.

Its last words quote what a careless exception might: the address of the broker with its password.
"""

from typing import NoReturn

from bridge import plan, service
from bridge.broker import BrokerOptions
from bridge.cli import main
from bridge.lock_keeper import LockKeeper
from bridge.settings import Settings

known: list[BrokerOptions] = []


class Dying(service.Service):
    def _build(self, settings: Settings) -> None:
        known.append(plan.broker_options(settings.broker))
        super()._build(settings)


def die(_: LockKeeper) -> NoReturn:
    raise RuntimeError(f"cannot go on with {known[0]!r}")


if __name__ == "__main__":
    LockKeeper.run = die  # type: ignore[assignment, method-assign]
    service.Service = Dying  # type: ignore[misc]
    main()
