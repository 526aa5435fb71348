"""A study: methods x settings x seeds -> trials; run what is missing; keep what is done.

Three values: `Plan`, what is meant; `Progress`, how far its folder is; `Schedule`, what of the rest
runs when. Main path: `plan` -> `scheduled` -> `run`: tries of settings (`tune`) -> trials, all or
raced (`race_methods`) -> trials on fewer rows. Where settings were chosen or a method was dropped,
progress is read and scheduled anew.

May import: config, trial, engines and the rooms below. May not import: report, api, cli.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from tunelab import bases, behaviour, data, gate, racing, schedule, stats, store, trackers, tuning
from tunelab._version import __version__
from tunelab.config import MOST_TRIALS, StudySpec, study_yaml
from tunelab.crossed import components
from tunelab.engines import ENGINES, Engine, Worker
from tunelab.errors import ConfigError
from tunelab.gate import Gate
from tunelab.methods import METHODS, alike, check, why_alone
from tunelab.metrics import METRICS
from tunelab.trial import OnEvent, make_spec, scored_on
from tunelab.types import Dataset, MethodSpec, TrialResult, TrialSpec

__all__ = [
    "Plan",
    "Power",
    "Progress",
    "Schedule",
    "check_place",
    "expand",
    "plan",
    "power",
    "read_progress",
    "run",
    "scheduled",
    "worker",
    "write",
]

# Whether each row of validation was classified right, by seed, by method.
Right = dict[str, dict[int, NDArray[np.bool_]]]


# --- the plan: what is meant ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a study means to do, however far it is: its data, base, methods and protocol.

    `gate` says what is wrong with the data; `sizes` are the learning curves' numbers of training
    rows, below all; `others` the data that every trained classifier is scored on too; `behaviour`
    the cases of its behaviour tests, as they are kept, None where it has none.
    """

    spec: StudySpec
    dataset: Dataset
    base: bases.Base | None
    gate: Gate
    sizes: tuple[int, ...] = ()
    others: tuple[data.OtherData, ...] = ()
    behaviour: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def plan(spec: StudySpec, yes: bool = False) -> Plan:
    """Load the data and the base, and check what can be checked.

    Raises InputError before anything is written or trained.
    """
    count = count_trials(spec)
    if count > MOST_TRIALS and not yes:
        raise ConfigError(
            f"This study has {count} trials ({len(spec.methods)} methods x {len(spec.seeds)} "
            f"seeds), more than {MOST_TRIALS}. Make the grid smaller, or confirm with --yes."
        )
    trackers.require(spec.report_to)
    folder = spec.output_dir
    check_place(folder)
    if folder.is_dir() and any(folder.iterdir()) and not store.is_study(folder):
        raise ConfigError(
            f"{folder}: not empty, and not a study, so nothing is written into it. "
            "Choose another folder with --output-dir."
        )
    dataset = data.load(spec.data)
    others = tuple(data.load_other(d, dataset.label_names, dataset.train) for d in spec.test_on)
    base = bases.resolve(spec.model, spec.trust_remote_code) if spec.needs_base else None
    if base:
        for m in _every_setting(spec):
            check(base, m)
            if "max_length" in m.settings and METHODS[m.name].needs_base:
                bases.check_length(base, m.settings["max_length"])
    found = _known_or_new_gate(folder, dataset)
    cases = _behaviour_cases(spec, dataset)
    sizes, notes = _curve_sizes(spec, dataset)
    return Plan(spec, dataset, base, found, sizes, others, cases, notes)


def count_trials(spec: StudySpec) -> int:
    """How many trials a study has, tries of settings included."""
    tries = sum(spec.tuning.tries(m.label) for m in spec.methods) * len(spec.tuning.seeds)
    return len(spec.methods) * len(spec.seeds) * (1 + len(spec.train_sizes)) + tries


def check_place(folder: Path) -> None:
    """Raise ConfigError where no folder can be made, or written into."""
    other = "Choose another with --output-dir."
    inside = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not inside.is_dir():
        what = (
            f"{inside} is a file, so no folder can be made in it"
            if inside != folder
            else ("expected a folder, found a file")
        )
        raise ConfigError(f"{folder}: {what}. {other}")
    if not os.access(inside, os.W_OK):
        raise ConfigError(f"{folder}: {inside} may not be written to. {other}")


def _every_setting(spec: StudySpec) -> Iterator[MethodSpec]:
    """The methods of a study, and each with every setting that tuning may give it."""
    for m in spec.methods:
        yield m
        for name, values in spec.tuning.spaces.get(m.label, {}).items():
            ends = values if isinstance(values, tuple) else ()
            for v in ends:
                value = list(v) if isinstance(v, tuple) else v
                yield MethodSpec(m.name, m.label, {**m.settings, name: value})


