"""Cross-fitting divides all rows into parts, each of which is tested once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import reviews, write_csv
from tunelab import data
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset, DataSpec, Duplicates, Fold, Split

SPEC = DataSpec("rows.csv")


def part(labels: list[int], name: str) -> Split:
    ids = tuple(f"{name}:{i}" for i in range(len(labels)))
    texts = tuple(f"{name} {i}" for i in range(len(labels)))
    return Split(ids, texts, np.array(labels, dtype=np.int64), {"row": tuple(range(len(labels)))})


def dataset(
    labels: list[int], split_off: tuple[str, ...] = ("test", "validation"), classes: int = 2
) -> Dataset:
    """A data set whose train has these labels; its other parts have one row of each class."""
    few = list(range(classes))
    return Dataset(
        name="rows",
        revision=None,
        label_names=tuple(map(str, few)),
        train=part(labels, "train"),
        validation=part(few, "validation"),
        test=part(few, "test"),
        fingerprint="f" * 64,
        text_column="text",
        label_column="label",
        notes=("no test part: 2 of 9 rows split off for it", "kept"),
        duplicates=Duplicates({}, {}, 0),
        split_off=split_off,
    )


divisions = st.tuples(
    st.integers(2, 7),
    st.lists(st.integers(10, 60), min_size=2, max_size=4),
    st.integers(0, 3),
    st.integers(0, 99),
)


@given(divisions)
@settings(max_examples=40, deadline=None)
def test_every_row_is_tested_once_and_every_part_is_stratified(division):
    of, sizes, repetition, split_seed = division
    labels = [c for c, n in enumerate(sizes) for _ in range(n)]
    rows = dataset(labels, classes=len(sizes))
    spec = replace(SPEC, split_seed=split_seed)
    folds = [data.in_fold(rows, Fold(of, repetition, k), spec) for k in range(of)]
    pool = data.tested_rows(rows)
    tested = [i for f in folds for i in f.test.ids]
    assert Counter(tested) == Counter(pool.ids)
    counts = np.array([np.bincount(f.test.labels, minlength=len(sizes)) for f in folds])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1
    for f in folds:
        parts = [set(s.ids) for s in f.parts.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(pool)
        for s in f.parts.values():
            assert set(s.labels) == set(range(len(sizes)))
        # A row keeps what belongs to it.
        for s in f.parts.values():
            assert all(t == i.replace(":", " ") for i, t in zip(s.ids, s.texts, strict=True))
            assert all(
                int(i.split(":")[1]) == r for i, r in zip(s.ids, s.columns["row"], strict=True)
            )


def test_a_division_depends_on_split_seed_repetition_and_number_of_parts_alone():
    rows = dataset([0, 1] * 60)

    def division(split_seed: int = 0, repetition: int = 0, of: int = 6) -> list[tuple[str, ...]]:
        spec = replace(SPEC, split_seed=split_seed)
        return [data.in_fold(rows, Fold(of, repetition, k), spec).test.ids for k in range(of)]

    assert division() == division()
    others = [division(split_seed=1), division(repetition=1), division(of=5)]
    assert all(set(division()).isdisjoint(other) for other in others)
    # Pinned: the same on every machine, and in every version.
    first = data.in_fold(rows, Fold(6, 0, 0), SPEC)
    assert first.test.ids[:6] == PINNED


PINNED = ("train:10", "train:13", "train:14", "train:16", "train:19", "train:20")


def test_a_validation_part_of_the_source_stays_and_a_test_part_joins_the_rows():
    own = dataset([0, 1] * 30, split_off=())
    for k in range(3):
        fold = data.in_fold(own, Fold(3, 0, k), SPEC)
        assert fold.validation is own.validation
        assert not set(fold.test.ids) & set(own.validation.ids)
    assert set(data.tested_rows(own).ids) == {*own.train.ids, *own.test.ids}
    split = dataset([0, 1] * 30)
    assert len(data.tested_rows(split)) == 64
    assert data.in_fold(split, Fold(3, 0, 0), SPEC).notes == ("kept",)


def test_what_is_trained_on_all_rows_leaves_none_to_test():
    rows = dataset([0, 1] * 60)
    whole = data.all_rows(rows, SPEC)
    assert len(whole.test) == 0
    assert {*whole.train.ids, *whole.validation.ids} == set(data.tested_rows(rows).ids)
    assert len(whole.validation) == 19  # 15% of 124


def test_a_class_with_fewer_rows_than_parts_is_refused_in_one_line():
    rare = dataset([0] * 40 + [1] * 3)
    assert data.least_of_a_class(rare, 6) == 5
    with pytest.raises(DataError, match=r"rows: a class has 5 rows; 6 folds need at least 6"):
        data.in_fold(rare, Fold(6, 0, 0), SPEC)


def test_rows_that_stand_in_test_too_are_kept_out_of_the_train_of_each_fold(tmp_path):
    rows = reviews(60)
    twice = [*rows, *rows[:12]]
    path = write_csv(tmp_path / "r.csv", twice, ["text", "label"])
    spec = DataSpec(str(path))
    whole = data.load(spec)

    def leaked(f: Dataset) -> int:
        held_out = {*f.test.texts, *f.validation.texts}
        return sum(t in held_out for t in f.train.texts)

    as_it_is = [data.in_fold(whole, Fold(4, 0, k), spec) for k in range(4)]
    assert sum(map(leaked, as_it_is)) > 0
    apart = [data.in_fold(whole, Fold(4, 0, k), replace(spec, on_leak="drop")) for k in range(4)]
    assert [leaked(f) for f in apart] == [0, 0, 0, 0]
    # What is left out of train is tested all the same.
    assert Counter(i for f in apart for i in f.test.ids) == Counter(data.tested_rows(whole).ids)
    first = next(k for k in range(4) if leaked(as_it_is[k]))
    with pytest.raises(DataError, match="in validation or test too"):
        data.in_fold(whole, Fold(4, 0, first), replace(spec, on_leak="fail"))


@pytest.mark.parametrize("of", [2, 6])
def test_texts_that_are_alike_stay_in_one_part_of_a_fold(tmp_path, of):
    rows = reviews(140)
    near = [(f"{t.rsplit(' ', 1)[0]} altogether", y) for t, y in rows[:20]]  # the last word differs
    chained = [(f"{rows[k][0]} And then {rows[k + 1][0]}", rows[k][1]) for k in (30, 31, 32)]
    path = write_csv(
        tmp_path / "r.csv", [*rows, *rows[10:40], *rows[38:40], *near, *chained], ["text", "label"]
    )
    spec = DataSpec(str(path))
    whole = data.load(spec)
    pool = data.tested_rows(whole)
    group = dict(zip(pool.ids, data.groups_to_keep(pool, of).tolist(), strict=True))
    sizes = np.bincount(list(group.values()))
    assert len(pool) == 195
    assert {2, 3} <= set(sizes.tolist()) and sizes.max() > 4  # noqa: PT018
    for repetition in (0, 1):
        folds = [
            data.in_fold(whole, Fold(of, repetition, k, together=True), spec) for k in range(of)
        ]
        assert Counter(i for f in folds for i in f.test.ids) == Counter(pool.ids)
        for f in folds:
            parts = [{group[i] for i in part.ids} for part in f.parts.values()]
            assert sum(map(len, parts)) == len(set.union(*parts))  # no group stands in two
            assert not data.inspect(f, ["leak"]).of("leak")
            assert abs(len(f.validation) - 29) <= sizes.max()
        counts = np.array([np.bincount(f.test.labels, minlength=2) for f in folds])
        assert np.ptp(counts, axis=0).max() <= 2
    other = data.in_fold(whole, Fold(of, 1, 0, together=True), spec)
    assert other.test.ids != data.in_fold(whole, Fold(of, 0, 0, together=True), spec).test.ids


def test_a_template_that_no_part_can_hold_is_dealt_out_as_other_rows_are(tmp_path):
    rows = [*reviews(80), *[("the same text of these rows", "0")] * 40]
    path = write_csv(tmp_path / "r.csv", rows, ["text", "label"])
    pool = data.tested_rows(data.load(DataSpec(str(path))))
    assert np.bincount(data.groups_to_keep(pool, 4)).max() == 1


def test_a_subset_is_of_the_train_of_each_fold():
    rows = dataset([0, 1] * 60)
    small = data.in_fold(rows, Fold(4, 0, 1), replace(SPEC, subset=20))
    large = data.in_fold(rows, Fold(4, 0, 1), SPEC)
    assert len(small.train) == 20
    assert small.test.ids == large.test.ids
    assert set(small.train.ids) < set(large.train.ids)
