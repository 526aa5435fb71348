"""Cross-fitting: whether a study tests all of its rows, and which part of them each seed tests."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from tunelab import data
from tunelab.analysis.folds import how_often_tested
from tunelab.core import study_folder
from tunelab.core.values import Dataset, DataSpec, Fold, TrialSpec
from tunelab.core.words import counted, rows_word
from tunelab.data import Gate
from tunelab.data.gate.leaks import joined_leaks
from tunelab.stats import LEAST_SEEDS
from tunelab.study.spec import StudySpec

__all__ = [
    "first_repetition",
    "fold_of",
    "folds_of",
    "gate_of_folds",
    "in_words",
    "loaded_for",
    "loaded_whole",
    "settled",
]


# --- which fold a seed tests ----------------------------------------------------------------


def fold_of(spec: StudySpec, seed: int) -> Fold | None:
    """What a seed of a study tests, by its place among the seeds; None without cross-fitting.

    The first so many seeds are the first repetition. Seeds that are added come after, so that they
    change nothing of those before.
    """
    if spec.parts is None:
        return None
    repetition, number = divmod(spec.seeds.index(seed), spec.parts)
    return Fold(spec.parts, repetition, number, spec.together)


def folds_of(spec: StudySpec) -> tuple[Fold | None, ...]:
    """Every fold that a study tests, in the order of its seeds; None alone without cross-fitting.

    Each is tuned for itself.
    """
    return tuple(dict.fromkeys(fold_of(spec, seed) for seed in spec.seeds))


# --- the data -------------------------------------------------------------------------------


def loaded_whole(spec: DataSpec) -> Dataset:
    """The data set that folds are made of: no row of train is left out yet."""
    return data.load(replace(spec, on_leak="warn", subset=None))


def loaded_for(trial: TrialSpec) -> Dataset:
    """The data set that a trial's rows are taken from (`trial.rows_for_trial`)."""
    divided = trial.fold is not None or trial.purpose == "final"
    return loaded_whole(trial.data) if divided else data.load(trial.data)


def first_repetition(spec: StudySpec, whole: Dataset) -> list[Dataset]:
    """The folds of a study's first repetition; the data as they are without cross-fitting."""
    folds = folds_of(spec)[: spec.parts or 1]
    return [whole if fold is None else data.in_fold(whole, fold, spec.data) for fold in folds]


def in_words(spec: StudySpec, whole: Dataset, first: Dataset) -> str:
    """What cross-fitting does: how often each row is tested, and the rows of a fold."""
    assert spec.parts is not None  # noqa: S101
    said = how_often_tested(spec.parts, len(data.tested_rows(whole)), len(spec.seeds))
    train, validation, test = (f"{len(s):,}" for s in first.parts.values())
    return f"{said}; in each about {train} to train, {validation} to choose on, {test} to test"


# --- before the run -------------------------------------------------------------------------


def settled(spec: StudySpec, dataset: Dataset) -> tuple[StudySpec, Dataset, tuple[str, ...]]:
    """Decide what "auto" means for these data, and look at every fold.

    Gives the spec with the number of folds, the data set that folds are made of (as it is where
    there are none), and notes. Raises DataError where folds were asked for and cannot be made, or
    where `on_leak` is "fail" and a row of a fold stands in the train of it.
    """
    seeds = len(spec.seeds)
    if spec.folds is None or (
        spec.folds == "auto" and (spec.race or spec.vary_split or seeds == 1)
    ):
        return replace(spec, folds=None), dataset, ()
    plain = spec.data.on_leak == "warn" and spec.data.subset is None
    whole = dataset if plain else loaded_whole(spec.data)
    folds, why_not = spec.parts, None
    if folds is None:
        kept = _folds_on_disk(spec, {dataset.fingerprint, whole.fingerprint})
        folds = kept if kept and seeds >= kept else seeds
        why_not = None if folds == kept else _why_one_part(spec, whole, kept)
    if why_not is not None:
        return replace(spec, folds=None), dataset, (why_not,)
    alike, said = _rows_kept_together(whole, folds)
    spec = replace(spec, folds=folds, together=alike)
    return spec, whole, (*said, *_notes_on_folds(spec, whole))