def _known_or_new_gate(folder: Path, dataset: Dataset) -> Gate:
    """What the data gate finds; read from the study where these data were looked at before."""
    known = store.read_extra(folder, "gate")
    if known is not None and known["fingerprint"] == dataset.fingerprint:
        return gate.gate_from_json(known)
    return gate.inspect(dataset)


def _behaviour_cases(spec: StudySpec, dataset: Dataset) -> Mapping[str, Any] | None:
    """The cases of the behaviour tests, as they are kept; None where the study has none."""
    if spec.behaviour is None:
        return None
    suite = behaviour.load_suite(spec.behaviour)
    behaviour.roles(suite, dataset.label_names)  # raises where the classes are of another kind
    return behaviour.suite_to_json(suite, behaviour.cases(suite))


def _curve_sizes(spec: StudySpec, dataset: Dataset) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Sizes of the learning curves that lie below all rows; a note on those that do not."""
    least, rows = len(dataset.label_names), len(dataset.train)
    few = [n for n in spec.train_sizes if n < least]
    if few:
        raise ConfigError(
            f"train_sizes: expected at least {least} rows, one for each class, found {few[0]}."
        )
    beyond = [n for n in spec.train_sizes if n >= rows]
    notes = (f"train sizes of {rows:,} rows and more are all rows: {beyond}",) if beyond else ()
    return tuple(n for n in spec.train_sizes if n < rows), notes


# --- trials of a plan -----------------------------------------------------------------------


def expand(
    plan: Plan,
    methods: Sequence[MethodSpec] | None = None,
    sizes: Sequence[int | None] = (None,),
) -> tuple[TrialSpec, ...]:
    """All trials of a study: seed by seed, so that every method has one result early.

    `methods` are the study's own where left out; `sizes` numbers of training rows, None for all.
    """
    return tuple(
        trial_of(plan, m, seed, train_rows=size)
        for seed in plan.spec.seeds
        for size in sizes
        for m in methods or plan.spec.methods
    )


def trial_of(
    plan: Plan,
    method: MethodSpec,
    seed: int,
    *,
    train_rows: int | None = None,
    purpose: Literal["trial", "tuning"] = "trial",
) -> TrialSpec:
    """One trial of a study. On other data are scored those on all rows."""
    spec, base = plan.spec, plan.base
    full = train_rows is None and purpose != "tuning"
    return make_spec(
        spec.data,
        plan.dataset.fingerprint,
        base.ref if base and METHODS[method.name].needs_base else None,
        method,
        seed,
        vary_split=spec.vary_split,
        test_on=spec.test_on if full else (),
        metric=spec.metric,
        train_rows=train_rows,
        purpose=purpose,
    )


def grid_tries(plan: Plan, m: MethodSpec) -> list[tuple[dict[str, Any], TrialSpec]]:
    """Every setting of a method's grid, with each tuning seed: (setting, its try)."""
    points = tuning.grid_points(plan.spec.tuning.spaces[m.label])
    return [(point, t) for point in points for t in tries_of(plan, m, point)]


def tries_of(plan: Plan, m: MethodSpec, settings: Mapping[str, Any]) -> list[TrialSpec]:
    """One setting with each tuning seed."""
    method = MethodSpec(m.name, m.label, {**m.settings, **settings})
    return [trial_of(plan, method, seed, purpose="tuning") for seed in plan.spec.tuning.seeds]


def start_settings(plan: Plan, m: MethodSpec) -> dict[str, Any]:
    """A method's own values of what is tuned: where tuning starts."""
    return {k: m.settings[k] for k in plan.spec.tuning.spaces[m.label]}


# --- progress: what is on disk --------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How far a plan is: what its folder holds, read once.

    `methods` are the study's with their tuned settings, as far as tuning has been done. `trials`
    are those that the table compares, `curve` those on fewer training rows, `tries` those of
    settings that are still to run (Optuna's are known only when it proposes them: `proposals` says
    how many each method has left). `todo`: what of all these is still to run. `results` are those
    on disk, by trial id, also of trials that failed and are in `todo` again.
    """

    plan: Plan
    methods: tuple[MethodSpec, ...]
    trials: tuple[TrialSpec, ...]
    curve: tuple[TrialSpec, ...]
    tries: tuple[TrialSpec, ...]
    proposals: Mapping[str, int]
    todo: tuple[TrialSpec, ...]
    results: Mapping[str, TrialResult]
    notes: tuple[str, ...] = ()


def read_progress(plan: Plan) -> Progress:
    """See in a study's folder what was tuned, what is done, and what is still to run."""
    spec, folder = plan.spec, plan.spec.output_dir
    methods, tries, proposals = _tuned_so_far(plan)
    trials = expand(plan, methods)
    curve = expand(plan, methods, plan.sizes)
    on_disk = read_results(folder, (*tries, *trials, *curve))
    if spec.race:
        race, _ = race_so_far(plan, trials, on_disk)
        trials = trials_still_racing(race, spec, trials)
        curve = tuple(t for t in curve if t.method.label in race.alive)
    everything = (*tries, *trials, *curve)
    todo = tuple(t for t in everything if not is_done(plan, on_disk.get(t.trial_id), t))
    missing = {t.trial_id for t in todo}
    return Progress(
        plan=plan,
        methods=tuple(methods),
        trials=trials,
        curve=curve,
        tries=tuple(t for t in tries if t.trial_id in missing),
        proposals=proposals,
        todo=todo,
        results={t.trial_id: on_disk[t.trial_id] for t in everything if t.trial_id in on_disk},
        notes=_no_longer_shown(plan),
    )


