"""What is meant: methods x settings x seeds -> the trials of a study."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tunelab import data
from tunelab.core import files, study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.forms import lacking_packages
from tunelab.core.plain import SettingValues
from tunelab.core.text_lengths import TextLengths
from tunelab.core.values import Dataset, DataSpec, Fold, MethodSpec, TrialSpec
from tunelab.core.words import counted
from tunelab.data import Gate, behaviour
from tunelab.data.gate.values import gate_from_json
from tunelab.data.given import given_as
from tunelab.methods import METHODS, check, notes, said_before
from tunelab.models import bases
from tunelab.study import folding, limits, space, trackers
from tunelab.study.spec import MOST_TRIALS, StudySpec
from tunelab.study.trial import make_spec

__all__ = [
    "Plan",
    "check_place",
    "count_trials",
    "expand",
    "grid_tries",
    "keep_given",
    "plan",
    "start_settings",
    "trial_of",
    "tries_of",
]


# --- the plan: what is meant ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a study means to do, however far it is: its data, base, methods and protocol.

    `gate` says what is wrong with the data; `sizes` are the learning curves' numbers of training
    rows, below all; `others` the data that every trained classifier is scored on too; `behaviour`
    the cases of its behaviour tests, as they are kept, None where it has none; `lengths` what the
    methods' limits cut of the training texts, None where none reads them through a base. Where all
    rows are tested in folds, `dataset` has the parts of the first fold, and `whole` is what folds
    are made of; else it is the same.
    """

    spec: StudySpec
    dataset: Dataset
    whole: Dataset
    base: bases.Base | None
    gate: Gate
    sizes: tuple[int, ...] = ()
    others: tuple[data.OtherData, ...] = ()
    behaviour: Mapping[str, object] | None = None
    lengths: TextLengths | None = None
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> Dataset:
        """The data with every row that some trial tests in the test part."""
        if self.spec.parts is None:
            return self.dataset
        rows = data.tested_rows(self.whole)
        own = "validation" not in self.whole.split_off
        rest = (
            self.whole.validation
            if own
            else data.all_rows(self.whole, self.spec.data, together=False).test
        )
        return replace(self.whole, validation=rest, test=rows)


def plan(spec: StudySpec, yes: bool = False) -> Plan:
    """Load the data and the base, and check what can be checked.

    Raises InputError before anything is written or trained.
    """
    count = count_trials(spec)
    if count > MOST_TRIALS and not yes:
        raise ConfigError(
            f"This study has {counted(count, 'trial')} ({counted(len(spec.methods), 'method')} x "
            f"{counted(len(spec.seeds), 'seed')}), more than {MOST_TRIALS:,}. Make the grid "
            "smaller, or confirm with --yes."
        )
    trackers.require(spec.report_to)
    for form in spec.export:  # before hours of training, not after
        if (lacking := lacking_packages(form)) is not None:
            raise ConfigError(lacking)
    folder = spec.output_dir
    check_place(folder)
    if folder.is_dir() and not study_folder.may_hold_study(folder) | study_folder.is_study(folder):
        raise ConfigError(
            f"{folder}: not empty, and not a study, so nothing is written into it. "
            "Choose another folder with --output-dir."
        )
    spec, whole, said = folding.settled(spec, data.load(spec.data))
    folds = folding.first_repetition(spec, whole)
    dataset = folds[0]
    seen = dataset.train if spec.parts is None else data.tested_rows(whole)
    others = tuple(data.load_other(d, dataset.label_names, seen) for d in spec.test_on)
    base = bases.resolve(spec.model, spec.trust_remote_code) if spec.needs_base else None
    spec, lengths = limits.with_limits(spec, base, seen.texts, dataset.fingerprint)
    if base:
        for m in _every_setting(spec):
            check(base, m, dataset.label_names)
    gate = _known_or_new_gate(folder, folds)
    cases = _behaviour_cases(spec, dataset)
    sizes, of_sizes = _curve_sizes(spec, dataset)
    scored = (*dataset.validation.texts, *dataset.test.texts)
    said = (*said, *of_sizes, *said_before(spec.methods, scored))
    if base:
        said = (*notes(base, spec.methods, dataset.label_names), *said)
    return Plan(spec, dataset, whole, base, gate, sizes, others, cases, lengths, said)


