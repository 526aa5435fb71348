"""From labelled rows to train, validation and test parts: stratified, seeded, never overlapping."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import DataError
from tunelab.core.tasks import label_counts, row_codes, strata
from tunelab.core.values import Dataset, DataSpec, Fold, Split
from tunelab.core.words import counted, rows_word
from tunelab.data import duplicates
from tunelab.data.card import count_duplicates
from tunelab.data.groups import dealt_in_groups, group_numbers, groups_of, prefix_of_groups

__all__ = [
    "all_rows",
    "check_groups_of_rows",
    "groups_to_keep",
    "in_fold",
    "least_of_a_class",
    "redivided",
    "said_of_shared_groups",
    "smaller",
    "subset_of_train",
    "tested_rows",
    "three_parts",
    "train_without_leaks",
    "without_leaked_rows",
]


Ints = NDArray[np.int64]

HELD_OUT_PERCENT = 15
PARTS_OF_GROUPS = 7  # into which groups are dealt where one part is split off
VALIDATION_LIMIT = 5_000
_SPLIT_OFF = ("no test part: ", "no validation part: ")  # how notes on parts that are missing begin


# --- parts ----------------------------------------------------------------------------------


def three_parts(
    name: str,
    parts: Mapping[str, Split],
    label_names: Sequence[str],
    spec: DataSpec,
    notes: list[str],
) -> dict[str, Split]:
    """Train, validation and test; a missing one is split off the train part and said."""
    whole, seed = parts["train"], spec.split_seed
    missing = [part for part in ("test", "validation") if part not in parts]
    _enough_rows(name, whole, label_names, missing)
    out = dict(parts)
    if spec.group_column is not None:
        group = group_numbers(whole, spec.group_column)
        said = f"{counted(int(group.max()) + 1, 'group')} of {rows_word(len(whole))}"
        notes.append(
            f"{said} by {spec.group_column!r}: none is divided between parts; rows of one group "
            "say less than as many that are alone: more of them are needed to find a difference"
        )
        dealt = _dealt(whole.divided_by, group, PARTS_OF_GROUPS, seed, "parts")
        for number, part in enumerate(missing):
            out[part] = _take_rows(whole, np.flatnonzero(dealt == number))
            notes.append(
                f"no {part} part: {rows_word(len(out[part]))} split off for it, whole groups "
                f"({len(out[part]) / len(whole):.0%}, split seed {seed})"
            )
        out["train"] = _take_rows(whole, np.flatnonzero(dealt >= len(missing)))
        _classes_everywhere(name, out, label_names, spec.group_column)
        return {part: out[part] for part in ("train", "validation", "test")}
    rows = np.arange(len(whole))
    for part in missing:
        n = (len(whole) * HELD_OUT_PERCENT + 50) // 100
        if part == "validation":
            n = min(n, VALIDATION_LIMIT)
        order = rows[_stratified_order(strata(whole.labels)[rows], seed, part)]
        n = max(n, len(label_names))
        out[part] = _take_rows(whole, order[:n])
        rows = np.sort(order[n:])
        notes.append(
            f"no {part} part: {n:,} of {rows_word(len(whole))} split off for it "
            f"({n / len(whole):.0%}, stratified, split seed {seed})"
        )
    out["train"] = _take_rows(whole, rows)
    return {part: out[part] for part in ("train", "validation", "test")}


def check_groups_of_rows(name: str, parts: Mapping[str, Split], column: str | None) -> None:
    """Raise DataError where rows do not say what they belong to: lists, long texts, or nothing."""
    if column is not None and any(column not in split.columns for split in parts.values()):
        raise DataError(
            f"{name}: column {column!r} (--group-column) holds nothing, lists or long texts in a "
            "part. Expected a short value a row: what rows of one group have in common."
        )


def _dealt(labels: Ints, group: Ints, parts: int, seed: int, purpose: str) -> Ints:
    """The part of each row, (n,), of so many that are about even in every class, groups whole.

    The largest groups are dealt first; which part is called first is drawn, so that it is not the
    one with the largest.
    """
    number = dealt_in_groups(_shuffled_by_class(labels, seed, purpose), labels, group, parts)
    names = _shuffled_by_class(np.zeros(parts, dtype=np.int64), seed, f"{purpose}/order")
    return np.asarray(names[number], dtype=np.int64)


def _classes_everywhere(
    name: str, parts: Mapping[str, Split], label_names: Sequence[str], column: str
) -> None:
    """Raise DataError where the groups of a class are too few to stand in every part."""
    for part, split in parts.items():
        counts = label_counts(split.labels, len(label_names))
        if not min(counts):
            raise DataError(
                f"{name}: class {label_names[int(counts.argmin())]!r} has no row in the {part} "
                f"part, since groups by {column!r} stay whole. Add groups of it, or leave it out "
                "with --drop-classes."
            )


def _enough_rows(
    name: str, whole: Split, label_names: Sequence[str], missing: Sequence[str]
) -> None:
    need = 3 if missing else 2
    counts = label_counts(whole.labels, len(label_names))
    few = [f"{label!r} ({n})" for label, n in zip(label_names, counts, strict=True) if n < need]
    if few:
        why = f"to split off {' and '.join(missing)}" if missing else "in train"
        shown = f"{', '.join(few[:5])}{f' and {len(few) - 5:,} more' if len(few) > 5 else ''}"
        noun = "class" if whole.labels.ndim == 1 else "label"
        classes = f"a {noun} has" if len(few) == 1 else f"{counted(len(few), noun)} have"
        raise DataError(
            f"{name}: {classes} too few rows: {shown}; expected at least {need} of each {why}. "
            f"Add rows, or leave such {'classes' if noun == 'class' else 'labels'} out: "
            f"--min-rows-per-class {need}"
        )


def _stratified_order(labels: NDArray[np.int64], seed: int, purpose: str) -> NDArray[np.int64]:
    """An order of n rows such that every prefix of at least n_classes rows is stratified, (n,).

    Rows of a class are shuffled; the row of rank r among n_c stands at (r + 1/2) / n_c, the
    first of each class before all: Webster's apportionment, whose prefixes are nested, where
    quotas by largest remainder are not (the Alabama paradox). The shuffle sorts by BLAKE2 of seed
    and position: equal on every machine, process and NumPy.
    """
    by_class = _shuffled_by_class(labels, seed, purpose)
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    classes = labels[by_class]
    rank = np.arange(len(labels)) - starts[classes]
    share = (rank + 0.5) / sizes[classes]
    return np.asarray(by_class[np.lexsort((classes, share, rank > 0))], dtype=np.int64)


def _shuffled_by_class(labels: NDArray[np.int64], seed: int, purpose: str) -> NDArray[np.int64]:
    """Rows class by class, shuffled within each, (n,)."""
    shuffle = np.fromiter(
        (
            int.from_bytes(
                hashlib.blake2b(f"{seed}/{purpose}/{i}".encode(), digest_size=8).digest(), "big"
            )
            for i in range(len(labels))
        ),
        dtype=np.uint64,
        count=len(labels),
    )
    return np.asarray(np.lexsort((shuffle, labels)), dtype=np.int64)


def _take_rows(split: Split, rows: NDArray[np.int64]) -> Split:
    """Some rows of a part, in the order of the source."""
    rows = np.sort(rows)
    return Split(
        ids=tuple(split.ids[i] for i in rows),
        texts=tuple(split.texts[i] for i in rows),
        labels=split.labels[rows],
        columns={c: tuple(values[i] for i in rows) for c, values in split.columns.items()},
        before=None if split.before is None else split.before[rows],
        ordered=split.ordered,
    )


def train_without_leaks(
    name: str,
    parts: Mapping[str, Split],
    classes: int,
    spec: DataSpec,
    notes: list[str],
) -> Split:
    """The train part without rows whose text, nearly or in part, is in validation or test.

    Raises DataError where `on_leak` is "fail" and there are such rows, or where none of a class
    would be left.
    """
    train = parts["train"]
    matches = _leaked_from(train, parts["validation"], parts["test"])
    leaked = matches.found | _in_groups_of(train, spec.group_column, parts)
    n = int(leaked.sum())
    if not n:
        return train
    what = f"{rows_word(n)} of the train part stand, nearly or in part, in validation or test too"
    if spec.group_column is not None:
        what += f", or have rows of their group ({spec.group_column!r}) there"
    if spec.on_leak == "fail":
        likest = np.lexsort((-matches.similarity, matches.kind, ~leaked))[: min(n, 5)]
        where = ", ".join(train.ids[i] for i in likest)
        raise DataError(
            f"{name}: {what} (such as {where}): what is measured there is partly memory. Remove "
            "them from train with --on-leak drop, or go on with --on-leak warn."
        )
    kept = _take_rows(train, np.flatnonzero(~leaked))
    counts = label_counts(kept.labels, classes)
    if counts.min() < 2:
        raise DataError(
            f"{name}: {what}; without them a class has {rows_word(int(counts.min()))} in train, "
            "expected at least 2. Add rows, or go on with --on-leak warn."
        )
    notes.append(f"{what}: dropped from train (on_leak: drop)")
    return kept


def _in_groups_of(
    train: Split, column: str | None, parts: Mapping[str, Split]
) -> NDArray[np.bool_]:
    """Which rows of train have rows of their group in validation or test, (n,)."""
    if column is None:
        return np.zeros(len(train), dtype=np.bool_)
    held = {str(v) for p in ("validation", "test") for v in parts[p].columns[column]}
    own = train.columns[column]
    return np.array([v is not None and str(v) in held for v in own], dtype=np.bool_)


def said_of_shared_groups(parts: Mapping[str, Split], spec: DataSpec) -> list[str]:
    """What is said where parts that the source has share groups, and that is not acted on."""
    n = int(_in_groups_of(parts["train"], spec.group_column, parts).sum())
    if not n or spec.on_leak != "warn":
        return []
    return [
        f"{rows_word(n)} of the train part have rows of their group ({spec.group_column!r}) in "
        "validation or test: what is measured there is partly memory (--on-leak drop)"
    ]


def _leaked_from(train: Split, *held_out: Split) -> duplicates.Matches:
    """For each row of train the likest row of the parts held out."""
    texts = [t for split in held_out for t in split.texts]
    labels = row_codes(np.concatenate([split.labels for split in held_out]))
    return duplicates.match(texts, train.texts, (labels, row_codes(train.labels)))


def subset_of_train(
    train: Split, label_names: Sequence[str], spec: DataSpec, notes: list[str]
) -> Split:
    """`spec.subset` rows of the train part, stratified; a smaller subset lies in a larger one."""
    n = spec.subset
    if n is None:
        return train
    if n < len(label_names):
        raise DataError(
            f"--subset {n}: expected at least {len(label_names)}, one row for each class."
        )
    if n >= len(train):
        notes.append(f"subset {n:,}: the train part has {rows_word(len(train))}, all are used")
        return train
    notes.append(
        f"subset: {n:,} of {len(train):,} train rows (stratified, split seed {spec.split_seed})"
    )
    chosen = _stratified_order(train.divided_by, spec.split_seed, "subset")[:n]
    counts = [label_counts(x, len(label_names)) for x in (train.labels, train.labels[chosen])]
    lost = np.flatnonzero((counts[0] > 0) & (counts[1] == 0)).tolist()
    if lost and train.before is not None:
        raise DataError(
            f"--subset {n}: with the labels that were put right, the class "
            f"{label_names[lost[0]]!r} has no row among these. Take a larger subset."
        )
    return _take_rows(train, chosen)


def redivided(dataset: Dataset, seed: int) -> Dataset:
    """The rows of train and validation divided anew, stratified, sizes as before; test stays.

    The seed alone decides, so every method of a study sees the same parts with the same seed. A
    class too rare for its share of a small train part has one row there all the same.
    """
    pool = _joined_splits(dataset.train, dataset.validation)
    n = len(dataset.validation)
    if dataset.group_column is not None:
        group = group_numbers(pool, dataset.group_column)
        dealt = _dealt(pool.divided_by, group, max(2, round(len(pool) / n)), seed, "vary_split")
        divided = {
            "train": _take_rows(pool, np.flatnonzero(dealt > 0)),
            "validation": _take_rows(pool, np.flatnonzero(dealt == 0)),
        }
        _classes_everywhere(dataset.name, divided, dataset.label_names, dataset.group_column)
        return replace(dataset, train=divided["train"], validation=divided["validation"])
    order = _stratified_order(pool.divided_by, seed, "vary_split")
    classes = strata(pool.labels)
    for c in np.setdiff1d(classes, classes[order[n:]]):
        mine = classes[order]
        commonest = np.bincount(mine[n:]).argmax()
        here = np.flatnonzero(mine[:n] == c)[-1]
        there = n + np.flatnonzero(mine[n:] == commonest)[0]
        order[[here, there]] = order[[there, here]]
    return replace(
        dataset, train=_take_rows(pool, order[n:]), validation=_take_rows(pool, order[:n])
    )


def without_leaked_rows(dataset: Dataset) -> Dataset:
    """The same data without training rows whose text, nearly or in part, is in validation or test.

    `load` does that where `on_leak` is "drop"; rows that are divided anew need it again: texts that
    stood twice in train are torn apart, and validation's rows come into train.
    """
    leaked = _leaked_from(dataset.train, dataset.validation, dataset.test).found
    leaked = leaked | _in_groups_of(dataset.train, dataset.group_column, dataset.parts)
    kept = _take_rows(dataset.train, np.flatnonzero(~leaked))
    if label_counts(kept.labels, len(dataset.label_names)).min() < 1:
        raise DataError(
            f"{dataset.name}: {rows_word(int(leaked.sum()))} of train, divided anew, stand in "
            "validation or test too; without them a class has none left. Add rows, or go on with "
            "--on-leak warn."
        )
    return replace(dataset, train=kept)


def smaller(dataset: Dataset, rows: int, seed: int) -> Dataset:
    """The same data with `rows` training rows, stratified; those of fewer rows lie within.

    Raises DataError for fewer rows than classes.
    """
    if rows < len(dataset.label_names):
        raise DataError(
            f"--train-sizes {rows}: expected at least {len(dataset.label_names)}, one row for each "
            "class."
        )
    order = _stratified_order(strata(dataset.train.labels), seed, "train_rows")
    return replace(dataset, train=_take_rows(dataset.train, order[:rows]))


def _joined_splits(a: Split, b: Split) -> Split:
    def column(split: Split, name: str) -> tuple[Any, ...]:
        return tuple(split.columns.get(name, (None,) * len(split)))

    return Split(
        (*a.ids, *b.ids),
        (*a.texts, *b.texts),
        np.concatenate([a.labels, b.labels]),
        {c: (*column(a, c), *column(b, c)) for c in (*a.columns, *b.columns)},
        None if a.before is b.before is None else np.concatenate([a.divided_by, b.divided_by]),
        a.ordered,
    )


# --- cross-fitting: every row is tested once ------------------------------------------------


def tested_rows(dataset: Dataset) -> Split:
    """The labelled rows that cross-fitting divides: those of train, of what was split off it, and
    of a test part that the source has; not of a validation part that it has, which stays.
    """
    pool = dataset.train
    if "validation" in dataset.split_off:
        pool = _joined_splits(pool, dataset.validation)
    return _joined_splits(pool, dataset.test)


def least_of_a_class(dataset: Dataset, parts: int) -> int:
    """How many of `tested_rows` that are not alike, and so can stand in other parts, the rarest
    class has.
    """
    pool = tested_rows(dataset)
    kept = groups_to_keep(pool, parts, dataset.group_column)
    if pool.labels.ndim == 2:
        return min(len(np.unique(kept[has == 1])) for has in pool.labels.T)
    distinct = np.unique(np.stack([pool.labels, kept]), axis=1)[0]
    return int(np.bincount(distinct, minlength=len(dataset.label_names)).min())


def groups_to_keep(pool: Split, parts: int, group_column: str | None = None) -> Ints:
    """A number for each of `tested_rows`, the same for rows that stay in one part of so many since
    they are alike, or of one group: (n,).
    """
    return groups_of(pool, len(pool) // (2 * parts), group_column)


def in_fold(dataset: Dataset, fold: Fold, spec: DataSpec) -> Dataset:
    """The rows of a data set as a fold has them: its part of all rows to test, the rest to train
    and validate on, stratified.

    Parts of a repetition differ by one row at most, overall and in every class, but for groups of
    texts that are alike, which stay whole (`fold.together`). They depend on `split_seed`, the
    repetition, the number of parts and those groups, and on nothing else. Validation, where the
    source has none, is taken from the rest. `on_leak` and `subset` of the spec then hold for this
    fold's train, so `dataset` is one loaded without them. Raises DataError where a class has fewer
    rows than there are parts, and as `load` does.
    """
    pool = tested_rows(dataset)
    need = max(fold.of, 4)
    counts = label_counts(pool.labels, len(dataset.label_names))
    least = least_of_a_class(dataset, fold.of) if fold.together else int(counts.min())
    if least < need:
        unlike = " that are not alike" if fold.together else ""
        unlike += (
            f" and of different groups ({dataset.group_column!r})" if dataset.group_column else ""
        )
        raise DataError(
            f"{dataset.name}: a class has {rows_word(least)}{unlike}; {fold.of} folds need at "
            f"least {need} of each. Add rows, or test on one split with --folds off."
        )
    division = f"folds {fold.of}/{fold.repetition}"
    by_class = _shuffled_by_class(pool.divided_by, spec.split_seed, division)
    group = groups_to_keep(pool, fold.of, dataset.group_column) if fold.together else None
    if group is None:  # dealt out class by class, as cards are
        number = np.empty(len(pool), dtype=np.int64)
        number[by_class] = np.arange(len(pool)) % fold.of
    else:
        number = dealt_in_groups(by_class, pool.divided_by, group, fold.of)
    here = number == fold.number
    parts = {
        "train": _take_rows(pool, np.flatnonzero(~here)),
        "test": _take_rows(pool, np.flatnonzero(here)),
    }
    of_rest = None if group is None else group[~here]
    return _with_validation(dataset, parts, spec, f"{division}/{fold.number}", of_rest)


def all_rows(dataset: Dataset, spec: DataSpec, *, together: bool = False) -> Dataset:
    """All rows of a data set to train and validate on, and none to test: what a cross-fitted study
    trains its final classifier on. `together`: rows that are alike, or of one group, stay so.
    """
    pool = tested_rows(dataset)
    none = _take_rows(pool, np.zeros(0, dtype=np.int64))
    group = groups_to_keep(pool, PARTS_OF_GROUPS, dataset.group_column) if together else None
    return _with_validation(dataset, {"train": pool, "test": none}, spec, "final", group)


def _with_validation(
    dataset: Dataset,
    parts: Mapping[str, Split],
    spec: DataSpec,
    purpose: str,
    group: NDArray[np.int64] | None = None,
) -> Dataset:
    """Validation taken from train (15% of all rows) where the source has none; then train as the
    spec has it. Rows of train with one number of `group` stay together.
    """
    train, validation, test = parts["train"], dataset.validation, parts["test"]
    if "validation" in dataset.split_off:
        n = ((len(train) + len(test)) * HELD_OUT_PERCENT + 50) // 100
        n = max(min(n, VALIDATION_LIMIT), len(dataset.label_names))
        if group is not None and dataset.group_column is not None:
            of = max(2, round(len(train) / n))
            dealt = _dealt(train.divided_by, group, of, spec.split_seed, purpose)
            chosen, left = np.flatnonzero(dealt == 0), np.flatnonzero(dealt > 0)
        else:
            order = _stratified_order(train.divided_by, spec.split_seed, f"{purpose}/validation")
            alone = np.arange(len(train)) if group is None else group
            chosen, left = prefix_of_groups(order, alone, n)
        train, validation = _take_rows(train, left), _take_rows(train, chosen)
    if spec.on_leak != "warn":
        divided = {"train": train, "validation": validation, "test": test}
        train = train_without_leaks(dataset.name, divided, len(dataset.label_names), spec, [])
    train = subset_of_train(train, dataset.label_names, spec, [])
    divided = {"train": train, "validation": validation, "test": test}
    return replace(
        dataset,
        train=train,
        validation=validation,
        test=test,
        notes=tuple(n for n in dataset.notes if not n.startswith(_SPLIT_OFF)),
        duplicates=count_duplicates(divided),
    )
