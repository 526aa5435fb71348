"""What a study says while it runs: one live display in a terminal, plain lines elsewhere.

May import: study, summary, types. May not be imported by anything but cli.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from tunelab.study import Plan
from tunelab.summary import format_percent, format_seconds
from tunelab.types import TrialResult, TrialSpec

__all__ = ["Display"]


def _names(plan: Plan) -> dict[str, str]:
    return {t.trial_id: _name(t, plan) for t in plan.todo}


def _name(t: TrialSpec, plan: Plan | None = None) -> str:
    """What a trial is called: "lora seed 3", "lora on 100 rows seed 3", "lora try r=4"."""
    if t.purpose == "tuning":
        tuned = plan.spec.tuning.spaces.get(t.method.label, {}) if plan else {}
        said = " ".join(f"{k}={t.method.settings[k]}" for k in tuned)
        return f"{t.method.label} try {said or t.trial_id[-6:]}"
    rows = f" on {t.train_rows:,} rows" if t.train_rows is not None else ""
    return f"{t.method.label}{rows} seed {t.seed}"


class Display:
    """Shows a plan being carried out. Use as a context manager; feed it events and results."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._metric = plan.spec.metric
        self._names = _names(plan)
        self._width = max((len(n) for n in self._names.values()), default=0)
        self._left = dict(plan.seconds)
        # Measured over estimated seconds of the trials so far: corrects those to come.
        self._spent, self._expected = 0.0, 0.0
        self._started: dict[str, float] = {}
        self._live: Progress | None = None
        self._tasks: tuple[TaskID, TaskID] | None = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=18),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}"),
                console=self._console,
                transient=True,
            )
            total = len(self._plan.todo) + sum(self._plan.proposals.values())
            self._tasks = (
                self._live.add_task("trials", total=total, said=""),
                self._live.add_task("", total=None, said="starting", visible=True),
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def event(self, event: Mapping[str, Any]) -> None:
        """Show one event of an engine."""
        trial_id = str(event.get("trial_id", ""))
        if event.get("event") == "plan":
            self._replan(event["plan"])
        elif event.get("event") == "start":
            self._started[trial_id] = time.perf_counter()
            self._show(trial_id, "starting", completed=0, total=None)
        elif event.get("event") == "note":
            self._line((str(event["text"]), "yellow"))
        elif "stage" in event:
            self._show(trial_id, str(event["stage"]))
        elif "eval_loss" in event or "loss" in event:
            self._show(trial_id, self._said(event), completed=event["step"], total=event["steps"])

    def _replan(self, plan: Plan) -> None:
        """Take over what is to run from now on: settings were chosen, or a method was dropped."""
        self._left = dict(plan.seconds)
        self._names |= _names(plan)
        self._width = max((len(n) for n in self._names.values()), default=0)

    def result(self, result: TrialResult) -> None:
        """Show that a trial has ended, and how."""
        name = self._names.get(result.spec.trial_id) or _name(result.spec, self._plan)
        took = time.perf_counter() - self._started.pop(result.spec.trial_id)
        expected = self._left.pop(result.spec.trial_id, took)
        self._spent += took
        self._expected += expected
        if result.status == "failed":
            self._line(("failed", "bold red"), f"  {name}: {result.error or ''}")
        else:
            value = result.scores.get(f"eval_{self._metric}")
            shown = "-" if value is None else format_percent(value)
            text = (
                f"  {name:<{self._width}}  {self._metric} {shown:>5} in {format_seconds(took):>7}"
            )
            left = f"  (about {format_seconds(self.seconds_left)} left)" if self._left else ""
            self._line(("done  ", "green"), text, (left, "dim"))
        if self._live and self._tasks:
            self._live.advance(self._tasks[0])
            self._live.update(
                self._tasks[0], said=f"about {format_seconds(self.seconds_left)} left"
            )

    @property
    def seconds_left(self) -> float:
        """Estimate for the trials that have not ended, corrected by how the last ones went."""
        ratio = self._spent / self._expected if self._expected else 1.0
        now = time.perf_counter()
        so_far = sum(now - t for t in self._started.values())
        left = sum(self._left.values()) * ratio - so_far
        return max(0.0, left) / max(1, min(self._plan.jobs, len(self._left)))

    def _line(self, *parts: str | tuple[str, str]) -> None:
        # In a file or a pipe, one line is one trial.
        self._console.print(Text.assemble(*parts), soft_wrap=not self._console.is_terminal)

    def _said(self, event: Mapping[str, Any]) -> str:
        parts = [f"epoch {event['epoch']:.1f}"]
        if "loss" in event:
            parts.append(f"loss {event['loss']:.3f}")
        if f"eval_{self._metric}" in event:
            parts.append(f"validation {format_percent(event[f'eval_{self._metric}'])}")
        if "texts_per_second" in event:
            parts.append(f"{event['texts_per_second']:.0f} texts/s")
        return "  ".join(parts)

    def _show(self, trial_id: str, said: str, **more: Any) -> None:
        # Of trials side by side, the line shows the one that last had something to say.
        if self._live and self._tasks:
            name = self._names.get(trial_id, "")
            self._live.update(self._tasks[1], description=name, said=said, **more)
