"""Texts that are the same or nearly: found where planted, and nowhere else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tunelab.data import duplicates
from tunelab.data.duplicates import NEAR, find_twins, match, normalise, similarity

WORDS = [f"{a}{b}{c}" for a in ("ba", "ko", "mi", "ru", "ste") for b in ("lo", "na", "pri", "vu")
         for c in ("m", "nt", "r", "sk", "x")]  # fmt: skip


def sentences(n: int, length: int = 15, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(n)]


def shingles(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + 5] for i in range(len(padded) - 4)}


def slow_jaccard(a: str, b: str) -> float:
    left, right = shingles(normalise(a)), shingles(normalise(b))
    return len(left & right) / len(left | right)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("A quiet, wonderful film.", "a quiet wonderful FILM!"),
        ("A<br />line", "a line"),
        ("Tom &amp; Jerry", "tom jerry"),
        ("It's fine", "its fine"),
        ("It’s fine", "It's fine"),  # noqa: RUF001
        ("caf\u00e9", "cafe\u0301"),
        ("ＦＵＬＬ width", "full width"),  # noqa: RUF001
        ("über_gut", "Über gut"),
    ],
)
def test_same_but_for_marks(a: str, b: str):
    assert normalise(a) == normalise(b)
    assert similarity(a, b) == 1.0


@pytest.mark.parametrize(
    ("a", "b"), [("!!!", "???"), ("😀", "😢"), ("not good", "good"), ("1", "2")]
)
def test_not_the_same(a: str, b: str):
    assert normalise(a) != normalise(b)
    assert len(find_twins([a, b]).first) == 2


def test_similarity_is_jaccard_of_shingles():
    texts = sentences(12, 10)
    texts += [t[:-8] for t in texts] + [t.replace("o", "a") for t in texts]
    for a, b in combinations(texts, 2):
        assert similarity(a, b) == pytest.approx(slow_jaccard(a, b), abs=1e-12)


def test_similarity_of_long_texts_is_estimated_well():
    errors = []
    for i, text in enumerate(sentences(20, 400, seed=3)):
        words = text.split()
        other = " ".join(words[: 360 - 5 * i] + sentences(1, 60, seed=99 + i)[0].split())
        errors.append(similarity(text, other) - slow_jaccard(text, other))
    assert np.abs(errors).max() < 0.12
    assert abs(np.mean(errors)) < 0.03


def test_finds_the_pairs_that_comparing_all_finds():
    base = sentences(150)
    rng = np.random.default_rng(1)
    texts = list(base)
    for text in base[:90]:
        words = text.split()
        for i in rng.choice(len(words), rng.integers(1, 5), replace=False):
            words[i] = str(rng.choice(WORDS))
        texts.append(" ".join(words))
    twins = find_twins(texts)
    rows = np.sort(twins.first[twins.pairs], axis=1)
    found = {(int(a), int(b)) for a, b in rows}
    true = {
        (i, j): value
        for i, j in combinations(range(len(texts)), 2)
        if NEAR <= (value := slow_jaccard(texts[i], texts[j])) < 1
    }
    assert len(true) > 50
    assert found <= set(true)
    assert found >= {pair for pair, value in true.items() if value >= NEAR + 0.05}
    assert len(found) >= 0.97 * len(true)  # MinHash finds 99.6% of the pairs at the very limit
    for (a, b), s in zip(rows, twins.similarity, strict=True):
        assert s == pytest.approx(slow_jaccard(texts[a], texts[b]))


def test_groups_and_matches():
    texts = ["One two three, four five six.", "other words entirely, all of them",
             "one two three four five six", "one two three four five sixx"]  # fmt: skip
    twins = find_twins(texts)
    assert twins.group.tolist() == [0, 1, 0, 2]
    assert twins.first.tolist() == [0, 1, 3]
    assert twins.pairs.tolist() == [[0, 2]]
    found = match(texts[:2], [*texts[2:], "nothing like it at all here"])
    assert found.row.tolist() == [0, 0, -1]
    assert found.similarity[0] == 1.0
    assert NEAR <= found.similarity[1] < 1.0
    assert found.similarity[2] == 0.0
    assert found.found.tolist() == [True, True, False]


def test_the_likest_reference_wins():
    reference = ["alpha beta gamma delta epsilon zeta eta theta iota",
                 "alpha beta gamma delta epsilon zeta eta theta kappa"]  # fmt: skip
    found = match(reference, ["alpha beta gamma delta epsilon zeta eta theta kappa mu"])
    assert found.row.tolist() == [1]


def test_nothing_and_little():
    assert find_twins([]).pairs.shape == (0, 2)
    assert match([], ["a"]).row.tolist() == [-1]
    assert match(["a"], []).row.shape == (0,)
    assert find_twins(["", " ", "."]).group.tolist() == [0, 0, 1]


def test_templates_fill_a_bucket_and_stay_cheap():
    texts = [
        f"the staff at hotel number {i} was friendly and the room was clean" for i in range(1500)
    ]
    twins = find_twins(texts)
    assert len(twins.pairs) < 40 * duplicates.COMPARED_NEIGHBOURS * len(texts)
    linked = np.zeros(len(texts), dtype=bool)
    linked[twins.pairs.ravel()] = True
    assert linked.mean() > 0.99
