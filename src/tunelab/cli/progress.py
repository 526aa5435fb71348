"""What a study says while it runs: a live table in a terminal, plain lines elsewhere.

In a terminal the table has a row a method (seeds done, mean on validation so far, training time),
with what runs now below it; failures and notes are printed above it at once and stay. In a file or
a pipe, one line is one trial. A quiet console shows nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tunelab.analysis.numbers import MISSING, column, format_estimate, format_seconds
from tunelab.core.events import Evaluated, Note, Progressed, Stage, Started, Step
from tunelab.core.values import Estimate, TrialResult
from tunelab.stats.metrics import METRICS
from tunelab.study import Replanned, Schedule, StudyEvent
from tunelab.study.telling import name_of_trial

__all__ = [
    "Display",
]


def _names_of_trials(schedule: Schedule) -> dict[str, str]:
    return {t.trial_id: name_of_trial(t, schedule) for t in schedule.progress.todo}


@dataclass(slots=True)
class _Row:
    """A method in the live table: its trials that the study compares, and what they gave so far."""

    trials: int = 0
    failed: int = 0
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, result: TrialResult, key: str) -> None:
        if result.status == "failed":
            self.failed += 1
            return
        value, seconds = result.scores.get(key), result.cost.train_seconds
        if value is not None:
            self.scores.append(value)
        if seconds is not None:
            self.seconds.append(seconds)


class Display:
    """Shows a schedule being run. Use as a context manager; feed it events and results."""

    def __init__(self, schedule: Schedule, console: Console) -> None:
        self._schedule = schedule
        self._console = console
        self._metric = schedule.plan.spec.metric
        self._names = _names_of_trials(schedule)
        self._width = max((len(n) for n in self._names.values()), default=0)
        self._left = dict(schedule.seconds)
        # Measured over estimated seconds of the trials so far: corrects those to come.
        self._spent, self._expected = 0.0, 0.0
        self._started: dict[str, float] = {}
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None
        self._bars: Progress | None = None
        self._tasks: tuple[TaskID, TaskID] | None = None

    def __enter__(self) -> Display:
        if self._console.is_terminal and not self._console.quiet:
            self._rows = self._known_already()
            # Descriptions are users' names: shown as they are, never read as markup.
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}", markup=False),
                console=self._console,
            )
            progress = self._schedule.progress
            tuning_seeds = len(progress.plan.spec.tuning.seeds)
            total = len(progress.todo) + sum(progress.proposals.values()) * tuning_seeds
            self._tasks = (
                self._bars.add_task("trials", total=total, said=""),
                self._bars.add_task("", total=None, said="starting", visible=True),
            )
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def _known_already(self) -> dict[str, _Row]:
        """A row a method, with the trials that an earlier run has finished."""
        rows: dict[str, _Row] = {}
        progress = self._schedule.progress
        todo = {t.trial_id for t in progress.todo}
        for t in progress.trials:
            row = rows.setdefault(t.method.label, _Row())
            row.trials += 1
            if t.trial_id not in todo and t.trial_id in progress.results:
                row.add(progress.results[t.trial_id], f"eval_{self._metric}")
        return rows

    def render(self) -> RenderableType:
        """The live table and the bars below it, as high as the terminal lets them be."""
        assert self._bars is not None  # noqa: S101  `__enter__` made them
        return Group(self._table(max(3, self._console.height - 8)), Text(), self._bars)

    def _table(self, most: int) -> Table:
        """A row a method, the best mean on validation first; `most` rows."""
        sign = -1 if METRICS[self._metric].higher_is_better else 1
        means = {label: fmean(r.scores) for label, r in self._rows.items() if r.scores}
        order = sorted(self._rows, key=lambda m: sign * means[m] if m in means else float("inf"))
        running = {self._labels[i] for i in self._started if i in self._labels}
        heading = column(f"eval_{self._metric}").heading
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        # What the other columns and the gaps between them take, at least.
        room = max(8, min(30, self._console.width - 48))
        table.add_column("Method", overflow="ellipsis", no_wrap=True, max_width=room)
        for name in ("Seeds", heading, "Training"):
            table.add_column(
                name, justify="right", no_wrap=name != heading, min_width=5, max_width=11
            )
        table.add_column("", no_wrap=True, min_width=11)
        for place, label in enumerate(order[:most]):
            row = self._rows[label]
            said = "running" if label in running else ""
            state = Text(said, "cyan")
            if row.failed:
                state = Text(f"{row.failed} failed", "bold red")
            elif place == 0 and label in means and len(means) > 1:
                state = Text("best so far", "green")
            table.add_row(
                Text(label),
                f"{len(row.scores)}/{row.trials}",
                self._score(means.get(label)),
                format_seconds(fmean(row.seconds) if row.seconds else None),
                state,
            )
        if len(order) > most:
            table.add_row(Text(f"and {len(order) - most} more", "dim"), "", "", "", "")
        return table

    @property
    def _labels(self) -> dict[str, str]:
        progress = self._schedule.progress
        return {t.trial_id: t.method.label for t in (*progress.trials, *progress.todo)}

    def _score(self, value: float | None) -> str:
        if value is None:
            return MISSING
        kind = column(f"eval_{self._metric}").kind
        return format_estimate(Estimate(value, None, None, 1, ""), kind)

    def event(self, event: StudyEvent) -> None:
        """Show one event of an engine."""
        match event:
            case Replanned():
                self._reschedule(event.schedule)
            case Started():
                self._started[event.trial_id] = time.perf_counter()
                self._show(event.trial_id, "starting", completed=0, total=None)
            case Note():
                self._line((event.text, "yellow"))
            case Stage():
                self._show(event.trial_id, event.name)
            case Step() | Evaluated():
                said = self._said(event)
                self._show(event.trial_id, said, completed=event.step, total=event.steps)

    def _reschedule(self, schedule: Schedule) -> None:
        """Take over what is to run from now on: settings were chosen, or a method was dropped."""
        self._left = dict(schedule.seconds)
        self._schedule = schedule
        self._names |= _names_of_trials(schedule)
        trials = schedule.progress.trials
        for t in trials:
            row = self._rows.setdefault(t.method.label, _Row())
            row.trials = sum(x.method.label == t.method.label for x in trials)
        self._width = max((len(n) for n in self._names.values()), default=0)

    def result(self, result: TrialResult) -> None:
        """Show that a trial has ended, and how."""
        name = self._names.get(result.spec.trial_id) or name_of_trial(result.spec, self._schedule)
        spent = time.perf_counter() - self._started.pop(result.spec.trial_id)
        expected = self._left.pop(result.spec.trial_id, spent)
        self._spent += spent
        self._expected += expected
        compared = result.spec.purpose == "trial" and result.spec.train_rows is None
        if compared and result.spec.method.label in self._rows:
            self._rows[result.spec.method.label].add(result, f"eval_{self._metric}")
        if result.status == "failed":
            self._line(("failed", "bold red"), f"  {name}: {result.error or ''}")
        elif not self._live:
            shown = self._score(result.scores.get(f"eval_{self._metric}"))
            text = (
                f"  {name:<{self._width}}  {self._metric} {shown:>5} in {format_seconds(spent):>7}"
            )
            soon = self.seconds_left
            # Estimates are rough: of the last second nothing is known.
            left = f"  (about {format_seconds(soon)} left)" if self._left and soon >= 1 else ""
            self._line(("done  ", "green"), text, (left, "dim"))
        if self._bars and self._tasks:
            self._bars.advance(self._tasks[0])
            soon = self.seconds_left
            said = f"about {format_seconds(soon)} left" if self._left and soon >= 1 else ""
            self._bars.update(self._tasks[0], said=said)

    @property
    def seconds_left(self) -> float:
        """Estimate for the trials that have not ended, corrected by how the last ones went."""
        ratio = self._spent / self._expected if self._expected else 1.0
        now = time.perf_counter()
        so_far = sum(now - t for t in self._started.values())
        left = sum(self._left.values()) * ratio - so_far
        return max(0.0, left) / max(1, min(self._schedule.jobs, len(self._left)))

    def _line(self, *parts: str | tuple[str, str]) -> None:
        # In a file or a pipe, one line is one trial.
        self._console.print(Text.assemble(*parts), soft_wrap=not self._console.is_terminal)

    def _said(self, event: Progressed) -> str:
        parts = [f"epoch {event.epoch:.1f}"]
        if isinstance(event, Step):
            parts += [f"loss {event.loss:.3f}", f"{event.texts_per_second:.0f} texts/s"]
        elif f"eval_{self._metric}" in event.scores:
            parts.append(f"validation {self._score(event.scores[f'eval_{self._metric}'])}")
        return "  ".join(parts)

    def _show(self, trial_id: str | None, said: str, **more: Any) -> None:
        # Of trials side by side, the line shows the one that last had something to say.
        if self._bars and self._tasks:
            name = self._names.get(trial_id or "", "")
            self._bars.update(self._tasks[1], description=name, said=said, **more)
