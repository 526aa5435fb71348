"""What is printed before trials run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from tunelab.study import Schedule

__all__ = ["announce"]

_HEAD = 9  # characters of a head and the gap behind it


def announce(schedule: Schedule, console: Console) -> None:
    """Before: what will run, on what, and about how long it takes."""
    from tunelab.cli import terminal
    from tunelab.study.announcing import announced

    for said in announced(schedule):
        for i, line in enumerate(said.lines):
            head = said.head if i == 0 else ""
            terminal.say(console, f"{head:<{_HEAD}}{line}", indent=_HEAD)
