"""Several data sets: ranks and tests against scipy and Demsar's example, verdicts, words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as sp

from studies import METHODS, make_study
from tunelab.analysis import ranks
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import read_study
from tunelab.core.values import Estimate

# Demsar 2006, table 6: AUC of four variants of C4.5 on 14 data sets.
DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip


def test_ranks_and_friedman_are_those_of_demsar() -> None:
    found = ranks.rank_rows(DEMSAR)
    assert found.mean(axis=0).round(3) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=6e-4)
    chi2, f, p = ranks.friedman(found)
    expected = sp.friedmanchisquare(*DEMSAR.T)
    assert chi2 == pytest.approx(expected.statistic)
    # Demsar prints 9.28, without the correction for ties, which can only make it larger.
    plain = 12 * 14 / (4 * 5) * (float((found.mean(axis=0) ** 2).sum()) - 4 * 5**2 / 4)
    assert plain == pytest.approx(9.28, abs=0.005)
    assert chi2 > plain
    assert f == pytest.approx(13 * chi2 / (14 * 3 - chi2))
    assert p == pytest.approx(sp.f.sf(f, 3, 39))
    # Demsar: q = 2.569, so the critical difference of 4 methods on 14 data sets is 1.25.
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [6, 12, 40])
def test_wilcoxon_is_scipys(n: int, seed: int) -> None:
    d = np.random.default_rng(seed).normal(0.3, 1, size=n)
    method = "exact" if n <= 16 else "asymptotic"
    expected = sp.wilcoxon(d, method=method, correction=False).pvalue
    assert ranks.wilcoxon(d) == pytest.approx(expected)
    assert ranks.wilcoxon(np.zeros(n)) == 1.0


def table(scores: np.ndarray, names: str = "abcd") -> dict[str, dict[str, Estimate]]:
    return {
        f"data{i}": {
            m: Estimate(float(v), None, None, 1, "") for m, v in zip(names, row, strict=True)
        }
        for i, row in enumerate(scores)
    }


def test_a_method_ahead_on_six_data_sets_is_better_and_on_five_undecided() -> None:
    scores = np.tile([0.9, 0.8], (6, 1)) + 0.01 * np.arange(6)[:, None] * [1, 0]
    found = ranks.rank_values(table(scores, "ab"), "accuracy")
    assert found.ranks == {"a": 1.0, "b": 2.0}
    assert found.wins == {"a": 6, "b": 0}
    assert found.friedman_p is None
    assert found.pairs[0].p_value == 2 / 2**6
    assert found.pairs[0].verdict == "better"
    few = ranks.rank_values(table(scores[:5], "ab"), "accuracy")
    assert few.pairs[0].verdict == "undecided"
    assert any("at least 6 are needed" in s for s in few.sentences)


def test_means_of_the_same_values_in_another_order_are_tied() -> None:
    one, other = float(np.mean([0.1, 0.2, 0.3])), float(np.mean([0.3, 0.2, 0.1]))
    assert one != other
    assert ranks.rank_rows(np.array([[one, other]])).tolist() == [[1.5, 1.5]]


def test_the_test_of_scores_says_who_is_better_where_ranks_among_many_say_otherwise() -> None:
    # a is ahead of b on 12 data sets with nobody between, and behind on two by less, with ten.
    far = 1 + np.arange(10)
    rows = [[0.5 + 0.01 * (i + 1), 0.5, *(0.9 + 0.001 * far)] for i in range(12)]
    rows += [[0.5, 0.5 + x, *(0.5 + x * far / 12)] for x in (0.001, 0.002)]
    names = "abcdefghijkl"
    found = ranks.rank_values(table(np.array(rows), names), "accuracy")
    assert found.ranks["a"] > found.ranks["b"]
    pair = next(p for p in found.pairs if {p.a, p.b} == {"a", "b"})
    assert pair.p_value <= 0.05
    assert (pair.a, pair.verdict) == ("b", "worse")
    down = ranks.rank_values(table(-np.array(rows), names), "log_loss")
    assert next(p for p in down.pairs if {p.a, p.b} == {"a", "b"}).verdict == "worse"


def test_many_data_sets_in_balance_have_a_p_of_one() -> None:
    scores = 0.5 + 0.1 * np.array([[1, 0], [0, 1]] * 10)
    assert ranks.rank_values(table(scores, "ab"), "accuracy").pairs[0].p_value == 1.0


def test_lower_is_better_turns_the_ranks_round() -> None:
    scores = np.tile([0.3, 0.5, 0.7], (7, 1))
    up = ranks.rank_values(table(scores, "abc"), "accuracy")
    down = ranks.rank_values(table(scores, "abc"), "log_loss")
    assert up.methods == tuple("cba")
    assert down.methods == tuple("abc")
    assert down.friedman_p == pytest.approx((1 / 6) ** 6)  # seven data sets agree
    assert down.sentences[0].startswith("a has the best average rank by log loss: 1.00 of 3")


def test_null_data_sets_are_told_apart_in_five_of_a_hundred() -> None:
    rng = np.random.default_rng(0)
    said, differ = 0, 0
    for _ in range(400):
        found = ranks.rank_values(table(rng.normal(size=(10, 4))), "accuracy")
        said += any(p.verdict != "undecided" for p in found.pairs)
        differ += found.friedman_p is not None and found.friedman_p <= 0.05
    assert said / 400 <= 0.05 + 0.022  # two standard errors
    assert 0.05 - 0.022 <= differ / 400 <= 0.05 + 0.022


def test_studies_are_ranked_by_the_methods_they_share(tmp_path: Path) -> None:
    records = []
    for i in range(6):
        methods = METHODS if i else METHODS[1:]
        card = {"fingerprint": f"{i}" * 64}
        folder = make_study(tmp_path / str(i), methods=methods, source=f"d{i}.csv", data=card)
        records.append(read_study(folder))
    found = ranks.rank_studies(records)
    assert set(found.methods) == {"svm", "full", "lora"}
    assert found.left_out == ("svm-tfidf",)
    assert len(found.datasets) == 6
    headings, rows = ranks.ranks_for_display(found)
    assert [len(row) for row in rows] == [len(headings)] * 3
    assert sum(found.ranks.values()) == pytest.approx(6)
    with pytest.raises(ConfigError, match=r"has the same data as"):
        ranks.rank_studies([records[1], replace(records[2], data=records[1].data)])
    with pytest.raises(ConfigError, match=r"found 3 and 1"):
        ranks.rank_studies(records[:1])
