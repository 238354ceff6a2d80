"""The exception tree, named by what the caller does next.  Holds no logic.

BridgeError
├── SettingsError            correct the settings; nothing was started
├── TaskRefused              report an incident: the task cannot become a message
├── ResultRefused            park the result with its reason
│   └── ValueRefused         ... and show the reason in the engine as an incident
├── EngineError
│   ├── EngineUnavailable    try again later; the call may or may not have been carried out
│   ├── EngineConflict       try again at once: another transaction was faster
│   ├── EngineUnauthorized   pause everything: the credentials are refused
│   ├── EngineForbidden      let this one task wait: the rights are missing
│   ├── EngineMisconfigured  pause everything: the address is not an engine's REST API
│   ├── EngineBroken         try a few times, then report an incident
│   ├── EngineRefused        never try again: report an incident and park
│   ├── TaskGone             let go: completed by a peer or cancelled
│   ├── TaskSuspended        let this one task wait
│   ├── LockLost             another worker id owns the task, or none
│   └── LockExpired          forget the task, it will be fetched again
└── BrokerUnavailable        reconnect; what was not confirmed is unknown
"""


class BridgeError(Exception):
    """Anything the bridge raises on purpose."""


class SettingsError(BridgeError):
    """The settings cannot be used; `problems` has one sentence each, with the key's path."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TaskRefused(BridgeError):
    """A task that no message can carry; trying again cannot help."""


class ResultRefused(BridgeError):
    """A result that no engine call can carry.  `reason` is the word in the parked message.

    `detail` is for the engine and the parked message, which hold the variables anyway;
    `log_detail` for logs, where a text of the engine's, which may quote a value, must not go.
    """

    def __init__(self, reason: str, detail: str, log_detail: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.log_detail = detail if log_detail is None else log_detail


class ValueRefused(ResultRefused):
    """A variable that would lose something on its way to the engine; names it, never its value."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__("value-refused", f"variable {name!r}: {why}")
        self.name = name


class EngineError(BridgeError):
    """The engine's answer was not the one asked for.

    The text may repeat what the engine says, and an engine quotes values of variables where a
    process of its own fails.  `brief` is what may be logged.
    """

    quotes = False
    """Whether the engine's own words may hold a value."""

    @property
    def brief(self) -> str:
        """The text; status and type of the exception where the engine's words may hold values."""
        words, _, more = str(self).partition(": ")
        status, _, kind = words.partition(" ")
        is_engines = bool(more) and status.isdigit() and kind.isalnum()
        return words if self.quotes and is_engines else str(self)


class EngineUnavailable(EngineError):
    """No answer, or an answer that says "later".  `sent` is False where the call never left;
    `retry_after` are the seconds that the answer asks to wait (0: it does not say).
    """

    quotes = True

    def __init__(self, message: str, *, sent: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.sent = sent
        self.retry_after = retry_after


class EngineConflict(EngineError):
    """Optimistic locking or a deadlock in the engine's database: rolled back, safe to repeat."""

    quotes = True


class EngineUnauthorized(EngineError):
    """401: the engine does not know these credentials."""


class EngineForbidden(EngineError):
    """403: the engine knows the user and refuses the act."""


class EngineMisconfigured(EngineError):
    """The address answers, but not as an engine's REST API."""


class EngineBroken(EngineError):
    """500 of the process's own making (listener, expression, gateway): rolled back."""

    quotes = True


class EngineRefused(EngineError):
    """The request itself is wrong and would be refused again."""

    quotes = True


class TaskGone(EngineError):
    """404: the task was completed or cancelled."""


class TaskSuspended(EngineError):
    """The process instance is suspended; the task can be finished once it is resumed."""


class LockLost(EngineError):
    """The task is not locked by our worker id.  `owner` is None where nobody holds it."""

    def __init__(self, message: str, owner: str | None) -> None:
        super().__init__(message)
        self.owner = owner


class LockExpired(EngineError):
    """extendLock came after the lock had run out."""


class BrokerUnavailable(BridgeError):
    """No usable connection to RabbitMQ."""
