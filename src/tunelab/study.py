"""A study: methods x settings x seeds -> trials; run what is missing; keep what is done.

Main path: `plan` -> `run`: tries of settings (`_tune`) -> trials, all or raced (`_race`) ->
trials on fewer rows.

May import: config, trial, engines and the rooms below. May not import: report, api, cli.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from tunelab import bases, behaviour, data, gate, racing, schedule, stats, store, trackers, tuning
from tunelab._version import __version__
from tunelab.config import MOST_TRIALS, StudySpec, protocol_yaml
from tunelab.crossed import components
from tunelab.engines import ENGINES, Engine, Worker
from tunelab.errors import ConfigError
from tunelab.gate import Gate
from tunelab.methods import METHODS, alike, check, why_alone
from tunelab.metrics import METRICS
from tunelab.trial import OnEvent, make_spec, scored_on
from tunelab.types import Dataset, MethodSpec, TrialResult, TrialSpec

__all__ = ["Plan", "Power", "check_place", "expand", "plan", "power", "run", "worker", "write"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a study will do: all its trials, those still to run, and about how long that takes.

    `methods` are the study's with their tuned settings, as far as tuning has been done. `trials`
    are those that the table compares, `curve` those on fewer training rows, `tries` those of
    settings that are still to run (Optuna's are known only when it proposes them: `proposals` says
    how many each method has left). `seconds` maps what is to run to its estimated seconds.
    `gate` says what is wrong with the data. `jobs` run at a time, each with so many `threads`
    (None: as its libraries choose); `why` says what decided that.
    """

    spec: StudySpec
    dataset: Dataset
    base: bases.Base | None
    trials: tuple[TrialSpec, ...]
    todo: tuple[TrialSpec, ...]
    seconds: Mapping[str, float]
    gate: Gate
    methods: tuple[MethodSpec, ...] = ()
    curve: tuple[TrialSpec, ...] = ()
    tries: tuple[TrialSpec, ...] = ()
    proposals: Mapping[str, int] = field(default_factory=dict)
    others: tuple[data.OtherData, ...] = ()
    behaviour: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    jobs: int = 1
    threads: int | None = None
    why: str = ""

    @property
    def total_seconds(self) -> float:
        """Estimated seconds until everything that is still to run is done."""
        return schedule.makespan(self.seconds.values(), self.jobs)


def expand(
    spec: StudySpec,
    dataset: Dataset,
    base: bases.Base | None,
    methods: Sequence[MethodSpec] | None = None,
    sizes: Sequence[int | None] = (None,),
) -> tuple[TrialSpec, ...]:
    """All trials of a study: seed by seed, so that every method has one result early.

    `methods` are the study's own where left out; `sizes` numbers of training rows, None for all.
    """
    return tuple(
        _spec_of(spec, dataset, base, m, seed, train_rows=size)
        for seed in spec.seeds
        for size in sizes
        for m in methods or spec.methods
    )


def _spec_of(
    spec: StudySpec,
    dataset: Dataset,
    base: bases.Base | None,
    method: MethodSpec,
    seed: int,
    **more: Any,
) -> TrialSpec:
    ref = base.ref if base and METHODS[method.name].needs_base else None
    full = more.get("train_rows") is None and more.get("purpose") != "tuning"
    return make_spec(
        spec.data,
        dataset.fingerprint,
        ref,
        method,
        seed,
        vary_split=spec.vary_split,
        test_on=spec.test_on if full else (),
        metric=spec.metric,
        **more,
    )


def plan(spec: StudySpec, yes: bool = False) -> Plan:
    """Load the data and the base, check what can be checked, and see what is still to run.

    Raises InputError before anything is written or trained.
    """
    count = _count(spec)
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
    found = _gate(folder, dataset)
    cases = _behaviour(spec, dataset)
    return _replanned(Plan(spec, dataset, base, (), (), {}, found, others=others, behaviour=cases))


