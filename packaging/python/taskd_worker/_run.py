"""One run of a task, as the task sees it, and the exceptions between a task and its worker."""

from __future__ import annotations

import contextvars
from typing import Any, Callable, Dict, NoReturn, Optional


class Canceled(BaseException):
    """Raised inside a task that was canceled, or whose worker is to be shut down.

    Not an :class:`Exception`, so that ``except Exception`` does not stop it. Clean up and let it pass.
    """


class SoftTimeLimitExceeded(Exception):
    """Raised inside a task whose ``soft_time_limit`` has passed: ``time_limit`` kills the worker next.

    A coroutine gets :class:`asyncio.CancelledError` instead, see :attr:`Run.cancel_reason`.
    """


class DoNotRetry(Exception):
    """Raised by a task whose failure another attempt would only repeat: it is not retried."""


class Retry(Exception):
    """Raised by :func:`retry`: the task is to run again later."""

    def __init__(self, delay: Optional[float] = None, reason: str = "") -> None:
        super().__init__(reason or "the task asked to be run again")
        #: Seconds until then; ``None``: as the task's ``retry_delay`` says.
        self.delay = delay


class Run:
    """A run of a task: what :func:`current` returns."""

    def __init__(
        self,
        id: str = "",
        name: str = "",
        queue: str = "",
        attempt: int = 1,
        report: Optional[Callable[[int, int, str], None]] = None,
    ) -> None:
        #: The message's id, the same in each attempt.
        self.id = id
        #: The task's name.
        self.name = name
        #: The queue it came from.
        self.queue = queue
        #: Number of this attempt, from 1.
        self.attempt = attempt
        #: How often it was retried because it failed or asked for it.
        self.retries = 0
        #: What its client attached to the message.
        self.headers: Dict[str, Any] = {}
        #: ``"revoked"``, ``"interrupted"`` (a shutdown) or ``"time_limit"`` once it is told to end.
        self.cancel_reason: Optional[str] = None
        self._report = report

    def progress(self, current: int, total: int = 0, message: str = "") -> None:
        """Tell how far the run is: ``taskd status ID`` shows it.

        Cheap: reports that follow each other faster than 20 a second are left out.
        """
        if self._report is not None:
            self._report(int(current), int(total), str(message))


running: contextvars.ContextVar[Run] = contextvars.ContextVar("taskd_worker.run")


def current() -> Run:
    """The run that this code is part of. Outside of a worker (in a test, say) one that does nothing."""
    return running.get(None) or Run()


def retry(delay: Optional[float] = None, reason: str = "") -> NoReturn:
    """End this run and have the task run again, ``delay`` seconds later (default: its ``retry_delay``).

    It counts against the task's ``max_retries``; when these are used up, the run is a failure.
    """
    raise Retry(delay, reason)
