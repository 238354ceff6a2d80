"""Has the matrix of workers and cases printed where only the tests of this folder are run; a run of
all tests registers it for the process that prints (see `tests.consumers.matrix`).
"""

from __future__ import annotations

import pytest

from tests.consumers import matrix


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.is_registered(matrix):
        config.pluginmanager.register(matrix, matrix.NAME)
