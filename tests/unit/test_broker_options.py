"""Why RabbitMQ cannot be reached, in one sentence that is true."""

from __future__ import annotations

import pytest
from pika.exceptions import (
    AMQPError,
    ConnectionClosedByBroker,
    ProbableAuthenticationError,
    StreamLostError,
)

from bridge.broker.options import describe


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (ConnectionClosedByBroker(403, "ACCESS_REFUSED - Login was refused"), "refuses the user"),
        (StreamLostError("reset by peer"), "connection was lost during the login"),
    ],
)
def test_a_login_that_was_cut_is_not_called_a_wrong_password(cause: AMQPError, says: str) -> None:
    """pika calls both a probable authentication error; somebody would rotate a good password."""
    assert says in describe(ProbableAuthenticationError(repr(cause)))