def _tuned_so_far(plan: Plan) -> tuple[list[MethodSpec], list[TrialSpec], dict[str, int]]:
    """Methods with the settings chosen for them; tries of the others, or how many to propose."""
    spec = plan.spec
    recorded = recorded_tuning(plan)
    methods: list[MethodSpec] = []
    tries: list[TrialSpec] = []
    proposals: dict[str, int] = {}
    for m in spec.methods:
        entry = recorded.get(m.label)
        if m.label not in spec.tuning.spaces:
            methods.append(m)
        elif entry is not None and is_settled(plan, m, entry):
            methods.append(MethodSpec(m.name, m.label, {**m.settings, **entry.chosen}))
        else:
            methods.append(m)
            if spec.tuning.budget is None:
                tries += [t for _, t in grid_tries(plan, m)]
            else:
                spent = count_recorded_tries(plan, m, entry) if entry else 0
                proposals[m.label] = max(1, spec.tuning.budget - spent)
    return methods, tries, proposals


def read_results(folder: Path, trials: Iterable[TrialSpec]) -> dict[str, TrialResult]:
    """Results that are on disk, by trial id."""
    found = ((t.trial_id, store.read_result(folder, t.trial_id)) for t in trials)
    return {trial_id: result for trial_id, result in found if result is not None}


def is_done(plan: Plan, result: TrialResult | None, trial: TrialSpec) -> bool:
    """Whether nothing of a trial is left to do: it is scored on all other data too."""
    # A trial that failed is tried again: the cause (memory, a missing package) may be mended. A
    # try of settings is not: that these settings fail is what was to be found out.
    if result is None:
        return False
    if trial.purpose == "tuning":
        return True
    others = zip(plan.spec.test_on, plan.others, strict=True)
    return result.status == "done" and all(
        scored_on(result, d, other.fingerprint) for d, other in others if d in trial.test_on
    )


def recorded_tuning(plan: Plan) -> Mapping[str, tuning.TunedMethod]:
    """What tuning.json holds of each method; nothing where it was chosen by another metric."""
    stored = store.read_extra(plan.spec.output_dir, "tuning")
    if not stored or stored["metric"] != plan.spec.metric:
        return {}
    return tuning.tuning_from_json(stored).methods


def is_settled(plan: Plan, m: MethodSpec, entry: tuning.TunedMethod) -> bool:
    """Whether what is recorded is what would be tried now, and all of it."""
    if entry.start != start_settings(plan, m):
        return False
    ids = {t.trial_id for t in entry.tries}
    if plan.spec.tuning.budget is None:
        return ids == {t.trial_id for _, t in grid_tries(plan, m)}
    return entry.space == tuning.space_to_json(plan.spec.tuning.spaces[m.label]) and (
        count_recorded_tries(plan, m, entry) >= plan.spec.tuning.budget
    )


def count_recorded_tries(plan: Plan, m: MethodSpec, entry: tuning.TunedMethod) -> int:
    """How many of the recorded settings were tried on this data, with these seeds."""
    settings = [s.settings for s in tuning.average_by_setting(entry.tries)]
    ours = {t.trial_id for s in settings for t in tries_of(plan, m, s)}
    # A setting that Optuna proposed twice counts twice: it was spent.
    return sum(t.trial_id in ours for t in entry.tries) // len(plan.spec.tuning.seeds)


def race_so_far(
    plan: Plan,
    trials: Sequence[TrialSpec],
    results: Mapping[str, TrialResult],
    tried: AbstractSet[str] = frozenset(),
) -> tuple[racing.Race, tuple[TrialSpec, ...]]:
    """The race as far as its trials have run, and the trials of its next round.

    From what is on disk each time: a race that was stopped goes on as if it had not been. A trial
    that failed is due again, unless it is one of `tried`.
    """
    folder, spec = plan.spec.output_dir, plan.spec
    of = {(t.method.label, t.seed): t for t in trials}
    race = racing.start([m.label for m in spec.methods], len(spec.seeds))
    right: Right = {label: {} for label in race.labels}
    for seed in spec.seeds:
        if racing.over(race):
            break
        due = [of[label, seed] for label in racing.order(race) if (label, seed) in of]
        left = tuple(
            t
            for t in due
            if not is_done(plan, results.get(t.trial_id), t) and t.trial_id not in tried
        )
        if left:
            return race, left
        for t in due:
            if ended_well(results, t):
                right[t.method.label][seed] = right_on_validation(folder, t)
        race = racing.advance(race, right)
    return race, ()


