"""Report trials to experiment trackers while they run: a run for each trial, grouped by method.

The trackers are Accelerate's own (`accelerate.tracking`); which ones a study wants is its
`report_to`. They run beside the study, in the process of the command: a tracker that fails is left
out from then on, said once, and never ends a trial.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from tunelab.core.errors import ConfigError, suggest
from tunelab.core.events import Event, Progressed, event_to_json
from tunelab.core.values import TrialResult, TrialSpec

__all__ = [
    "TRACKERS",
    "TRACKING_FOLDER",
    "Reporter",
    "Tracker",
    "faults",
    "require",
    "where",
]


# Below the study's folder: what a tracker writes into files of its own.
TRACKING_FOLDER = "tracking"


@dataclass(frozen=True, slots=True)
class Run:
    """One trial as a tracker sees it: the project is the study, the group the method's label."""

    project: str
    group: str
    name: str
    folder: Path


class StartedTracker(Protocol):
    """What Accelerate's trackers have in common, as far as it is used."""

    def start(self) -> None:
        """Begin the run."""

    def store_init_configuration(self, values: dict[str, str | int | float | bool]) -> None:
        """Keep what the run depends on."""

    def log(self, values: Mapping[str, float | str], step: int | None) -> None:
        """Keep values of a step."""

    def finish(self) -> None:
        """End the run."""


@dataclass(frozen=True, slots=True)
class Tracker:
    """A tracker: the module that must be there, its pip name, how Accelerate's class is made.

    `start(tracker class, run)` returns a started tracker; `where` says how its runs are seen.
    """

    name: str
    module: str
    package: str
    where: str
    start: Callable[[Any, Run], StartedTracker]
    finish: Callable[[StartedTracker], None] = lambda tracker: tracker.finish()


def _tensorboard(make: Any, run: Run) -> StartedTracker:
    # A folder for each method and one in it for each seed: TensorBoard groups runs by folder.
    tracker: StartedTracker = make(
        f"{_safe(run.group)}/{run.name}", logging_dir=run.folder / "tensorboard"
    )
    tracker.start()
    return tracker


