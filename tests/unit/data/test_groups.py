"""Groups of rows (`group_column`) are never divided between parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import tunelab
from tunelab import data
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset, DataSpec, Fold, Split

WORDS = [
    "river stone lamp", "garden train silver", "window market yellow", "mountain paper violin",
    "harbour candle winter", "basket thunder copper", "ladder orchard saddle",
]  # fmt: skip


def frame(sizes: list[int]) -> pd.DataFrame:
    """Rows of authors with so many rows each, of both classes; one author is not known."""
    rows = [(a, i) for a, n in enumerate(sizes) for i in range(n)]
    return pd.DataFrame(
        {
            "text": [f"{WORDS[i % 7]} {WORDS[a % 7]} {a * 131 + i * 17}" for a, i in rows],
            "label": [["good", "bad"][(a + i) % 2] for a, i in rows],
            "author": [None if a == 3 else f"author {a}" for a, _ in rows],
        }
    )


SIZES = [1, 2, 30, 5, 12, *range(2, 20)]
FRAME = frame(SIZES)


@pytest.fixture(scope="module")
def grouped() -> Dataset:
    return tunelab.load_data(FRAME, group_column="author")


def authors(split: Split) -> set[str]:
    return {str(v) for v in split.columns["author"] if v is not None}


def assert_whole(parts: Dataset) -> None:
    seen = [authors(s) for s in parts.parts.values()]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_parts_that_are_split_off_have_whole_groups(grouped: Dataset) -> None:
    assert_whole(grouped)
    sizes = [len(s) for s in grouped.parts.values()]
    assert sum(sizes) == len(FRAME)
    assert all(0.08 < n / len(FRAME) < 0.22 for n in sizes[1:])
    assert all(len(np.unique(s.labels)) == 2 for s in grouped.parts.values())
    assert any("none is divided between parts" in n for n in grouped.notes)
    # Rows whose author is not known are alone: they may stand anywhere.
    unknown = {p for p, s in grouped.parts.items() if None in s.columns["author"]}
    assert len(unknown) > 1


def test_texts_of_several_labels_are_divided_by_groups_too() -> None:
    sets = [["good", "late"] if i % 3 else ["bad"] for i in range(len(FRAME))]
    several = tunelab.load_data(FRAME.assign(label=sets), group_column="author")
    assert several.task == "multilabel"
    assert_whole(several)


def test_the_largest_group_is_not_always_tested() -> None:
    tested = [
        "author 2" in authors(tunelab.load_data(FRAME, group_column="author", split_seed=s).test)
        for s in range(12)
    ]
    assert 0 < sum(tested) < 6


def test_groups_belong_to_the_identity(grouped: Dataset) -> None:
    assert grouped.fingerprint != tunelab.load_data(FRAME).fingerprint
    again = tunelab.load_data(FRAME, group_column="author")
    assert again.fingerprint == grouped.fingerprint
    assert "group_column" not in DataSpec("rows.csv").to_json()


@pytest.mark.parametrize("seed", range(3))
def test_folds_and_what_is_divided_anew_keep_groups_whole(grouped: Dataset, seed: int) -> None:
    spec = DataSpec("rows.csv", group_column="author", split_seed=seed)
    for number in range(4):
        fold = data.in_fold(grouped, Fold(4, 0, number, together=True), spec)
        assert_whole(fold)
        assert len(fold.validation) > 10
    assert_whole(data.redivided(grouped, seed))
    final = data.all_rows(grouped, spec, together=True)
    assert_whole(final)
    assert len(final.validation) > 10
    assert len(final.train) + len(final.validation) == len(FRAME)


def test_texts_that_are_alike_join_groups() -> None:
    texts = list(FRAME["text"])
    twins = FRAME.assign(text=[texts[-1], *texts[1:]])  # an author's one row stands in another's
    pool = data.tested_rows(tunelab.load_data(twins, group_column="author"))
    number = data.groups_to_keep(pool, 4, "author")
    one, other = (
        {n for n, a in zip(number, pool.columns["author"], strict=True) if a == name}
        for name in ("author 0", f"author {len(SIZES) - 1}")
    )
    assert one == other
    assert len(one) == 1


def test_alike_rows_stay_together_in_what_is_trained_on_all_rows() -> None:
    made = np.random.default_rng(0).integers(0, 400, (80, 9))
    texts = [" ".join(f"w{k}" for k in made[i // 2]) for i in range(160)]
    rows = tunelab.load_data(texts, [["good", "bad"][i // 2 % 2] for i in range(160)])
    group = dict(zip(data.tested_rows(rows).ids, data.groups_to_keep(data.tested_rows(rows), 7),
                     strict=True))  # fmt: skip
    assert len(set(group.values())) < 160
    final = data.all_rows(rows, DataSpec("rows.csv"), together=True)
    seen = [{group[i] for i in s.ids} for s in (final.train, final.validation)]
    assert not seen[0] & seen[1]


def test_parts_of_the_source_that_share_groups_are_said_dropped_or_refused() -> None:
    parts = {"train": FRAME[20:], "validation": FRAME[:60], "test": FRAME[:20]}
    said = tunelab.load_data(parts, group_column="author")
    assert any("rows of their group ('author')" in n for n in said.notes)
    dropped = tunelab.load_data(parts, group_column="author", on_leak="drop")
    held = authors(dropped.validation) | authors(dropped.test)
    assert not authors(dropped.train) & held
    with pytest.raises(DataError, match="rows of their group"):
        tunelab.load_data(parts, group_column="author", on_leak="fail")


@pytest.mark.parametrize(
    ("rows", "column", "said"),
    [
        (FRAME, "writer", r"no column 'writer' \(--group-column\)"),
        (FRAME, "text", "the group column is 'text', which holds the texts or the labels"),
        (FRAME.assign(author=[["a"]] * len(FRAME)), "author", "holds nothing, lists or long texts"),
        (FRAME.assign(author=FRAME["label"]), "author", "has no row in the .* part, since groups"),
    ],
)
def test_what_is_no_column_of_groups_is_refused(rows: object, column: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        tunelab.load_data(rows, group_column=column)


def test_a_study_of_groups_resamples_groups(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from tunelab.analysis.reading import groups_of_rows

    study = tunelab.compare(
        FRAME,
        methods=["svm-tfidf", {"name": "svm-tfidf", "c": 0.01, "label": "stiff"}],
        seeds=2,
        tuning=False,
        group_column="author",
        output_dir=tmp_path / "study",
        engine="inline",
    )
    groups = groups_of_rows(study.record)
    assert groups is not None
    assert set(groups.values()) <= authors(
        Split((), (), np.array([]), {"author": tuple(FRAME["author"])})
    )
    (pair,) = study.summary.comparisons
    assert "groups of one size" in pair.difference.procedure
    assert pair.reason.find("McNemar") < 0
    assert any("resample groups" in line for line in study.summary.warnings)
    with pytest.raises(ValueError, match="as if rows were independent"):
        study.slices()
    with pytest.raises(ValueError, match="race: a race is decided row by row"):
        tunelab.compare(FRAME, group_column="author", race=True)
    trained = replace(study.record.results[0].spec, together=True)
    assert "together" in trained.to_json()
    scored = tunelab.evaluate(
        [study.record.directory / "trials" / r.spec.trial_id for r in study.record.results[::2]],
        FRAME,
        group_column="author",
    )
    assert scored.mcnemar[0].groups == FRAME["author"].nunique() + int(FRAME["author"].isna().sum())
    assert "sign-flip over" in scored.sentences()[-3] + scored.sentences()[-1] + str(
        scored.sentences()
    )