def ended_well(results: Mapping[str, TrialResult], t: TrialSpec) -> bool:
    """Whether a trial has been run, and did not fail."""
    return t.trial_id in results and results[t.trial_id].status == "done"


def right_on_validation(folder: Path, t: TrialSpec) -> NDArray[np.bool_]:
    """Whether a finished trial classified each row of validation right."""
    v = store.read_predictions(folder, t.trial_id)["validation"]
    right: NDArray[np.bool_] = v.predicted == v.labels
    return right


def trials_still_racing(
    race: racing.Race, spec: StudySpec, trials: Sequence[TrialSpec]
) -> tuple[TrialSpec, ...]:
    """The trials that a race ran or may still run."""
    until = {d.label: d.round for d in race.dropped}
    if racing.over(race):
        until |= dict.fromkeys(race.alive, len(race.rounds))
    place = {seed: i for i, seed in enumerate(spec.seeds)}
    return tuple(t for t in trials if place[t.seed] < until.get(t.method.label, len(place)))


def _no_longer_shown(plan: Plan) -> tuple[str, ...]:
    """What the study that lies in this folder shows, and will not once this one is written."""
    folder = plan.spec.output_dir
    if not store.is_study(folder):
        return ()
    try:
        settings = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        card = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        name, other = card["name"], card["fingerprint"] != plan.dataset.fingerprint
        labels = [m["label"] for m in settings["methods"]]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return ()  # half-written, or of another version: written anew
    kept = "its trials stay on disk; to keep its report, choose another --output-dir"
    if other:
        return (f"the study in {folder} is of other data ({name} as it was): replaced; {kept}",)
    gone = [x for x in labels if x not in {m.label for m in plan.spec.methods}]
    if not gone:
        return ()
    return (
        f"the study in {folder} also has {', '.join(gone)}, which this one leaves out: name "
        "all methods to show them together",
    )