def _trackio(make: Any, run: Run) -> StartedTracker:
    tracker: StartedTracker = make(
        run.project,
        name=f"{run.group} {run.name}",
        group=run.group,
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    tracker.start()
    return tracker


def _finish_trackio(tracker: StartedTracker) -> None:
    from trackio import context_vars

    tracker.finish()
    # Accelerate leaves it current: trackio would end it again, and say so, when the process ends.
    context_vars.current_run.set(None)


def _wandb(make: Any, run: Run) -> StartedTracker:
    import wandb

    run.folder.mkdir(parents=True, exist_ok=True)
    tracker: StartedTracker = make(
        run.project,
        name=f"{run.group} {run.name}",
        group=run.group,
        dir=run.folder,
        # Else 45 lines a trial, on standard error; where its runs are, the study says itself.
        settings=wandb.Settings(silent=True),
    )
    tracker.start()
    return tracker


def _mlflow(make: Any, run: Run) -> StartedTracker:
    import mlflow

    tracker: StartedTracker = make(run.project, run_name=f"{run.group} {run.name}")
    tracker.start()
    # Not as the class's `tags`: those would be the whole experiment's too.
    mlflow.set_tag("group", run.group)
    return tracker


TRACKERS: dict[str, Tracker] = {
    t.name: t
    for t in (
        Tracker(
            "trackio",
            "trackio",
            "trackio",
            "trackio show --project {project}",
            _trackio,
            _finish_trackio,
        ),
        Tracker("wandb", "wandb", "wandb", "wandb.ai, or wandb sync {folder}/wandb/*", _wandb),
        Tracker("mlflow", "mlflow", "mlflow", "mlflow ui", _mlflow),
        Tracker(
            "tensorboard",
            "tensorboard",
            "tensorboard",
            "tensorboard --logdir {folder}/tensorboard",
            _tensorboard,
        ),
    )
}


def faults(names: Iterable[str]) -> list[str]:
    """A line for each name that is no tracker."""
    return [
        f"report_to: {n!r} is not a tracker.{suggest(str(n), TRACKERS, what='Known')}"
        for n in names
        if n not in TRACKERS
    ]


def require(names: Iterable[str]) -> None:
    """Raise ConfigError where a tracker is not installed."""
    for name in names:
        tracker = TRACKERS[name]
        if importlib.util.find_spec(tracker.module) is None:
            raise ConfigError(
                f"report_to: {name} is not installed. Install it (pip install {tracker.package}), "
                "or leave it out."
            )


def where(names: Iterable[str], study: Path) -> list[str]:
    """How each tracker's runs are seen, a line each."""
    facts = {"project": study.name, "folder": study / TRACKING_FOLDER}
    return [f"{name}: {TRACKERS[name].where.format(**facts)}" for name in names]


@dataclass(slots=True)
class Reporter:
    """Hears a study's events and results and passes them on, each trial as one run.

    Trackers have one current run a process. So one trial is reported live; what others say at the
    same time waits until that one has ended. Use as a context manager.
    """

    names: Sequence[str]
    project: str
    folder: Path
    trials: Mapping[str, TrialSpec]
    say: Callable[[str], None]
    _current: str | None = None
    _open: dict[str, StartedTracker] = field(default_factory=dict)
    _waiting: dict[str, list[Progressed | TrialResult]] = field(default_factory=dict)
    _off: set[str] = field(default_factory=set)
    _step: int = 0

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def event(self, event: Event) -> None:
        """Report a row of the history: loss, learning rate, validation scores, by step."""
        if isinstance(event, Progressed) and event.trial_id in self.trials:
            self._take(str(event.trial_id), event)

    def result(self, result: TrialResult) -> None:
        """Report final scores and costs, or the error, and end the trial's run."""
        if result.spec.trial_id in self.trials:
            self._take(result.spec.trial_id, result)

    def _take(self, trial_id: str, item: Progressed | TrialResult) -> None:
        if self._current not in {None, trial_id}:
            self._waiting.setdefault(trial_id, []).append(item)
            return
        self._current = trial_id
        self._report(trial_id, item)
        if not isinstance(item, TrialResult):
            return
        self._close()
        ended = next(
            (t for t, held in self._waiting.items() if isinstance(held[-1], TrialResult)),
            next(iter(self._waiting), None),
        )
        for held in self._waiting.pop(ended, ()) if ended else ():
            self._take(str(ended), held)

    def _report(self, trial_id: str, item: Progressed | TrialResult) -> None:
        spec = self.trials[trial_id]

        def pass_on(name: str) -> None:
            if name not in self._open:
                self._open[name] = _started_tracker(name, self._run(spec))
                self._open[name].store_init_configuration(_flat_settings(spec))
            if isinstance(item, TrialResult):
                self._open[name].log(_final(item), step=self._step)
            else:
                self._step = item.step
                self._open[name].log(_scalars(item), step=self._step)

        for name in self.names:
            self._guarded(name, pass_on)

    def _run(self, spec: TrialSpec) -> Run:
        rows = f"-rows-{spec.train_rows}" if spec.train_rows else ""
        name = f"seed-{spec.seed}{rows}"
        if spec.purpose == "tuning":  # tries of a method differ in settings, not in seed
            name = f"tuning-{spec.trial_id[-6:]}"
        return Run(self.project, spec.method.label, name, self.folder)

    def _close(self) -> None:
        for name in list(self._open):
            self._guarded(name, lambda n: TRACKERS[n].finish(self._open[n]))
        self._open.clear()
        self._current, self._step = None, 0

    def _guarded(self, name: str, do: Callable[[str], None]) -> None:
        """Nothing that a tracker prints or raises reaches the study."""
        if name in self._off:
            return
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                do(name)
        except Exception as e:
            self._off.add(name)
            why = " ".join(str(e).split()) or type(e).__name__
            self.say(f"report_to: {name} failed and is left out from here on: {why}")


def _started_tracker(name: str, run: Run) -> StartedTracker:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # its classes ask which process this is; no device is touched for that
    return TRACKERS[name].start(LOGGER_TYPE_TO_CLASS[name], run)


def _flat_settings(spec: TrialSpec) -> dict[str, str | int | float | bool]:
    """What the trial depends on, flat and of the types that every tracker keeps."""
    values = {
        "trial_id": spec.trial_id,
        "method": spec.method.name,
        "label": spec.method.label,
        "seed": spec.seed,
        "data": spec.data.source,
        "base": spec.base.name if spec.base else "none",
        **spec.method.settings,
    }
    plain = (str, int, float, bool)
    return {k: v if isinstance(v, plain) else json.dumps(v) for k, v in values.items()}


def _scalars(event: Progressed) -> dict[str, float]:
    """A row of the history under the names that transformers reports: train/loss, eval/loss."""
    out: dict[str, float] = {}
    for key, value in event_to_json(event).items():
        if key in {"step", "steps"} or isinstance(value, bool) or not _is_number(value):
            continue
        part, name = ("eval", key[5:]) if key.startswith("eval_") else ("train", key)
        out[f"{part}/{name}"] = value
    return out


def _final(result: TrialResult) -> dict[str, float | str]:
    """Scores as final/test_accuracy, costs as cost/train_seconds; the error of a failed trial."""
    if result.status == "failed":
        return {"error": result.error or "failed"}
    scores = {f"final/{k}": v for k, v in result.scores.items() if _is_number(v)}
    costs = {f"cost/{k}": v for k, v in asdict(result.cost).items() if _is_number(v)}
    return {**scores, **costs}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _safe(name: str) -> str:
    """A method's label as the name of a folder: lora[r=4] stays readable."""
    return "".join(c if c.isalnum() or c in "-_.=[]," else "-" for c in name)