def _count(spec: StudySpec) -> int:
    """How many trials a study has, tries of settings included."""
    tries = sum(spec.tuning.tries(m.label) for m in spec.methods) * len(spec.tuning.seeds)
    return len(spec.methods) * len(spec.seeds) * (1 + len(spec.train_sizes)) + tries


def _behaviour(spec: StudySpec, dataset: Dataset) -> dict[str, Any] | None:
    """The cases of the behaviour tests, as they are kept; None where the study has none."""
    if spec.behaviour is None:
        return None
    suite = behaviour.load_suite(spec.behaviour)
    behaviour.roles(suite, dataset.label_names)  # raises where the classes are of another kind
    return behaviour.suite_to_json(suite, behaviour.cases(suite))


def _no_longer_shown(spec: StudySpec, dataset: Dataset) -> list[str]:
    """What the study that lies in this folder shows, and will not once this one is written."""
    folder = spec.output_dir
    if not store.is_study(folder):
        return []
    try:
        settings = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        card = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        name, other = card["name"], card["fingerprint"] != dataset.fingerprint
        labels = [m["label"] for m in settings["methods"]]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return []  # half-written, or of another version: written anew
    kept = "its trials stay on disk; to keep its report, choose another --output-dir"
    if other:
        return [f"the study in {folder} is of other data ({name} as it was): replaced; {kept}"]
    gone = [x for x in labels if x not in {m.label for m in spec.methods}]
    return [f"the study in {folder} also has {', '.join(gone)}, which this one leaves out: name "
            "all methods to show them together"] if gone else []  # fmt: skip


def _every_setting(spec: StudySpec) -> Iterator[MethodSpec]:
    """The methods of a study, and each with every setting that tuning may give it."""
    for m in spec.methods:
        yield m
        for name, values in spec.tuning.spaces.get(m.label, {}).items():
            ends = values if isinstance(values, tuple) else ()
            for v in ends:
                value = list(v) if isinstance(v, tuple) else v
                yield MethodSpec(m.name, m.label, {**m.settings, name: value})


def _replanned(p: Plan) -> Plan:
    """The plan as the study's folder now stands: tuned settings, and what is still to run."""
    spec, dataset, folder = p.spec, p.dataset, p.spec.output_dir
    recorded = _recorded(p)
    methods, tries, proposals = [], [], {}
    for m in spec.methods:
        entry = recorded.get(m.label)
        if m.label not in spec.tuning.spaces:
            methods.append(m)
        elif entry is not None and _settled(p, m, entry):
            methods.append(MethodSpec(m.name, m.label, {**m.settings, **entry.chosen}))
        else:
            methods.append(m)
            if spec.tuning.budget is None:
                tries += [t for _, t in _grid_tries(p, m)]
            else:
                made = _made(p, m, entry) if entry else 0
                proposals[m.label] = max(1, spec.tuning.budget - made)
    sizes, notes = _sizes(spec, dataset)
    trials = expand(spec, dataset, p.base, methods)
    curve = expand(spec, dataset, p.base, methods, sizes)
    if spec.race:
        race, _ = _race_so_far(replace(p, trials=trials))
        trials = _kept(race, spec, trials)
        curve = tuple(t for t in curve if t.method.label in race.alive)
    everything = (*tries, *trials, *curve)
    before = {t.trial_id: store.read_result(folder, t.trial_id) for t in everything}
    todo = tuple(t for t in everything if not _is_done(p, before[t.trial_id], t))
    done = [r for r in before.values() if r is not None and r.status == "done"]
    stacks = _stacks(spec, dataset, todo)
    jobs, threads, why = schedule.side_by_side(
        spec.jobs, [s[0] for s in stacks], dataset, p.base, max(map(len, stacks), default=1)
    )
    notes += [*_not_stacked(spec, methods), *_no_longer_shown(spec, dataset)]
    seconds = schedule.estimate(todo, done, dataset, p.base, jobs=jobs, threads=threads)
    for label, left in proposals.items():
        # What is not proposed yet takes about as long as a trial of that method.
        own = [seconds[t.trial_id] for t in todo if t.method.label == label]
        for i in range(left * len(spec.tuning.seeds)):
            seconds[f"try {i} of {label}"] = max(own, default=0.0)
    return replace(
        p, trials=trials, curve=curve, tries=tuple(t for t in tries if t in todo), todo=todo,
        seconds=seconds, methods=tuple(methods), proposals=proposals, notes=tuple(notes),
        jobs=jobs, threads=threads, why=why,
    )  # fmt: skip