# --- the schedule: what runs when -----------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What of a plan's progress is still to run, how many at a time, and for about how long.

    `seconds` maps what is to run, in its order, to its estimated seconds. `jobs` run at a time,
    each with so many `threads` (None: as its libraries choose); `why` says what decided that.
    `notes`: what is worth saying before it is run.
    """

    progress: Progress
    seconds: Mapping[str, float]
    jobs: int = 1
    threads: int | None = None
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """What is meant."""
        return self.progress.plan

    @property
    def total_seconds(self) -> float:
        """Estimated seconds until everything that is still to run is done."""
        return schedule.makespan(self.seconds.values(), self.jobs)


def scheduled(plan: Plan) -> Schedule:
    """Read how far a plan is, and decide how the rest is run."""
    progress = read_progress(plan)
    stacks = stacks_of(plan, progress.todo)
    jobs, threads, why = schedule.side_by_side(
        plan.spec.jobs,
        [s[0] for s in stacks],
        plan.dataset,
        plan.base,
        max(map(len, stacks), default=1),
    )
    notes = (*plan.notes, *_not_stacked(plan.spec, progress.methods), *progress.notes)
    seconds = _estimated(progress, jobs, threads)
    return Schedule(progress, seconds, jobs, threads, why, notes)


def _estimated(progress: Progress, jobs: int, threads: int | None) -> dict[str, float]:
    """Seconds of what is to run, by trial id; of what is not proposed yet, by its number."""
    plan, todo = progress.plan, progress.todo
    done = [r for r in progress.results.values() if r.status == "done"]
    seconds = schedule.estimate(todo, done, plan.dataset, plan.base, jobs=jobs, threads=threads)
    for label, left in progress.proposals.items():
        # What is not proposed yet takes about as long as a trial of that method.
        own = [seconds[t.trial_id] for t in todo if t.method.label == label]
        for i in range(left * len(plan.spec.tuning.seeds)):
            seconds[f"try {i} of {label}"] = max(own, default=0.0)
    return seconds


def stacks_of(plan: Plan, trials: Sequence[TrialSpec]) -> list[tuple[TrialSpec, ...]]:
    """Put trials together that can be trained in one pass; the others are stacks of one."""
    stacks: list[list[TrialSpec]] = []
    last: dict[tuple[object, ...] | None, list[TrialSpec]] = {}
    for t in trials:
        size = schedule.stack_size(plan.spec.stack, t, plan.dataset)
        key = alike(t) if size > 1 and why_alone(t.method) is None else None
        stack = last.get(key)
        if key is None or stack is None or len(stack) >= size:
            stack = last[key] = []
            stacks.append(stack)
        stack.append(t)
    return [tuple(s) for s in stacks]


def _not_stacked(spec: StudySpec, methods: Sequence[MethodSpec]) -> list[str]:
    """Which methods train alone although a stack was asked for, and why."""
    if (spec.stack or 1) == 1:
        return []
    found = {m.label: why_alone(m) for m in methods}
    return [f"stack: {label} trains alone: {why}" for label, why in found.items() if why]


# --- the folder -----------------------------------------------------------------------------


def write(progress: Progress, command: str) -> None:
    """Write study.yaml and data.json; sweep what a killed run left."""
    plan, folder = progress.plan, progress.plan.spec.output_dir
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    store.sweep(folder)
    content = {
        "tunelab": __version__,
        "command": command,
        **study_yaml(
            replace(plan.spec, model=plan.base.ref.name if plan.base else plan.spec.model)
        ),
        **trial_ids_of(progress),
    }
    head = "# The resolved study. Run it again (only what is missing is run): tunelab compare "
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    store.write_text(folder / "study.yaml", f"{head}{folder / 'study.yaml'}\n{text}")
    card = data.describe(plan.dataset)
    card["test_on"] = [
        {"name": o.name, "rows": len(o.split), "in_train": o.in_train} for o in plan.others
    ]
    store.write_json(folder / "data.json", card)
    store.write_rows(folder, plan.dataset)
    store.write_extra(folder, "gate", gate.gate_to_json(plan.gate))
    if plan.behaviour is not None:
        store.write_extra(folder, "behaviour", plan.behaviour)
    # What an earlier run in this folder had, and this one has not, would be told as this one's.
    has = {
        "tuning": plan.spec.tuning.spaces,
        "race": plan.spec.race,
        "curves": plan.spec.train_sizes,
        "behaviour": plan.behaviour,
    }
    for name, asked in has.items():
        if not asked:
            store.remove_extra(folder, name)


def trial_ids_of(progress: Progress) -> dict[str, list[str]]:
    """What study.yaml says of the trials that the study shows."""
    shown = {"trials": progress.trials, "curve": progress.curve}
    return {name: [t.trial_id for t in trials] for name, trials in shown.items()}


# --- running --------------------------------------------------------------------------------

# Results as they come, and in the end the schedule of what is left.
ResultsThenSchedule = Generator[TrialResult, None, Schedule]


@contextmanager
def worker(spec: StudySpec, engine: str = "process") -> Iterator[Worker]:
    """The process that a study's trials are forked from, for `run`, which may not need it.

    It is started at once and imports while the study is planned, unless the study has been run
    before: perhaps all is done. Where the plan gives trials other threads, `run` starts another.
    """
    with Worker() as made:
        if engine == "process" and not store.is_study(spec.output_dir):
            names = dict.fromkeys(m.name for m in spec.methods)
            made.started(names, schedule.threads_ahead(spec.jobs, count_trials(spec)))
        yield made


def run(
    first: Schedule, on_event: OnEvent, engine: str = "process", worker: Worker | None = None
) -> Iterator[TrialResult]:
    """Run what is missing: tries of settings, then trials; each result is yielded when on disk.

    `worker`: the process that they are forked from, where one has been started (see `worker`); it
    is ended.
    Where what is to run changes (settings were chosen, a method was dropped from the race), the
    event {"event": "plan", "plan": the new Schedule} says so. Trackers that the study reports to
    hear every event and result too; one that fails is left out, which an event `note` says.
    """
    spec = first.plan.spec
    folder = spec.output_dir
    known = {t.trial_id: t for t in first.progress.todo}
    with ExitStack() as inside:
        # One for all rounds: each would wait for the imports again.
        worker = worker or inside.enter_context(Worker())
        inside.callback(worker.stop)
        run_all = partial(ENGINES[engine], worker=worker)
        reporter = inside.enter_context(
            trackers.Reporter(
                spec.report_to,
                folder.name,
                folder / trackers.TRACKING_FOLDER,
                known,
                lambda text: on_event({"event": "note", "text": text}),
            )
        )

        def hear(event: Mapping[str, Any]) -> None:
            on_event(event)
            if event.get("event") == "plan":
                known.update({t.trial_id: t for t in event["plan"].progress.todo})
            else:
                reporter.event(event)

        for result in _run_stages(first, hear, run_all):
            reporter.result(result)
            yield result


def _run_stages(first: Schedule, on_event: OnEvent, run_all: Engine) -> Iterator[TrialResult]:
    """Tries of settings, then all trials or a race, then those on fewer rows."""
    started = time.perf_counter()
    now = yield from tune(first, on_event, run_all)
    spec = now.plan.spec
    if spec.race:
        now = yield from race_methods(now, on_event, run_all, started)
        if spec.budget is not None and time.perf_counter() - started > spec.budget:
            return  # what the budget left out is for another run
        yield from run_missing(now, now.progress.curve, on_event, run_all)
    else:
        trials = (*now.progress.trials, *now.progress.curve)
        yield from run_missing(now, trials, on_event, run_all)


def run_missing(
    now: Schedule, trials: Sequence[TrialSpec], on_event: OnEvent, run_all: Engine
) -> Iterator[TrialResult]:
    """Run those of `trials` that are not done. Every trial of a study runs through here."""
    plan, folder = now.plan, now.plan.spec.output_dir
    results = read_results(folder, trials)
    todo = [t for t in trials if not is_done(plan, results.get(t.trial_id), t)]
    stacks = stacks_of(plan, schedule.starting_order(todo, now.seconds, now.jobs))
    metric, jobs, threads = plan.spec.metric, now.jobs, now.threads
    for result in run_all(stacks, folder, metric, on_event, jobs=jobs, threads=threads):
        if result.status == "done":
            schedule.learn(result, plan.dataset, plan.base, threads)
        yield result


def reschedule(plan: Plan, on_event: OnEvent) -> Schedule:
    """Schedule anew from what is on disk, put the trials' ids into study.yaml, and tell."""
    now = scheduled(plan)
    store.update_study(plan.spec.output_dir, **trial_ids_of(now.progress))
    on_event({"event": "plan", "plan": now})
    return now