def _rows_kept_together(whole: Dataset, folds: int) -> tuple[bool, tuple[str, ...]]:
    """Whether any rows are alike, so that they stay in one part; and what is said of it."""
    column = whole.group_column
    sizes = np.bincount(data.groups_to_keep(data.tested_rows(whole), folds, column))
    several = sizes[sizes > 1]
    if not len(several):
        return False, ()
    if column is not None:
        return True, (
            f"{rows_word(int(several.sum()))} in {counted(len(several), 'group')} by {column!r}, "
            "or with texts that are alike: a group stays in one part of each fold",
        )
    return True, (
        f"{rows_word(int(several.sum()))} in {counted(len(several), 'group')} of texts that are "
        "alike: a group stays in one part of each fold",
    )


def _why_one_part(spec: StudySpec, whole: Dataset, kept: int | None) -> str | None:
    """Why a study does not test all rows by itself, and what would make it."""
    seeds, all_rows = len(spec.seeds), f"all {len(data.tested_rows(whole)):,} rows"
    if "test" not in whole.split_off:
        return (
            f"the data has a test part: --folds {max(seeds, LEAST_SEEDS)} would test {all_rows} of "
            "train and test instead (cross-fitting)"
        )
    if seeds < LEAST_SEEDS:
        return (
            f"one test part of {rows_word(len(whole.test))}: with --seeds {LEAST_SEEDS} {all_rows} "
            "would be tested (cross-fitting)"
        )
    if kept == 0:
        return (
            f"one test part, as the study in {spec.output_dir} has; in another --output-dir "
            f"{all_rows} would be tested (cross-fitting)"
        )
    if (least := data.least_of_a_class(whole, seeds)) < seeds:
        return (
            f"one test part: a class has {rows_word(least)}, and each of {seeds} folds has to test "
            "one of them"
        )
    return None


def _folds_on_disk(spec: StudySpec, fingerprints: AbstractSet[str]) -> int | None:
    """The folds of the study that lies in the folder (0: one test part); None where none does, or
    it is of other data.
    """
    known_study = study_folder.lying_there(spec.output_dir)
    if known_study is None:
        return None
    settings, card = known_study
    try:
        folds = settings.get("folds", "off")
        known = card["fingerprint"] in fingerprints
    except (LookupError, TypeError, AttributeError):
        return None  # of another version: written anew
    if not known:
        return None
    return folds if isinstance(folds, int) else 0


def _notes_on_folds(spec: StudySpec, whole: Dataset) -> tuple[str, ...]:
    """Make every fold once: what cannot be made is said now. Notes on what is left out of train."""
    if spec.data.on_leak == "warn":
        for fold in filter(None, folds_of(spec)[:1]):
            data.in_fold(whole, fold, spec.data)
        return ()
    left_out = []
    for fold in filter(None, folds_of(spec)):
        asked = replace(spec.data, subset=None)
        rows = [
            len(data.in_fold(whole, fold, s).train) for s in (replace(asked, on_leak="warn"), asked)
        ]
        left_out.append(rows[0] - rows[1])
    if not any(left_out):
        return ()
    return (
        "rows that stand, nearly or in part, in validation or test of a fold are dropped from "
        f"train: {min(left_out):,} to {max(left_out):,} of a fold (on_leak: drop)",
    )


def gate_of_folds(folds: Sequence[Dataset]) -> Gate:
    """What the data gate finds in the first fold, with the leaks of all: rows that stand in the
    train, or in the validation part, of the fold that tests them.
    """
    first = data.inspect(folds[0])
    return joined_leaks(first, [data.inspect(f, ["leak", "conflicts"]) for f in folds[1:]])