def _sizes(spec: StudySpec, dataset: Dataset) -> tuple[list[int], list[str]]:
    """Sizes of the learning curves that lie below all rows."""
    least, rows = len(dataset.label_names), len(dataset.train)
    few = [n for n in spec.train_sizes if n < least]
    if few:
        raise ConfigError(
            f"train_sizes: expected at least {least} rows, one for each class, found {few[0]}."
        )
    beyond = [n for n in spec.train_sizes if n >= rows]
    notes = [f"train sizes of {rows:,} rows and more are all rows: {beyond}"] if beyond else []
    return [n for n in spec.train_sizes if n < rows], notes


def _gate(folder: Path, dataset: Dataset) -> Gate:
    """What the data gate finds; read from the study where these data were looked at before."""
    known = store.read_extra(folder, "gate")
    if known is not None and known["fingerprint"] == dataset.fingerprint:
        return gate.gate_from_json(known)
    return gate.inspect(dataset)


def check_place(folder: Path) -> None:
    """Raise ConfigError where no folder can be made, or written into."""
    other = "Choose another with --output-dir."
    inside = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not inside.is_dir():
        what = f"{inside} is a file, so no folder can be made in it" if inside != folder else (
            "expected a folder, found a file"
        )  # fmt: skip
        raise ConfigError(f"{folder}: {what}. {other}")
    if not os.access(inside, os.W_OK):
        raise ConfigError(f"{folder}: {inside} may not be written to. {other}")


def _is_done(p: Plan, result: TrialResult | None, spec: TrialSpec) -> bool:
    # A trial that failed is tried again: the cause (memory, a missing package) may be mended. A
    # try of settings is not: that these settings fail is what was to be found out.
    if result is None:
        return False
    if spec.purpose == "tuning":
        return True
    others = zip(p.spec.test_on, p.others, strict=True)
    return result.status == "done" and all(
        scored_on(result, d, other.fingerprint) for d, other in others if d in spec.test_on
    )


def write(p: Plan, command: str) -> None:
    """Write study.yaml and data.json; sweep what a killed run left."""
    folder = p.spec.output_dir
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    store.sweep(folder)
    content: dict[str, Any] = {
        "tunelab": __version__,
        "command": command,
        "data": asdict(p.spec.data),
        "model": p.base.ref.name if p.base else p.spec.model,
        "trust_remote_code": p.spec.trust_remote_code,
        "methods": [
            {"name": m.name, "label": m.label, "tune": _tune_yaml(p.spec, m.label), **m.settings}
            for m in p.spec.methods
        ],
        "seeds": list(p.spec.seeds),
        "metric": p.spec.metric,
        "output_dir": str(folder),
        "report_to": list(p.spec.report_to),
        "jobs": p.spec.jobs or "auto",
        "stack": {None: "auto", 1: "off"}.get(p.spec.stack, p.spec.stack),
        **protocol_yaml(p.spec),
        "sources": dict(p.spec.sources),
        "trials": [t.trial_id for t in p.trials],
        "curve": [t.trial_id for t in p.curve],
    }
    head = "# The resolved study. Run it again (only what is missing is run): tunelab compare "
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    store.write_text(folder / "study.yaml", f"{head}{folder / 'study.yaml'}\n{text}")
    card = data.describe(p.dataset)
    card["test_on"] = [
        {"name": o.name, "rows": len(o.split), "in_train": o.in_train} for o in p.others
    ]
    store.write_json(folder / "data.json", card)
    store.write_rows(folder, p.dataset)
    store.write_extra(folder, "gate", gate.gate_to_json(p.gate))
    if p.behaviour is not None:
        store.write_extra(folder, "behaviour", p.behaviour)
    # What an earlier run in this folder had, and this one has not, would be told as this one's.
    has = {
        "tuning": p.spec.tuning.spaces, "race": p.spec.race, "curves": p.spec.train_sizes,
        "behaviour": p.behaviour,
    }  # fmt: skip
    for name, asked in has.items():
        if not asked:
            store.remove_extra(folder, name)