# --- racing ---------------------------------------------------------------------------------


def race_methods(
    now: Schedule, on_event: OnEvent, run_all: Engine, started: float
) -> ResultsThenSchedule:
    """Round by round, a seed each, until one method is left, the seeds are used up, or the time."""
    plan, folder = now.plan, now.plan.spec.output_dir
    tried: set[str] = set()
    stopped: str | None = None
    everything = now.progress.trials
    results = read_results(folder, everything)
    while stopped is None:
        race, due = race_so_far(plan, everything, results, tried)
        _record_race(plan, race, everything, results, None)
        batch = _affordable(now, due, results, started)
        if not due:
            settled = "settled" if race.settled else "seeds"
            stopped = "decided" if len(race.alive) == 1 else settled
        elif len(batch) < len(due):
            stopped = "budget"
        # All tried ones are judged, also those that failed.
        tried |= {t.trial_id for t in batch}
        before = len(race.dropped)
        yield from run_missing(now, batch, on_event, run_all)
        results = read_results(folder, everything)
        race, _ = race_so_far(plan, everything, results, tried)
        if len(race.dropped) > before:
            now = reschedule(plan, on_event)
    _record_race(plan, race, everything, results, stopped)
    return reschedule(plan, on_event)


def _affordable(
    now: Schedule, due: Sequence[TrialSpec], results: Mapping[str, TrialResult], started: float
) -> tuple[TrialSpec, ...]:
    """The first of these trials that are expected to end within the budget."""
    budget = now.plan.spec.budget
    if budget is None:
        return tuple(due)
    spent = time.perf_counter() - started
    measured = mean_seconds_by_method(now.progress.trials, results)
    out = []
    for t in due:
        expected = measured.get(t.method.label, now.seconds.get(t.trial_id, 0.0))
        spent += expected / max(1, now.jobs)
        if spent > budget:
            break
        out.append(t)
    return tuple(out)


def mean_seconds_by_method(
    trials: Iterable[TrialSpec], results: Mapping[str, TrialResult]
) -> dict[str, float]:
    """Mean seconds of those of these trials that have run, by method."""
    found: dict[str, list[float]] = {}
    for t in trials:
        r = results.get(t.trial_id)
        if r is not None and "seconds" in r.provenance:
            found.setdefault(t.method.label, []).append(float(r.provenance["seconds"]))
    return {label: float(np.mean(values)) for label, values in found.items()}


def _record_race(
    plan: Plan,
    race: racing.Race,
    everything: Sequence[TrialSpec],
    results: Mapping[str, TrialResult],
    stopped: str | None,
) -> None:
    """Write race.json: the rounds, who was dropped, and what that saved."""
    ran = [t for t in everything if t.trial_id in results]
    measured = mean_seconds_by_method(everything, results)
    known = {t.trial_id for t in (*ran, *trials_still_racing(race, plan.spec, everything))}
    left = [t for t in everything if t.trial_id not in known]
    record = racing.RaceRecord(
        metric=plan.spec.metric,
        budget_seconds=plan.spec.budget,
        stopped=stopped,
        race=race,
        statement=racing.statement(race),
        trials_run=len(ran),
        trials_full=len(everything),
        seconds_run=sum(measured[t.method.label] for t in ran if t.method.label in measured),
        seconds_saved=sum(measured.get(t.method.label, 0.0) for t in left),
    )
    store.write_extra(plan.spec.output_dir, "race", racing.race_to_json(record))


