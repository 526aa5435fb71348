"""What gives a label away without a word: found at three strengths, silent where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tunelab.core.values import Dataset, DataSpec, Split
from tunelab.data import inspect, load
from tunelab.data.gate.values import Finding

Planter = Callable[[Dataset, np.random.Generator, float], Dataset]


@pytest.fixture(scope="module")
def reviews_300() -> Dataset:
    """300 of the bundled reviews: 240 train, 30 validation, 30 test, in random order."""
    whole = load(DataSpec("demo"))
    rng = np.random.default_rng(5)
    parts = {}
    for name, size in (("train", 240), ("validation", 30), ("test", 30)):
        s = whole.parts[name]
        rows = rng.permutation(len(s))[:size]
        # Ids of their own, whose numbers say nothing.
        numbers = rng.permutation(10_000)[:size]
        parts[name] = Split(
            tuple(f"{name}:{i}" for i in numbers),
            tuple(s.texts[i] for i in rows),
            s.labels[rows],
        )
    return replace(whole, name="some", **parts)


def marks(dataset: Dataset, rng: np.random.Generator, strength: float) -> dict[str, np.ndarray]:
    """A coin for each row that tells the label so often."""
    return {
        name: np.where(rng.random(len(s)) < strength, s.labels, 1 - s.labels).astype(bool)
        for name, s in dataset.parts.items()
    }


def with_texts(change: Callable[[str], str]) -> Planter:
    def plant(dataset: Dataset, rng: np.random.Generator, strength: float) -> Dataset:
        marked = marks(dataset, rng, strength)
        return replace(
            dataset,
            **{
                name: replace_texts(
                    s, [change(t) if m else t for t, m in zip(s.texts, marked[name], strict=True)]
                )
                for name, s in dataset.parts.items()
            },
        )

    return plant


def replace_texts(split: Split, texts: list[str]) -> Split:
    return Split(split.ids, tuple(texts), split.labels, split.columns)


def missing_column(dataset: Dataset, rng: np.random.Generator, strength: float) -> Dataset:
    marked = marks(dataset, rng, strength)
    return replace(
        dataset,
        **{
            name: Split(
                s.ids,
                s.texts,
                s.labels,
                {"note": tuple(f"word {rng.integers(900)}" if m else None for m in marked[name])},
            )
            for name, s in dataset.parts.items()
        },
    )


def parity_of_ids(dataset: Dataset, rng: np.random.Generator, strength: float) -> Dataset:
    marked = marks(dataset, rng, strength)
    return replace(
        dataset,
        **{
            name: Split(
                tuple(
                    f"{name}:{2 * int(i) + int(m)}"
                    for i, m in zip(rng.permutation(5000)[: len(s)], marked[name], strict=True)
                ),
                s.texts,
                s.labels,
            )
            for name, s in dataset.parts.items()
        },
    )


def row_order(by: Callable[[np.ndarray], np.ndarray]) -> Planter:
    def plant(dataset: Dataset, rng: np.random.Generator, strength: float) -> Dataset:
        parts = {}
        for name, s in dataset.parts.items():
            coin = np.where(rng.random(len(s)) < strength, s.labels, 1 - s.labels)
            order = np.empty(len(s), dtype=np.int64)
            places = by(np.arange(len(s)))
            wanted = np.argsort(coin, kind="stable")
            order[np.argsort(places, kind="stable")] = wanted
            parts[name] = Split(
                tuple(s.ids[i] for i in order),
                tuple(s.texts[i] for i in order),
                s.labels[order],
            )
        return replace(dataset, **parts)

    return plant


PLANTED: dict[str, tuple[Planter, str]] = {
    "all capitals": (with_texts(str.upper), "letter case"),
    "final mark": (with_texts(lambda t: t.rstrip(".!?") + "!"), "last character"),
    "missing text": (with_texts(lambda _: ""), "missing text"),
    "missing column": (missing_column, "column note"),
    "parity of ids": (parity_of_ids, "row ids"),
    "every other row": (row_order(lambda i: i % 2), "row order"),
    "sorted rows": (row_order(lambda i: i), "row order"),
}


def named(dataset: Dataset) -> dict[str, Finding]:
    return {f.where: f for f in inspect(dataset, ["surface"]).findings}


@pytest.mark.parametrize("strength", [1.0, 0.9, 0.75])
@pytest.mark.parametrize("name", list(PLANTED))
def test_planted_giveaways_are_named(reviews_300: Dataset, name: str, strength: float):
    plant, where = PLANTED[name]
    finding = named(plant(reviews_300, np.random.default_rng(1), strength))[where]
    difference = finding.numbers["within"] - finding.numbers["outside"]
    assert difference == pytest.approx(2 * strength - 1, abs=0.2)
    assert finding.level == ("warning" if where in {"letter case", "last character",
                                                    "missing text"} else "note")  # fmt: skip


def test_nothing_is_named_where_nothing_is(reviews_300: Dataset):
    assert not named(reviews_300)
    assert not named(load(DataSpec("demo:stars")))


def test_permuted_labels_name_nothing(reviews_300: Dataset):
    rng = np.random.default_rng(0)
    for _ in range(30):
        parts = {
            name: Split(s.ids, s.texts, rng.permutation(s.labels))
            for name, s in reviews_300.parts.items()
        }
        assert not named(replace(reviews_300, **parts))


def test_a_number_that_is_a_quantity_is_no_id(reviews_300: Dataset):
    """Prices that end in 9 for one class are a column that tells, not a parity of ids."""
    s = reviews_300.train
    columns = {"stars": tuple(int(1 + y) for y in s.labels)}
    with_stars = replace(reviews_300, train=Split(s.ids, s.texts, s.labels, columns))
    assert "column stars" not in {
        where for where, f in named(with_stars).items() if "even" in f.says
    }
