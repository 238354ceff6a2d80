"""`python -m tests.support.dying_bridge run ...` is the bridge with a loop that dies.

Which one says the environment variable LOOP.  Its last words quote what a careless exception might:
the address of the broker with its password.
"""

import os
from collections.abc import Callable
from typing import NoReturn

from bridge import plan, service
from bridge.cli import main
from bridge.settings import Settings

LOOP = "LOOP"


class Dying(service.Service):
    def _build(self, settings: Settings, read: Callable[[], Settings]) -> None:
        super()._build(settings, read)

        def die() -> NoReturn:
            raise RuntimeError(f"cannot go on with {plan.broker_options(settings.broker)!r}")

        loops = dict(self._loops)
        loops[os.environ[LOOP]] = die
        self._loops = list(loops.items())


if __name__ == "__main__":
    service.Service = Dying  # type: ignore[misc]
    main()
