"""Run one trial: data -> fit -> predictions -> scores -> store.

The only place where the test part is scored: once, after everything was chosen on validation; and
the only place where a trial's one seed becomes its named seeds.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from tunelab import data
from tunelab.core import files, machine, study_folder
from tunelab.core.checkpoints import Checkpoints
from tunelab.core.details import BaseRef, Details, Provenance, Pruned, Seeds, Trained
from tunelab.core.errors import TrialError, TunelabError
from tunelab.core.events import Note, OnEvent, Progressed, Stage
from tunelab.core.values import (
    Classifier,
    Cost,
    Dataset,
    DataSpec,
    Fold,
    MethodSpec,
    Predictions,
    TrialResult,
    TrialSpec,
)
from tunelab.core.version import __version__
from tunelab.data import behaviour
from tunelab.methods import METHODS, Outcome, Task, Trainable
from tunelab.methods.training.checkpoint import Keeper
from tunelab.models import bases
from tunelab.stats import calibration, metrics
from tunelab.study import folding
from tunelab.study.elsewhere import score, score_elsewhere, score_transfer
from tunelab.study.measures import (
    confusion_counts,
    cost_of,
    cost_when_asked,
    latencies,
    scores_of_parts,
    scoring_of,
    validation_predictions,
)
from tunelab.study.pruning import BehindOthers, stopping_below

__all__ = [
    "Finished",
    "rows_for_trial",
    "failed",
    "make_spec",
    "named_seeds",
    "run_and_store",
]


# Changing what a trial computes must change this: results of before are then not taken for done.
_RECIPE = 1


def make_spec(
    spec: DataSpec,
    fingerprint: str,
    base: BaseRef | None,
    method: MethodSpec,
    seed: int,
    *,
    purpose: Literal["trial", "tuning", "final"] = "trial",
    train_rows: int | None = None,
    vary_split: bool = False,
    fold: Fold | None = None,
    together: bool = False,
    test_on: tuple[DataSpec, ...] = (),
    stop_below: Mapping[str, float] | None = None,
    metric: str = "accuracy",
) -> TrialSpec:
    """Make a trial's spec. Its id hashes what its result depends on, and nothing else.

    The content of the data counts, not where it lies; a method's settings, not its display name;
    the study's `metric` only for a method that chooses by it (an SVM its C). What else it is scored
    on does not count: that is added to a trial that is done.
    """
    identity: dict[str, object] = {
        "recipe": _RECIPE,
        "data": {"fingerprint": fingerprint, "subset": spec.subset, "split_seed": spec.split_seed},
        "base": base and base.sha256 + (base.code_sha256 or ""),
        "method": method.name,
        "seed": seed,
    }
    settings = {k: v for k, v in method.settings.items() if (k, v) != ("frozen_dropout", True)}
    identity["settings"] = settings
    chooses_by = metric if METHODS[method.name].by_metric else "accuracy"
    divided = vary_split or fold is not None or purpose == "final"
    more = {
        "purpose": purpose,
        "train_rows": train_rows,
        "vary_split": vary_split,
        "metric": chooses_by,
        "apart": divided and spec.on_leak != "warn",
        "fold": fold and [fold.of, fold.repetition, fold.number],
        "together": together or (fold is not None and fold.together),
        "task": spec.task if spec.task == "ordinal" else None,
    }
    # Left out where they say nothing, so that results from before these existed stay valid.
    identity |= {k: v for k, v in more.items() if v not in ("trial", None, False, "accuracy")}
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
    trial_id = f"{method.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return TrialSpec(
        spec,
        fingerprint,
        base,
        method,
        seed,
        trial_id,
        purpose,
        train_rows,
        vary_split,
        test_on,
        stop_below or {},
        fold,
        together,
    )


def named_seeds(seed: int) -> Seeds:
    """Derive independent 32-bit seeds by name from a trial's seed; the same for every method."""
    names = ("init", "order", "dropout")
    words = [np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0] for name in names]
    return Seeds(*(int(w) for w in words))


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A trial's result with what is stored beside it."""

    result: TrialResult
    history: tuple[Mapping[str, float], ...]
    predictions: Mapping[str, Predictions]
    classifier: Classifier


# --- running --------------------------------------------------------------------------------