def _tune_yaml(spec: StudySpec, label: str) -> Any:
    space = spec.tuning.spaces.get(label)
    return tuning.space_to_json(space) if space else False


# --- running --------------------------------------------------------------------------------

Steps = Generator[TrialResult, None, Plan]


@contextmanager
def worker(spec: StudySpec, engine: str = "process") -> Iterator[Worker]:
    """The process that a study's trials are forked from, for `run`, which may not need it.

    It is started at once and imports while the study is planned, unless the study has been run
    before: perhaps all is done. Where the plan gives trials other threads, `run` starts another.
    """
    with Worker() as made:
        if engine == "process" and not store.is_study(spec.output_dir):
            names = dict.fromkeys(m.name for m in spec.methods)
            made.started(names, schedule.threads_ahead(spec.jobs, _count(spec)))
        yield made


def run(
    p: Plan, on_event: OnEvent, engine: str = "process", worker: Worker | None = None
) -> Iterator[TrialResult]:
    """Run what is missing: tries of settings, then trials; each result is yielded when on disk.

    `worker`: the process that they are forked from, where one has been started (see `worker`); it
    is ended.
    Where what is to run changes (settings were chosen, a method was dropped from the race), the
    event {"event": "plan", "plan": the new Plan} says so. Trackers that the study reports to hear
    every event and result too; one that fails is left out, which an event `note` says.
    """
    folder = p.spec.output_dir
    known = {t.trial_id: t for t in p.todo}
    with ExitStack() as inside:
        # One for all rounds: each would wait for the imports again.
        worker = worker or inside.enter_context(Worker())
        inside.callback(worker.stop)
        run_all = partial(ENGINES[engine], worker=worker)
        reporter = inside.enter_context(trackers.Reporter(
            p.spec.report_to, folder.name, folder / trackers.TRACKING_FOLDER, known,
            lambda text: on_event({"event": "note", "text": text}),
        ))  # fmt: skip

        def hear(event: Mapping[str, Any]) -> None:
            on_event(event)
            if event.get("event") == "plan":
                known.update({t.trial_id: t for t in event["plan"].todo})
            else:
                reporter.event(event)

        for result in _stages(p, hear, run_all):
            reporter.result(result)
            yield result


def _stages(p: Plan, on_event: OnEvent, run_all: Engine) -> Iterator[TrialResult]:
    started = time.perf_counter()
    p = yield from _tune(p, on_event, run_all)
    if p.spec.race:
        p = yield from _race(p, on_event, run_all, started)
        # What the budget left out is for another run.
        yield from _carry_out(p, () if _over(p, started) else p.curve, on_event, run_all)
    else:
        yield from _carry_out(p, (*p.trials, *p.curve), on_event, run_all)


def _carry_out(
    p: Plan, specs: Sequence[TrialSpec], on_event: OnEvent, run_all: Engine
) -> Iterator[TrialResult]:
    """Run those of `specs` that are not done. Every trial of a study runs through here."""
    folder = p.spec.output_dir
    todo = [t for t in specs if not _is_done(p, store.read_result(folder, t.trial_id), t)]
    stacks = _stacks(p.spec, p.dataset, schedule.in_order(todo, p.seconds, p.jobs))
    for result in run_all(stacks, folder, p.spec.metric, on_event, jobs=p.jobs, threads=p.threads):
        if result.status == "done":
            schedule.learn(result, p.dataset, p.base, p.threads)
        yield result


