"""What ends the command line from outside: Ctrl-C, and SIGTERM and SIGHUP in the same way."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = [
    "EndedBySignal",
    "end_as_by_interrupt",
    "exit_code",
]


class EndedBySignal(KeyboardInterrupt):
    """A signal has asked this process to end: trials are ended, what is half-written is removed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def end_as_by_interrupt() -> None:
    """Have SIGTERM and SIGHUP end this process as Ctrl-C does.

    Not one that is ignored already, as SIGHUP is below `nohup`.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    raise EndedBySignal(number)


def exit_code(e: BaseException) -> int:
    """128 and the signal's number, as shells say it; of Ctrl-C 130."""
    if not isinstance(e, EndedBySignal) and e.__cause__ is not None:
        return exit_code(e.__cause__)  # click raises its own in the place of what it met
    return 128 + (e.number if isinstance(e, EndedBySignal) else signal.SIGINT)