def keep_given(plan: Plan) -> Plan:
    """The plan with rows that were given in Python kept in its folder, where trials find them now
    and whenever the study goes on. Files there are called by their content, so none is replaced.
    """
    spec = plan.spec
    own = spec.output_dir / study_folder.GIVEN_ROWS
    return replace(
        plan,
        spec=replace(
            spec,
            data=_kept_in(own, spec.data),
            test_on=tuple(_kept_in(own, other) for other in spec.test_on),
        ),
    )


def _kept_in(folder: Path, of: DataSpec) -> DataSpec:
    rows = Path(of.source)
    if given_as(rows) is None:
        return of
    kept = folder / rows.name
    if rows.is_file() and not kept.exists():
        files.write_bytes(kept, rows.read_bytes())
    elif rows.is_dir() and not kept.exists():
        files.make_folder(folder)
        with files.replacing_folder(kept) as draft:
            shutil.copytree(rows, draft, dirs_exist_ok=True)
    return replace(of, source=str(kept))


def count_trials(spec: StudySpec) -> int:
    """How many trials a study has, tries of settings included."""
    tries = sum(spec.tuning.tries(m.label) for m in spec.methods) * len(spec.tuning.seeds)
    tries *= len(folding.folds_of(spec))
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


def _known_or_new_gate(folder: Path, folds: Sequence[Dataset]) -> Gate:
    """What the data gate finds, in one division of the data or in every fold; read from the study
    where these data were looked at before.
    """
    known = study_folder.known_extra(folder, "gate", lambda kept: (gate_from_json(kept), kept))
    if known is not None:
        gate, kept = known
        if (gate.fingerprint, kept.get("folds", 1)) == (folds[0].fingerprint, len(folds)):
            return gate
    return folding.gate_of_folds(folds)


def _behaviour_cases(spec: StudySpec, dataset: Dataset) -> Mapping[str, object] | None:
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
    methods: Mapping[Fold | None, Sequence[MethodSpec]] | None = None,
    sizes: Sequence[int | None] = (None,),
) -> tuple[TrialSpec, ...]:
    """All trials of a study: seed by seed, so that every method has one result early.

    `methods` by fold (None: there are none) are the study's own where left out; `sizes` numbers of
    training rows, None for all.
    """
    return tuple(
        trial_of(plan, m, seed, fold, train_rows=size)
        for seed in plan.spec.seeds
        for fold in [folding.fold_of(plan.spec, seed)]
        for size in sizes
        for m in (methods[fold] if methods else plan.spec.methods)
    )


def trial_of(
    plan: Plan,
    method: MethodSpec,
    seed: int,
    fold: Fold | None = None,
    *,
    train_rows: int | None = None,
    purpose: Literal["trial", "tuning", "final"] = "trial",
) -> TrialSpec:
    """One trial of a study. On other data are scored those on all rows."""
    spec, base = plan.spec, plan.base
    full = train_rows is None and purpose == "trial"
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
        fold=fold,
        together=spec.together and purpose == "final",
    )


def grid_tries(
    plan: Plan, m: MethodSpec, fold: Fold | None = None
) -> list[tuple[SettingValues, TrialSpec]]:
    """Every setting of a method's grid, with each tuning seed: (setting, its try)."""
    points = space.grid_points(plan.spec.tuning.spaces[m.label])
    return [(point, t) for point in points for t in tries_of(plan, m, point, fold)]


def tries_of(
    plan: Plan, m: MethodSpec, settings: SettingValues, fold: Fold | None = None
) -> list[TrialSpec]:
    """One setting with each tuning seed, in a fold where there are folds."""
    method = MethodSpec(m.name, m.label, {**m.settings, **settings})
    return [trial_of(plan, method, seed, fold, purpose="tuning") for seed in plan.spec.tuning.seeds]


def start_settings(plan: Plan, m: MethodSpec) -> SettingValues:
    """A method's own values of what is tuned: where tuning starts."""
    return {k: m.settings[k] for k in plan.spec.tuning.spaces[m.label]}