def _stacks(
    spec: StudySpec, dataset: Dataset, specs: Sequence[TrialSpec]
) -> list[tuple[TrialSpec, ...]]:
    """Put trials together that can be trained in one pass; the others are stacks of one."""
    stacks: list[list[TrialSpec]] = []
    last: dict[Any, list[TrialSpec]] = {}
    for t in specs:
        size = schedule.stack_size(spec.stack, t, dataset)
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


def _changed(p: Plan, on_event: OnEvent) -> Plan:
    """Plan anew from what is on disk, put the trials' ids into study.yaml, and tell."""
    p = _replanned(p)
    ids = {"trials": p.trials, "curve": p.curve}
    store.update_study(p.spec.output_dir, **{k: [t.trial_id for t in v] for k, v in ids.items()})
    on_event({"event": "plan", "plan": p})
    return p


# --- racing ---------------------------------------------------------------------------------


def _race(p: Plan, on_event: OnEvent, run_all: Engine, started: float) -> Steps:
    """Round by round, a seed each, until one method is left, the seeds are used up, or the time."""
    tried: set[str] = set()
    stopped: str | None = None
    everything = p.trials
    while stopped is None:
        race, due = _race_so_far(replace(p, trials=everything), tried)
        _record_race(p, race, everything, None)
        batch = _affordable(p, due, started)
        if not due:
            settled = "settled" if race.settled else "seeds"
            stopped = "decided" if len(race.alive) == 1 else settled
        elif len(batch) < len(due):
            stopped = "budget"
        # All tried ones are judged, also those that failed.
        tried |= {t.trial_id for t in batch}
        before = len(race.dropped)
        yield from _carry_out(p, batch, on_event, run_all)
        race, _ = _race_so_far(replace(p, trials=everything), tried)
        if len(race.dropped) > before:
            p = _changed(p, on_event)
    _record_race(p, race, everything, stopped)
    return _changed(p, on_event)


def _race_so_far(
    p: Plan, tried: AbstractSet[str] = frozenset()
) -> tuple[racing.Race, tuple[TrialSpec, ...]]:
    """The race as far as its trials have run, and the trials of its next round.

    Read from the folder each time: a race that was stopped goes on as if it had not been. A trial
    that failed is due again, unless it is one of `tried`.
    """
    folder, spec = p.spec.output_dir, p.spec
    of = {(t.method.label, t.seed): t for t in p.trials}
    race = racing.start([m.label for m in spec.methods], len(spec.seeds))
    right: dict[str, dict[int, Any]] = {label: {} for label in race.labels}
    for seed in spec.seeds:
        if racing.over(race):
            break
        due = [of[label, seed] for label in racing.order(race) if (label, seed) in of]
        results = [store.read_result(folder, t.trial_id) for t in due]
        left = tuple(
            t
            for t, r in zip(due, results, strict=True)
            if not _is_done(p, r, t) and t.trial_id not in tried
        )
        if left:
            return race, left
        for t, r in zip(due, results, strict=True):
            if r is not None and r.status == "done":
                v = store.read_predictions(folder, t.trial_id)["validation"]
                right[t.method.label][seed] = v.predicted == v.labels
        race = racing.advance(race, right)
    return race, ()