# --- before the run -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Power:
    """The smallest true difference in accuracy that this study finds four times out of five.

    `difference` of two methods compared on their own, `among` of the first of all pairs that Holm's
    correction tests; `rows` and `seeds` it rests on; `least_seeds`: below which no method is called
    better (`stats.least_seeds`);
    `disagreement`: share of test rows on which exactly one of two methods is right, `shared`: the
    part of it that is the same with every seed, and where both come from (`source`; what is not
    known is taken as 1, the cautious end); `seed_sd`: standard deviation over seeds of the
    difference, on endless rows.
    """

    difference: float
    among: float
    rows: int
    seeds: int
    least_seeds: int
    disagreement: float
    seed_sd: float
    source: Literal["stated", "trials that are done", "usual"]
    shared: float = 1.0


# FIELD: two good classifiers of the same texts disagree about so often.
_USUAL_DISAGREEMENT = 0.08


def power(progress: Progress) -> Power:
    """What this study could find: from its test rows, its seeds, and what is known of its methods.

    The disagreement is that which the study states; else that of its finished trials on
    validation (a pilot: test decides nothing, not even this); else 8%.
    """
    plan, spec = progress.plan, progress.plan.spec
    rows, seeds = len(plan.dataset.test), len(spec.seeds)
    found, shared, seed_sd = _pilot(progress)
    source: Literal["stated", "trials that are done", "usual"] = "trials that are done"
    if spec.disagreement is not None:
        found, source = spec.disagreement, "stated"
    elif found is None:
        found, source = _USUAL_DISAGREEMENT, "usual"
    one, first = (
        stats.detectable_difference(rows, seeds, found, seed_sd=seed_sd, shared=shared, pairs=pairs)
        for pairs in (1, max(1, math.comb(len(spec.methods), 2)))
    )
    least = stats.least_seeds()
    return Power(one, first, rows, seeds, least, found, seed_sd, source, shared)


def _pilot(progress: Progress) -> tuple[float | None, float, float]:
    """Of the finished trials, over pairs: disagreement, its shared part, sd over seeds."""
    spec = progress.plan.spec
    right: Right = {}
    for t in progress.trials:
        if ended_well(progress.results, t):
            by_seed = right.setdefault(t.method.label, {})
            by_seed[t.seed] = right_on_validation(spec.output_dir, t)
    alone, several = [], []
    for a, b in itertools.combinations(right.values(), 2):
        seeds = sorted(a.keys() & b.keys())
        gaps = np.array([a[s].astype(float) - b[s] for s in seeds])
        if not gaps.any():  # methods that never differ say nothing of those that do
            continue
        alone.append(float((gaps != 0).mean()))
        # With a split of its own, a seed has validation rows of its own.
        if len(seeds) > 2 and gaps.shape[1] > 1 and not spec.vary_split:
            several.append(components(gaps))
    if not alone:
        return None, 1.0, 0.0
    if not several:
        return float(np.mean(alone)), 1.0, 0.0
    within, common, seed = np.mean(several, axis=0)
    return float(np.mean(alone)), float(common / within) if within else 1.0, float(seed) ** 0.5


# --- tuning ---------------------------------------------------------------------------------


def tune(first: Schedule, on_event: OnEvent, run_all: Engine) -> ResultsThenSchedule:
    """Try settings on validation and settle on the best, for every method that is tuned."""
    plan = first.plan
    recorded = recorded_tuning(plan)
    tuned = [m for m in plan.spec.methods if m.label in plan.spec.tuning.spaces]
    if not tuned:
        return first
    # Not only where tries are to run: of those that have, the choice may be another now.
    if not all(m.label in recorded and is_settled(plan, m, recorded[m.label]) for m in tuned):
        if plan.spec.tuning.budget is None:
            yield from run_missing(first, first.progress.tries, on_event, run_all)
        else:
            yield from _search(first, plan.spec.tuning.budget, on_event, run_all)
        _record_tuning(plan)
    return reschedule(plan, on_event)


def _proposals(plan: Plan, m: MethodSpec) -> tuning.Proposals:
    space, start = plan.spec.tuning.spaces[m.label], start_settings(plan, m)
    # A study of Optuna's is of one question: other data, another space or metric, other seeds or
    # settings beside those tried would mix what is not alike. A larger budget goes on.
    tried = [t.trial_id for t in tries_of(plan, m, start)]
    asked = [tried, tuning.space_to_json(space), plan.spec.metric]
    name = f"{m.label} {hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"
    higher = METRICS[plan.spec.metric].higher_is_better
    return tuning.Proposals(plan.spec.output_dir, name, space, start, higher)