def run_and_store(  # noqa: PLR0917
    specs: Sequence[TrialSpec],
    study: Path,
    metric: str,
    on_event: OnEvent,
    jobs: int = 1,
    checkpoints: Checkpoints | None = None,
) -> list[TrialResult]:
    """Run trials and keep each in the study; one that fails is kept too, with its error.

    Several are trained in one pass (`training.stack`), and what each costs is its share. Events
    carry their trial's id. `jobs`: how many such calls run at a time, kept beside what is measured.
    `checkpoints`: of a trial that is trained by itself; a stack has none.
    Raises what is no trial's own fault, where several share it: each can be run again by itself.
    """
    trials: list[_Running] = []
    first: Trainable | None = None
    with ExitStack() as inside:
        for spec in specs:
            staging = inside.enter_context(ExitStack())
            # Its clock starts here.
            t = _Running(spec, study, metric, on_event, jobs, len(specs), staging, checkpoints)
            trials.append(t)
            _prepare_or_end(t)
            if t.prepared is not None and first is not None:
                _share_base(t.prepared, first)  # before the next one is loaded
            first = first or t.prepared
        try:
            _train_all(trials)
        except Exception as e:
            if len(specs) > 1:
                raise
            trials[0].keep_failure(e)
    if checkpoints is not None:
        for spec in specs:  # it has ended, well or not
            checkpoints.remove(spec.trial_id)
    return [t.result for t in trials if t.result is not None]


@dataclass(slots=True, eq=False)
class _Running:
    """A trial while it runs: what it was given, what is measured, its result once there is one.

    `folder` is its own to fill; it takes its place in the study when `staging` is closed.
    """

    spec: TrialSpec
    study: Path
    metric: str
    on_any_event: OnEvent
    jobs: int
    stack: int
    staging: ExitStack
    checkpoints: Checkpoints | None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)
    peak: machine.PeakMemory = field(default_factory=machine.PeakMemory)
    folder: Path = Path()
    dataset: Dataset | None = None
    prepared: Trainable | None = None  # where it is to be trained
    result: TrialResult | None = None

    def on_event(self, event: Stage | Progressed) -> None:
        """Pass an event on, with the trial's id."""
        self.on_any_event(replace(event, trial_id=self.spec.trial_id))

    def keeper(self) -> Keeper | None:
        """What keeps its training on disk, where that is asked for."""
        if self.checkpoints is None or self.stack > 1:
            return None
        name = f"{self.spec.method.label}, seed {self.spec.seed}"
        return Keeper(
            self.checkpoints,
            self.spec.trial_id,
            lambda line: self.on_any_event(Note(f"{name}: {line}")),
        )

    def provenance(self, dataset: Dataset | None, stack: int) -> Provenance:
        """Where the result comes from, as of now."""
        seconds = (time.perf_counter() - self.clock) / self.stack
        return _provenance(self.spec, dataset, self.started, seconds, self.jobs, stack)

    @contextmanager
    def failing_alone(self) -> Iterator[None]:
        """What goes wrong inside ends this trial and no other; that is kept as its result."""
        try:
            yield
        except Exception as e:
            self.keep_failure(e)

    def keep_failure(self, error: Exception) -> None:
        """Keep what ended it: being behind other tries is a result too."""
        # What it has half-written goes.
        self.staging.__exit__(type(error), error, error.__traceback__)
        provenance = self.provenance(None, self.stack)
        if isinstance(error, BehindOthers):
            self.result = _pruned(self.spec, error, self.metric, provenance)
        else:
            self.result = failed(self.spec, error, provenance)
        with study_folder.new_trial(self.study, self.spec.trial_id) as folder:
            study_folder.write_trial(folder, self.result, (), {})


def _prepare_or_end(t: _Running) -> None:
    """Bring a trial to where its training starts, or to its end where there is none."""
    before = study_folder.read_result(t.study, t.spec.trial_id)
    with t.failing_alone():
        if before is not None and before.status == "done":
            t.result = score_elsewhere(before, t.spec, t.study, t.on_event)
        else:
            t.folder = t.staging.enter_context(study_folder.new_trial(t.study, t.spec.trial_id))
            _prepare_trial(t)


def _share_base(one: Trainable, other: Trainable) -> None:
    """Let the models of two trials hold one base, where it is the same."""
    from tunelab.models import many

    many.share_base(one.training.model, other.training.model)