def _kept(race: racing.Race, spec: StudySpec, trials: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
    """The trials that a race ran or may still run."""
    until = {d.label: d.round for d in race.dropped}
    if racing.over(race):
        until |= dict.fromkeys(race.alive, len(race.rounds))
    place = {seed: i for i, seed in enumerate(spec.seeds)}
    return tuple(t for t in trials if place[t.seed] < until.get(t.method.label, len(place)))


def _affordable(p: Plan, due: Sequence[TrialSpec], started: float) -> tuple[TrialSpec, ...]:
    """The first of these trials that are expected to end within the budget."""
    if p.spec.budget is None:
        return tuple(due)
    spent = time.perf_counter() - started
    took = _took(p, [t.method.label for t in due])
    out = []
    for t in due:
        spent += took.get(t.method.label, p.seconds.get(t.trial_id, 0.0)) / max(1, p.jobs)
        if spent > p.spec.budget:
            break
        out.append(t)
    return tuple(out)


def _took(p: Plan, labels: Sequence[str]) -> dict[str, float]:
    """Mean seconds of the trials that have run, by method."""
    found: dict[str, list[float]] = {}
    for t in p.trials:
        r = store.read_result(p.spec.output_dir, t.trial_id) if t.method.label in labels else None
        if r is not None and "seconds" in r.provenance:
            found.setdefault(t.method.label, []).append(float(r.provenance["seconds"]))
    return {label: float(np.mean(values)) for label, values in found.items()}


def _over(p: Plan, started: float) -> bool:
    return p.spec.budget is not None and time.perf_counter() - started > p.spec.budget


def _record_race(
    p: Plan, race: racing.Race, everything: Sequence[TrialSpec], stopped: str | None
) -> None:
    """Write race.json: the rounds, who was dropped, and what that saved."""
    ran = [t for t in everything if store.read_result(p.spec.output_dir, t.trial_id) is not None]
    took = _took(replace(p, trials=tuple(everything)), race.labels)
    known = {t.trial_id for t in (*ran, *_kept(race, p.spec, everything))}
    left = [t for t in everything if t.trial_id not in known]
    record = racing.RaceRecord(
        metric=p.spec.metric,
        budget_seconds=p.spec.budget,
        stopped=stopped,
        race=race,
        statement=racing.statement(race),
        trials_run=len(ran),
        trials_full=len(everything),
        seconds_run=sum(took[t.method.label] for t in ran if t.method.label in took),
        seconds_saved=sum(took.get(t.method.label, 0.0) for t in left),
    )
    store.write_extra(p.spec.output_dir, "race", racing.race_to_json(record))


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


def power(p: Plan) -> Power:
    """What this study could find: from its test rows, its seeds, and what is known of its methods.

    The disagreement is that which the study states; else that of its finished trials on
    validation (a pilot: test decides nothing, not even this); else 8%.
    """
    from tunelab.stats import detectable_difference, least_seeds

    rows, seeds = len(p.dataset.test), len(p.spec.seeds)
    found, shared, seed_sd = _pilot(p)
    source: Literal["stated", "trials that are done", "usual"] = "trials that are done"
    if p.spec.disagreement is not None:
        found, source = p.spec.disagreement, "stated"
    elif found is None:
        found, source = _USUAL_DISAGREEMENT, "usual"
    one, first = (
        detectable_difference(rows, seeds, found, seed_sd=seed_sd, shared=shared, pairs=pairs)
        for pairs in (1, max(1, math.comb(len(p.spec.methods), 2)))
    )
    return Power(one, first, rows, seeds, least_seeds(), found, seed_sd, source, shared)


def _pilot(p: Plan) -> tuple[float | None, float, float]:
    """Of the finished trials, over pairs: disagreement, its shared part, sd over seeds."""
    folder = p.spec.output_dir
    right: dict[str, dict[int, Any]] = {}
    for t in p.trials:
        result = store.read_result(folder, t.trial_id)
        if result is not None and result.status == "done":
            v = store.read_predictions(folder, t.trial_id)["validation"]
            right.setdefault(t.method.label, {})[t.seed] = v.predicted == v.labels
    alone, several = [], []
    for a, b in itertools.combinations(right.values(), 2):
        seeds = sorted(a.keys() & b.keys())
        gaps = np.array([a[s].astype(float) - b[s] for s in seeds])
        if not gaps.any():  # methods that never differ say nothing of those that do
            continue
        alone.append(float((gaps != 0).mean()))
        # With a split of its own, a seed has validation rows of its own.
        if len(seeds) > 2 and gaps.shape[1] > 1 and not p.spec.vary_split:
            several.append(components(gaps))
    if not alone:
        return None, 1.0, 0.0
    if not several:
        return float(np.mean(alone)), 1.0, 0.0
    within, common, seed = np.mean(several, axis=0)
    return float(np.mean(alone)), float(common / within) if within else 1.0, float(seed) ** 0.5


# --- tuning ---------------------------------------------------------------------------------


def _tune(p: Plan, on_event: OnEvent, run_all: Engine) -> Steps:
    """Try settings on validation and settle on the best, for every method that is tuned."""
    recorded = _recorded(p)
    tuned = [m for m in p.spec.methods if m.label in p.spec.tuning.spaces]
    if not tuned:
        return p
    # Not only where tries are to run: of those that have, the choice may be another now.
    if not all(m.label in recorded and _settled(p, m, recorded[m.label]) for m in tuned):
        if p.spec.tuning.budget is None:
            yield from _carry_out(p, p.tries, on_event, run_all)
        else:
            yield from _search(p, on_event, run_all)
        _record_tuning(p)
    return _changed(p, on_event)


def _grid_tries(p: Plan, m: MethodSpec) -> list[tuple[dict[str, Any], TrialSpec]]:
    points = tuning.grid_points(p.spec.tuning.spaces[m.label])
    return [(point, t) for point in points for t in _tries_of(p, m, point)]


def _tries_of(p: Plan, m: MethodSpec, settings: Mapping[str, Any]) -> list[TrialSpec]:
    """One setting with each tuning seed."""
    method = MethodSpec(m.name, m.label, {**m.settings, **settings})
    return [
        _spec_of(p.spec, p.dataset, p.base, method, seed, purpose="tuning")
        for seed in p.spec.tuning.seeds
    ]


def _recorded(p: Plan) -> Mapping[str, tuning.TunedMethod]:
    """What tuning.json holds of each method; nothing where it was chosen by another metric."""
    stored = store.read_extra(p.spec.output_dir, "tuning")
    if not stored or stored["metric"] != p.spec.metric:
        return {}
    return tuning.tuning_from_json(stored).methods


def _settled(p: Plan, m: MethodSpec, entry: tuning.TunedMethod) -> bool:
    """Whether what is recorded is what would be tried now, and all of it."""
    if entry.start != _start(p, m):
        return False
    ids = {t.trial_id for t in entry.tries}
    if p.spec.tuning.budget is None:
        return ids == {t.trial_id for _, t in _grid_tries(p, m)}
    return entry.space == tuning.space_to_json(p.spec.tuning.spaces[m.label]) and (
        _made(p, m, entry) >= p.spec.tuning.budget
    )


def _made(p: Plan, m: MethodSpec, entry: tuning.TunedMethod) -> int:
    """How many of the recorded settings were tried on this data, with these seeds."""
    settings = [s.settings for s in tuning.average_by_setting(entry.tries)]
    ours = {t.trial_id for s in settings for t in _tries_of(p, m, s)}
    # A setting that Optuna proposed twice counts twice: it was spent.
    return sum(t.trial_id in ours for t in entry.tries) // len(p.spec.tuning.seeds)


def _start(p: Plan, m: MethodSpec) -> dict[str, Any]:
    return {k: m.settings[k] for k in p.spec.tuning.spaces[m.label]}


def _proposals(p: Plan, m: MethodSpec) -> tuning.Proposals:
    space, start = p.spec.tuning.spaces[m.label], _start(p, m)
    # A study of Optuna's is of one question: other data, another space or metric, other seeds or
    # settings beside those tried would mix what is not alike. A larger budget goes on.
    asked = [
        [t.trial_id for t in _tries_of(p, m, start)],
        tuning.space_to_json(space),
        p.spec.metric,
    ]
    name = f"{m.label} {hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"
    higher = METRICS[p.spec.metric].higher_is_better
    return tuning.Proposals(p.spec.output_dir, name, space, start, higher)


def _search(p: Plan, on_event: OnEvent, run_all: Engine) -> Iterator[TrialResult]:
    """Rounds of one proposal a method, until each has spent the budget."""
    t, folder, metric = p.spec.tuning, p.spec.output_dir, p.spec.metric
    assert t.budget is not None  # noqa: S101  _tune asked
    tuned = [m for m in p.spec.methods if m.label in t.spaces]
    proposals = {m.label: _proposals(p, m) for m in tuned}
    while True:
        asked = {}
        for m in tuned:
            if len(proposals[m.label].told) < t.budget:
                number, settings = proposals[m.label].ask()
                below = _stop_below(p, m, proposals[m.label]) if t.prune else {}
                tries = [replace(s, stop_below=below) for s in _tries_of(p, m, settings)]
                asked[m.label] = (number, tries)
        if not asked:
            return
        yield from _carry_out(p, [s for _, ts in asked.values() for s in ts], on_event, run_all)
        for label, (number, tries) in asked.items():
            found = [store.read_result(folder, s.trial_id) for s in tries]
            values = [tuning.validation_value(r, metric) for r in found if r is not None]
            known = [v for v in values if v is not None]
            value = float(np.mean(known)) if len(known) == len(tries) else None
            pruned = any(r is not None and "pruned" in r.details for r in found)
            proposals[label].tell(number, value, pruned)
        _record_tuning(p, proposals)


def _stop_below(p: Plan, m: MethodSpec, proposals: tuning.Proposals) -> dict[str, float]:
    """Median scores by epoch of this method's tries that went to the end."""
    if not METRICS[p.spec.metric].higher_is_better:
        return {}
    folder = p.spec.output_dir
    done = [s for settings in proposals.told for s in _tries_of(p, m, settings)]
    results = [store.read_result(folder, s.trial_id) for s in done]
    whole = [r.spec.trial_id for r in results if r is not None and "pruned" not in r.details]
    return tuning.stop_below((store.read_history(folder, i) for i in whole), p.spec.metric)


def _error(p: Plan, a: Mapping[int, str], b: Mapping[int, str]) -> float | None:
    """Standard error of the difference on validation between two settings, from their tries."""
    if p.spec.vary_split and len(p.spec.tuning.seeds) > 1:
        return None  # each seed has rows of its own

    def runs(tries: Mapping[int, str]) -> stats.Runs:
        found = {s: store.read_predictions(p.spec.output_dir, i) for s, i in tries.items()}
        return stats.Runs("", {s: f["validation"] for s, f in found.items()})

    try:
        both = runs(a), runs(b)
    except (OSError, KeyError):  # predictions that are not there any more
        return None
    return stats.standard_error(*both, p.spec.metric, np.random.default_rng(0))


def _record_tuning(p: Plan, proposals: Mapping[str, tuning.Proposals] | None = None) -> None:
    """Write tuning.json from the tries that lie in the folder."""
    t, folder, metric = p.spec.tuning, p.spec.output_dir, p.spec.metric
    higher = METRICS[metric].higher_is_better
    methods: dict[str, tuning.TunedMethod] = {}
    before = _recorded(p)
    for m in p.spec.methods:
        if m.label not in t.spaces:
            continue
        if m.label in before and _settled(p, m, before[m.label]):
            methods[m.label] = before[m.label]  # trials were made with what was chosen
            continue
        if t.budget is None:
            made = _grid_tries(p, m)
        else:
            told = (proposals[m.label] if proposals else _proposals(p, m)).told
            made = [(settings, s) for settings in told for s in _tries_of(p, m, settings)]
        found = [(settings, store.read_result(folder, s.trial_id)) for settings, s in made]
        tries = [tuning.try_of(settings, r, metric) for settings, r in found if r is not None]
        start = _start(p, m)
        # While tries are still to come, the choice is for the eye.
        whole = len(made) >= t.tries(m.label) * len(t.seeds)
        error = {"error": partial(_error, p)} if whole else {}
        chosen, value, reason = tuning.choose_settings(tries, start, higher, **error)
        methods[m.label] = tuning.TunedMethod(
            space=tuning.space_to_json(t.spaces[m.label]),
            start=start,
            chosen=chosen if chosen is not None else start,
            value=value,
            reason=reason,
            tries=tuple(tries),
        )
    search = "grid" if t.budget is None else "optuna"
    record = tuning.TuningRecord(metric, higher, t.seeds, search, t.budget, methods)
    store.write_extra(folder, "tuning", tuning.tuning_to_json(record))