def _search(
    now: Schedule, budget: int, on_event: OnEvent, run_all: Engine
) -> Iterator[TrialResult]:
    """Rounds of one proposal a method, until each has spent the budget."""
    plan, t = now.plan, now.plan.spec.tuning
    tuned = [m for m in plan.spec.methods if m.label in t.spaces]
    proposals = {m.label: _proposals(plan, m) for m in tuned}
    while True:
        asked = {}
        for m in tuned:
            if len(proposals[m.label].told) < budget:
                number, settings = proposals[m.label].ask()
                below = _stop_below(plan, m, proposals[m.label]) if t.prune else {}
                tries = [replace(s, stop_below=below) for s in tries_of(plan, m, settings)]
                asked[m.label] = (number, tries)
        if not asked:
            return
        yield from run_missing(now, [s for _, ts in asked.values() for s in ts], on_event, run_all)
        for label, (number, tries) in asked.items():
            value, pruned = _outcome_of(plan, tries)
            proposals[label].tell(number, value, pruned)
        _record_tuning(plan, proposals)


def _outcome_of(plan: Plan, tries: Sequence[TrialSpec]) -> tuple[float | None, bool]:
    """A setting's mean score over its tries, None where one has none; whether one was pruned."""
    found = read_results(plan.spec.output_dir, tries).values()
    values = [tuning.validation_value(r, plan.spec.metric) for r in found]
    known = [v for v in values if v is not None]
    value = float(np.mean(known)) if len(known) == len(tries) else None
    return value, any("pruned" in r.details for r in found)


def _stop_below(plan: Plan, m: MethodSpec, proposals: tuning.Proposals) -> dict[str, float]:
    """Median scores by epoch of this method's tries that went to the end."""
    if not METRICS[plan.spec.metric].higher_is_better:
        return {}
    folder = plan.spec.output_dir
    done = [s for settings in proposals.told for s in tries_of(plan, m, settings)]
    results = [store.read_result(folder, s.trial_id) for s in done]
    whole = [r.spec.trial_id for r in results if r is not None and "pruned" not in r.details]
    return tuning.stop_below((store.read_history(folder, i) for i in whole), plan.spec.metric)


def _error_of_difference(plan: Plan, a: Mapping[int, str], b: Mapping[int, str]) -> float | None:
    """Standard error of the difference on validation between two settings, from their tries."""
    if plan.spec.vary_split and len(plan.spec.tuning.seeds) > 1:
        return None  # each seed has rows of its own

    def runs(tries: Mapping[int, str]) -> stats.Runs:
        found = {s: store.read_predictions(plan.spec.output_dir, i) for s, i in tries.items()}
        return stats.Runs("", {s: f["validation"] for s, f in found.items()})

    try:
        both = runs(a), runs(b)
    except (OSError, KeyError):  # predictions that are not there any more
        return None
    return stats.standard_error(*both, plan.spec.metric, np.random.default_rng(0))


def _record_tuning(plan: Plan, proposals: Mapping[str, tuning.Proposals] | None = None) -> None:
    """Write tuning.json from the tries that lie in the folder."""
    t, folder, metric = plan.spec.tuning, plan.spec.output_dir, plan.spec.metric
    methods: dict[str, tuning.TunedMethod] = {}
    before = recorded_tuning(plan)
    for m in plan.spec.methods:
        if m.label not in t.spaces:
            continue
        if m.label in before and is_settled(plan, m, before[m.label]):
            methods[m.label] = before[m.label]  # trials were made with what was chosen
        elif t.budget is None:
            methods[m.label] = _choice_among(plan, m, grid_tries(plan, m))
        else:
            told = (proposals[m.label] if proposals else _proposals(plan, m)).told
            made = [(settings, s) for settings in told for s in tries_of(plan, m, settings)]
            methods[m.label] = _choice_among(plan, m, made)
    higher, search = METRICS[metric].higher_is_better, "grid" if t.budget is None else "optuna"
    record = tuning.TuningRecord(metric, higher, t.seeds, search, t.budget, methods)
    store.write_extra(folder, "tuning", tuning.tuning_to_json(record))


def _choice_among(
    plan: Plan, m: MethodSpec, made: Sequence[tuple[Mapping[str, Any], TrialSpec]]
) -> tuning.TunedMethod:
    """A method's entry in tuning.json: its tries so far, (setting, try), and what they choose."""
    t, folder, metric = plan.spec.tuning, plan.spec.output_dir, plan.spec.metric
    found = [(settings, store.read_result(folder, s.trial_id)) for settings, s in made]
    tries = [tuning.try_of(settings, r, metric) for settings, r in found if r is not None]
    start = start_settings(plan, m)
    # While tries are still to come, the choice is for the eye.
    whole = len(made) >= t.tries(m.label) * len(t.seeds)
    error = {"error": partial(_error_of_difference, plan)} if whole else {}
    higher = METRICS[metric].higher_is_better
    chosen, value, reason = tuning.choose_settings(tries, start, higher, **error)
    return tuning.TunedMethod(
        space=tuning.space_to_json(t.spaces[m.label]),
        start=start,
        chosen=chosen if chosen is not None else start,
        value=value,
        reason=reason,
        tries=tuple(tries),
    )
