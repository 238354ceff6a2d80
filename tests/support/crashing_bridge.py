"""`CRASH_AT=after_complete python -m tests.support.crashing_bridge run ...` is the bridge that ends
by SIGKILL at a named point (tests/support/crash_points.py); without CRASH_AT it runs on.

As `hasty_bridge`, it lets a test have windows of seconds.
"""

import os

from bridge.cli import main
from bridge.settings import checks
from tests.support.crash_points import VARIABLE, find, install
from tests.support.hasty_bridge import no_limits

if __name__ == "__main__":
    checks._times = no_limits
    if named := os.environ.get(VARIABLE):
        install(find(named))
    main()