def _prepare_trial(t: _Running) -> None:
    """Load the data and build the model; a method without a training is done at once."""
    spec = t.spec
    t.on_event(Stage("loading data"))
    dataset = t.dataset = rows_for_trial(_the_same_data(spec), spec)
    # A spec that names code is one whose study allowed it.
    base = bases.resolve_exactly(spec.base, t.folder / "artifact", True) if spec.base else None
    method = METHODS[spec.method.name]
    t.on_event(Stage("training"))
    task = Task(
        label_names=dataset.label_names,
        train=dataset.train,
        validation=dataset.validation,
        base=base,
        settings=method.settings(**spec.method.settings),
        seeds=named_seeds(spec.seed),
        metric=t.metric,
        on_step=stopping_below(t.on_event, spec.stop_below, t.metric),
        keeper=t.keeper(),
    )
    if method.prepare is not None:
        t.prepared = method.prepare(task)
    elif method.fit is not None:
        _complete(t, method.fit(task))


def _train_all(trials: Sequence[_Running]) -> None:
    """Train what is prepared, in one pass where it can be; complete each once it has ended."""
    trainings = [t.prepared.training for t in trials if t.prepared is not None]
    if not trainings:
        return
    from tunelab.methods.training.stack import run_trainings

    trained = {id(t.prepared.training): t for t in trials if t.prepared is not None}
    for training in run_trainings(trainings, len(trials)):
        t = trained[id(training)]
        finish = METHODS[t.spec.method.name].finish
        assert finish is not None  # noqa: S101  what is prepared is finished
        with t.failing_alone():
            _complete(t, finish(t.prepared))
        t.prepared = None


def _complete(t: _Running, outcome: Outcome) -> None:
    """Score what was trained, and keep it."""
    done = _scored_trial(t, outcome, t.folder / "artifact")
    predictions = {**done.predictions, **_behaviour(t.spec, t.study, done.classifier)}
    study_folder.write_trial(t.folder, done.result, done.history, predictions)
    t.staging.close()
    t.result = done.result


def _pruned(
    spec: TrialSpec, behind: BehindOthers, metric: str, provenance: Provenance
) -> TrialResult:
    """The result of a try that was ended because others were ahead of it."""
    epoch, value = round(behind.at.epoch), behind.at.scores[f"eval_{metric}"]
    scores = {k: v for k, v in behind.at.scores.items() if k != "eval_loss"}
    details = Details(Trained(epochs=epoch), pruned=Pruned(epoch, value, behind.below))
    return TrialResult(spec, "done", scores, details=details, provenance=provenance)


# --- scoring ----------------------------------------------------------------------------------


def _scored_trial(t: _Running, outcome: Outcome, artifact: Path) -> Finished:
    """Score what was trained, its artifact written into a new folder. The test part: here, once."""
    spec, dataset, classifier = t.spec, t.dataset, outcome.classifier
    assert dataset is not None  # noqa: S101  it was trained on it
    stack = outcome.details.trained.stack or 1
    peak_bytes = max(t.peak.bytes() or 0, outcome.peak_memory_bytes or 0) or None
    t.on_event(Stage("scoring"))
    validation = validation_predictions(outcome, dataset.validation)
    if spec.purpose == "tuning":
        return _tried(spec, outcome, validation, dataset, t.provenance(dataset, stack))
    # What is trained on all rows has none left to test, and is timed on validation.
    tested = spec.purpose != "final"
    held_out = dataset.test if tested else dataset.validation
    timed = score(classifier, held_out, validation.thresholds)
    on_test = {"test": timed} if tested else {}
    splits = {"validation": validation, **on_test}
    scores, reasons = scores_of_parts({"eval": validation, **on_test}, dataset.label_names)
    latency = latencies(classifier, held_out.texts)
    artifact.mkdir(parents=True, exist_ok=True)
    classifier.save(artifact)
    calibration.write_calibration(artifact, validation)
    cost = cost_of(outcome, timed, latency, peak_bytes, files.folder_bytes(artifact))
    cost = cost_when_asked(classifier, cost, held_out.texts)
    elsewhere, transfer = score_transfer(
        [(d, data.load_other(d, dataset.label_names, task=dataset.task)) for d in spec.test_on],
        classifier,
        dataset.label_names,
        thresholds=validation.thresholds,
    )
    details = replace(
        outcome.details,
        per_class={k: metrics.per_class(p, dataset.label_names) for k, p in splits.items()},
        confusion={k: confusion_counts(p) for k, p in splits.items() if p.task != "multilabel"},
        transfer=transfer,
        scoring=scoring_of(classifier),
    )
    if peak_bytes is None:
        reasons["peak_memory_bytes"] = "this system does not report a process's peak memory"
    result = TrialResult(
        spec=spec,
        status="done",
        scores=scores,
        cost=cost,
        details=details,
        reasons={**reasons, **outcome.reasons},
        provenance=t.provenance(dataset, stack),
    )
    return Finished(result, tuple(outcome.history), {**splits, **elsewhere}, classifier)


