"""The bridge under the system call filter and the memory rule of deploy/systemd."""

from __future__ import annotations

from tests.support import systemd

if __name__ == "__main__":
    systemd.confine()
    from bridge.cli import main

    main()
