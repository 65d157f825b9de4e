"""The wish to stop: signals become a stop at the next safe point. No torch here."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any, NoReturn


class Interrupted(BaseException):
    """The run was asked to stop (Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2); its checkpoint is on disk."""


def leave(code: int) -> NoReturn:
    """End the process with this exit code: a signal that comes while Python cleans up no longer changes it."""
    for number in StopSignal.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


class StopSignal:
    """Turns signals into a stop at the next safe point; outside training into `Interrupted` at once.

    SLURM sends SIGTERM at a preemption and before it kills a job; SIGUSR1 or SIGUSR2 (submitit's choice)
    announce the time limit. Whoever handled a signal before gets it afterwards with `hand_on`: that is how
    submitit puts the job back into the queue once the checkpoint is on disk.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False  # where stopping at once would do harm: inside training, while a record is written
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in self.SIGNALS:
            with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us there handles signals
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def hand_on(self) -> None:
        """Give a SIGUSR1 or SIGUSR2 that stopped us to its former handler, if that is a program's own."""
        if self.received in (signal.SIGUSR1, signal.SIGUSR2) and callable(self._previous.get(self.received)):
            self._previous[self.received](self.received, None)

    def _handle(self, number, frame) -> None:
        again = self.requested
        self.requested = True
        if self.received is None or number in (signal.SIGUSR1, signal.SIGUSR2):
            self.received = number
        # SLURM sends SIGTERM more than once; only a person's second Ctrl-C means "now".
        if not self.deferred or (again and number == signal.SIGINT):
            raise Interrupted(signal.Signals(number).name)
