"""Statistics against scipy and statsmodels."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as sp
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from tunelab.core.values import Predictions
from tunelab.stats import (
    Runs,
    compare,
    detectable_difference,
    holm,
    mcnemar,
    mean_interval,
    sign_flip,
    standard_error,
)
from tunelab.stats.metrics import METRICS
from tunelab.stats.tests import paired_score_variance

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what statsmodels warns about while it is imported
    from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.power import NormalIndPower


@pytest.mark.parametrize("n", [2, 3, 6, 10, 40])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_mean_interval_is_the_t_interval(n, level):
    x = np.random.default_rng(n).normal(0.8, 0.02, n)
    found = mean_interval(x.tolist(), level)
    expected = sp.t.interval(level, n - 1, loc=x.mean(), scale=sp.sem(x))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.value == pytest.approx(x.mean())


def test_standard_error_of_a_difference_in_accuracy_is_that_of_a_paired_mean():
    r = np.random.default_rng(0)
    n = 500
    labels = r.integers(0, 2, n)
    runs = []
    for right in (r.random(n) < 0.8, r.random(n) < 0.7):
        says = np.where(right, labels, 1 - labels)
        scores = np.stack([1.0 - says, 1.0 * says], axis=1)
        ids = tuple(map(str, range(n)))
        runs.append((Runs("", {0: Predictions(ids, labels, scores, "probability")}), right))
    (a, right_a), (b, right_b) = runs
    found = standard_error(a, b, "accuracy", np.random.default_rng(1), resamples=4000)
    expected = np.hypot(sp.sem(right_a.astype(float) - right_b), 1 / (n + 2))
    assert found == pytest.approx(expected, rel=0.03)
    # A second seed that broke down makes the mean worse, and not less sure of that.
    broken = replace(a.by_seed[0], scores=np.roll(a.by_seed[0].scores, 7, axis=0))
    twice = Runs("", {0: a.by_seed[0], 1: broken}), Runs("", {0: b.by_seed[0], 1: b.by_seed[0]})
    assert standard_error(*twice, "accuracy", np.random.default_rng(1)) < 1.2 * expected


@pytest.mark.parametrize("seed", range(12))
def test_sign_flip_is_the_paired_permutation_test(seed):
    r = np.random.default_rng(seed)
    n = int(r.integers(2, 11))
    # Accuracies on few rows: many differences are tied or zero.
    a, b = r.integers(40, 50, n) / 50, r.integers(38, 48, n) / 50
    expected = sp.permutation_test(
        (a, b),
        lambda x, y: abs(np.mean(x - y)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=False,
    )
    assert sign_flip(a - b) == pytest.approx(expected.pvalue)


def test_sampled_sign_flip_is_near_the_exact_one():
    d = np.random.default_rng(3).normal(0.4, 1, 16)
    exact = sign_flip(d)
    padded = np.concatenate([d, np.zeros(4)])  # zeros change nothing but force sampling
    assert sign_flip(padded, np.random.default_rng(0)) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_holm_is_that_of_statsmodels(seed):
    r = np.random.default_rng(seed)
    p = r.random(int(r.integers(1, 12))) ** 3
    p = p.round(2)  # ties
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("seed", range(10))
def test_mcnemar_is_that_of_statsmodels(seed):
    r = np.random.default_rng(seed)
    n = int(r.choice([5, 50, 500]))
    a, b = r.random(n) < 0.9, r.random(n) < r.choice([0.7, 0.9])
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert mcnemar(a, b) == pytest.approx(sm_mcnemar(table, exact=True).pvalue)
    assert mcnemar(a, a) == 1.0


@pytest.mark.parametrize("n", [100, 872, 25_000])
def test_detectable_difference_has_the_power_it_claims(n):
    effect = detectable_difference(n, 6) / np.sqrt(0.08)
    # One-sample z test: statsmodels writes it as two samples, the second of infinite size.
    power = NormalIndPower(ddof=0).power(effect, n, 0.05, ratio=0, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=1e-3)


def test_row_variance_of_one_seed_is_that_of_a_paired_t_test():
    r = np.random.default_rng(1)
    n = 1000
    labels = r.integers(0, 2, n)
    ids = tuple(map(str, range(n)))

    def method(name, accuracy):
        predicted = np.where(r.random(n) < accuracy, labels, 1 - labels)
        p = Predictions(ids, labels, np.eye(2)[predicted], "probability")
        return Runs(name, {0: p})

    a, b = method("a", 0.85), method("b", 0.8)
    hits = [(m.by_seed[0].predicted == labels).astype(float) for m in (a, b)]
    expected = sp.ttest_rel(*hits).confidence_interval()
    found = compare(a, b, "accuracy", np.random.default_rng(0)).difference
    width = expected.high - expected.low
    assert found.value == pytest.approx(hits[0].mean() - hits[1].mean())
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


def test_bootstrap_of_a_metric_without_counts_is_near_scipys():
    r = np.random.default_rng(2)
    n = 400
    labels = r.integers(0, 2, n)
    ids = tuple(map(str, range(n)))
    logits = [r.normal(size=(n, 2)) + s * np.eye(2)[labels] for s in (2.0, 1.0)]
    a, b = (
        Runs(name, {0: Predictions(ids, labels, x, "logit")})
        for name, x in zip("ab", logits, strict=True)
    )
    loss = METRICS["log_loss"].function
    d = [
        loss(Predictions((), labels[[i]], logits[0][[i]], "logit"))
        - loss(Predictions((), labels[[i]], logits[1][[i]], "logit"))
        for i in range(n)
    ]
    expected = sp.bootstrap((np.array(d),), np.mean, method="basic", rng=3, n_resamples=2000)
    found = compare(a, b, "log_loss", np.random.default_rng(0)).difference
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.high - found.low == pytest.approx(width, rel=0.2)


@pytest.mark.parametrize(("n", "p"), [(3, 0.25), (5, 0.0625), (6, 0.031), (10, 0.002)])
def test_smallest_sign_flip_p_is_the_published_one_and_scipys(n, p):
    d = np.linspace(0.01, 0.02, n)
    expected = sp.permutation_test(
        (d, np.zeros(n)),
        lambda x, y: abs(np.mean(x - y)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=False,
    )
    assert sign_flip(d) == pytest.approx(expected.pvalue)
    assert round(sign_flip(d), 4 if n == 5 else 3) == p


@pytest.mark.parametrize("dual", [True, False])
def test_a_real_svm_is_deterministic_over_seeds(dual):
    from sklearn.svm import LinearSVC

    r = np.random.default_rng(7)
    n = 400
    x = r.normal(size=(2 * n, 30))
    y = (x[:, 0] + r.normal(size=2 * n) > 0).astype(np.int64)
    ids = tuple(map(str, range(n)))

    def svm(label, columns):
        def scores(seed):
            model = LinearSVC(C=0.05, dual=dual, random_state=seed, max_iter=20_000).fit(
                x[:n, columns], y[:n]
            )
            margin = model.decision_function(x[n:, columns])
            return np.stack([-margin, margin], axis=1)

        return Runs(label, {s: Predictions(ids, y[n:], scores(s), "margin") for s in range(3)})

    c = compare(
        svm("good", slice(0, 30)), svm("poor", slice(1, 30)), "accuracy", np.random.default_rng(0)
    )
    assert "McNemar" in c.reason
    assert c.verdict == "better"
    assert "every seed predicts the same" in c.sentence


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (6, 0), (3, 9), (1, 1), (0, 12)])
@pytest.mark.parametrize("difference", [-0.03, -0.01, 0.0, 0.02])
def test_tangos_variance_is_that_of_the_most_likely_table(only_a, only_b, difference):
    rows = 200

    def log_likelihood(q):  # q: the share of rows on which b alone is right
        p = q + difference
        rest = rows - only_a - only_b
        return -(xlogy(only_a, p) + xlogy(only_b, q) + xlogy(rest, 1 - p - q))

    low, high = max(0.0, -difference), (1 - difference) / 2
    best = minimize_scalar(
        log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    expected = (2 * best.x + difference - difference**2) / rows
    found = paired_score_variance(only_a / rows, only_b / rows, rows, difference)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)