def _tried(
    spec: TrialSpec,
    outcome: Outcome,
    validation: Predictions,
    dataset: Dataset,
    provenance: Provenance,
) -> Finished:
    """The result of a try of settings: what validation says, and nothing of the test part."""
    scores, reasons = scores_of_parts({"eval": validation}, dataset.label_names)
    result = TrialResult(
        spec,
        "done",
        scores,
        Cost(train_seconds=outcome.train_seconds),
        outcome.details,
        reasons,
        provenance,
    )
    splits = {"validation": validation}
    return Finished(result, tuple(outcome.history), splits, outcome.classifier)


def _behaviour(spec: TrialSpec, study: Path, classifier: Classifier) -> dict[str, Predictions]:
    """Predictions on the behaviour tests of a study that has them, for a trial on all rows."""
    stored = study_folder.read_extra(study, "behaviour")
    if stored is None or spec.purpose != "trial" or spec.train_rows is not None:
        return {}
    _, some = study_folder.parse_extra(study, "behaviour", stored, behaviour.suite_from_json)
    return {behaviour.PART: behaviour.predict_cases(classifier, some)}


def failed(spec: TrialSpec, error: BaseException | str, provenance: Provenance) -> TrialResult:
    """The result of a trial that did not end well: one line of error, the traceback in details."""
    details = Details()
    if isinstance(error, BaseException):
        ours = isinstance(error, TunelabError)
        text = str(error) if ours else f"{type(error).__name__}: {error}"
        if not ours:
            details = Details(traceback="".join(traceback.format_exception(error)))
    else:
        text = error
    line = " ".join(text.split())
    return TrialResult(spec, "failed", details=details, provenance=provenance, error=line)


# --- the steps ------------------------------------------------------------------------------


def rows_for_trial(dataset: Dataset, spec: TrialSpec) -> Dataset:
    """The rows that this trial sees; the same for every method with the same seed.

    `dataset`: what `folding.loaded_for` gave of this trial.
    """
    if spec.purpose == "final":
        return data.all_rows(dataset, spec.data, together=spec.together)
    if spec.fold is not None:
        dataset = data.in_fold(dataset, spec.fold, spec.data)
    if spec.vary_split:
        dataset = data.redivided(dataset, spec.seed)
        if spec.data.on_leak != "warn":
            dataset = data.without_leaked_rows(dataset)
    if spec.train_rows is not None:
        dataset = data.smaller(dataset, spec.train_rows, spec.seed)
    return dataset


def _the_same_data(spec: TrialSpec) -> Dataset:
    dataset = folding.loaded_for(spec)
    if dataset.fingerprint != spec.fingerprint:
        raise TrialError(
            f"{spec.data.source} changed while the study ran: its content hashes to "
            f"{dataset.fingerprint[:12]}, planned was {spec.fingerprint[:12]}. Run the study again."
        )
    return dataset


def _provenance(  # noqa: PLR0917
    spec: TrialSpec,
    dataset: Dataset | None,
    started: datetime,
    seconds: float,
    jobs: int,
    stack: int,
) -> Provenance:
    return Provenance(
        tunelab=__version__,
        versions=machine.versions(),
        hardware=machine.hardware(),
        threads=_threads(),
        jobs=jobs,
        measured_alone=jobs == 1,
        stack=stack if stack > 1 else None,
        dataset=spec.fingerprint,
        revision=dataset.revision if dataset else None,
        base=spec.base,
        seeds=named_seeds(spec.seed),
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
    )


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else None
