"""`python -m bridge` is `external-task-bridge`."""

from bridge.cli import main

main()
