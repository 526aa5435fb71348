"""stats: intervals, pairing, verdicts and what they say; coverage by simulation."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from tunelab.core.values import Predictions
from tunelab.stats import (
    Runs,
    compare,
    compare_all,
    components,
    detectable_difference,
    difference,
    holm,
    mcnemar,
    mean,
    mean_interval,
    means,
    rows_needed,
    seeds_needed,
    sign_flip,
)
from tunelab.stats.metrics import METRICS, metrics_of


def rng(seed=0):
    return np.random.default_rng(seed)


def runs(label, labels, predicted_by_seed, *, kind="probability", ids=None):
    labels = np.asarray(labels, dtype=np.int64)
    ids = ids or tuple(f"r{i}" for i in range(len(labels)))
    return Runs(
        label,
        {
            seed: Predictions(ids, labels, np.eye(2)[np.asarray(predicted)], kind)
            for seed, predicted in predicted_by_seed.items()
        },
    )


def pair(accuracy_a, accuracy_b, *, seeds, rows, seed_sd=0.01, seed=0, item_sd=2.0):
    """Two methods whose true accuracies are known, with effects of rows, seeds and the rest."""
    r = rng(seed)
    labels = r.integers(0, 2, rows)
    item, own_sd = item_sd * r.normal(size=rows), 0.7
    total = math.sqrt(1 + item_sd**2 + own_sd**2)
    out = []
    for name, accuracy in (("a", accuracy_a), ("b", accuracy_b)):
        at = norm.ppf(accuracy)
        sd = seed_sd / norm.pdf(at) * total
        at *= math.sqrt(total**2 + sd**2)
        own = own_sd * r.normal(size=rows)
        by_seed = {}
        for s in range(seeds):
            right = at + sd * r.normal() + item + own + r.normal(size=rows) > 0
            by_seed[s] = np.where(right, labels, 1 - labels)
        out.append(runs(name, labels, by_seed))
    return out


def test_a_difference_of_shares_ends_where_none_can_be():
    labels = [0, 1]
    a, b = runs("a", labels, {0: [0, 0]}), runs("b", labels, {0: [1, 1]})
    for metric, most in (("accuracy", 1.0), ("f1_macro", 1.0)):
        d = difference(a, b, metric, rng())
        assert (d.low, d.high) == (-most, most)
    (found,) = compare_all([a, b], "accuracy", rng())
    assert "95% interval -100.0 to +100.0" in found.sentence
    assert METRICS["log_loss"].percent is False


# --- one method -----------------------------------------------------------------------------


def test_mean_interval_of_one_seed_has_no_interval():
    e = mean_interval([0.8])
    assert (e.value, e.low, e.high, e.n) == (0.8, None, None, 1)
    assert e.procedure == "one seed: no interval"


def test_mean_interval_of_equal_values_is_exact():
    e = mean_interval([0.1, 0.1, 0.1])
    assert e.value == e.low == e.high == 0.1
    assert "same value" in e.procedure


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [math.inf]])
def test_mean_interval_refuses_what_it_cannot_average(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(bad)


def test_mean_interval_of_a_cost_does_not_go_below_zero():
    assert mean_interval([0.1, 2.0, 0.2]).low == 0.0
    assert mean_interval([-1.0, 1.0]).low < 0


def test_mean_interval_of_differences_is_not_cut_at_zero():
    half = 12.706 * np.std([0.05, 0.5], ddof=1) / math.sqrt(2)
    assert mean_interval([0.05, 0.5], signed=True).low == pytest.approx(0.275 - half, abs=1e-3)


def test_a_method_whose_scores_hardly_move_has_its_mean_over_seeds_and_an_interval_of_rows():
    r = rng(3)
    labels = r.integers(0, 2, 300)
    s = r.normal(size=300) + 0.8 * (2 * labels - 1)
    found = {}
    for seed in range(6):
        moved = s + 1e-4 * r.normal(size=300)
        scores = np.stack([-moved, moved], axis=1)
        found[seed] = Predictions(tuple(map(str, range(300))), labels, scores, "logit")
    e = mean(Runs("a", found), "log_loss", rng())
    assert e.value == np.mean([METRICS["log_loss"].function(p) for p in found.values()])
    assert e.high - e.low > 0.1


@pytest.mark.parametrize("metric", sorted(metrics_of("classes")))
def test_the_mean_of_any_metric_counts_seeds_and_rows(metric):
    r = rng(1)
    labels = r.integers(0, 3, 120)
    ids = tuple(map(str, range(120)))
    by_seed = {
        s: Predictions(ids, labels, r.normal(size=(120, 3)) + np.eye(3)[labels], "logit")
        for s in range(4)
    }
    e = mean(Runs("a", by_seed), metric, rng())
    if metric == "ece":  # of all seeds together, and silent on 120 rows: see test_reliability
        assert (e.low, e.high) == (None, None)
        assert means([Runs("a", by_seed)], [metric], rng())["a", metric] == e
        return
    values = [METRICS[metric].function(p) for p in by_seed.values()]
    assert e.value == pytest.approx(np.mean(values))
    assert e.n == 4
    assert e.high - e.low > 2 * 1.96 * np.std(values, ddof=1) / 2  # wider than seeds alone
    assert means([Runs("a", by_seed)], [metric], rng())["a", metric] == e


def test_the_mean_of_a_deterministic_method_is_as_sure_as_its_rows():
    labels = np.array([0, 1] * 200)
    wrong = np.where(np.arange(400) < 40, 1 - labels, labels)
    e = mean(runs("svm", labels, dict.fromkeys(range(3), wrong)), "accuracy", rng(), resamples=4000)
    ends = proportion_confint(360, 400, method="wilson")
    assert (e.low, e.high) == pytest.approx(ends, abs=0.002)
    one = mean(runs("svm", labels, {0: wrong}), "accuracy", rng())
    assert (one.low, one.high) == (None, None)


# A calibration error leaves a row's own luck out, which a row that was drawn twice has twice: it
# has a test of its own (test_reliability).
@pytest.mark.parametrize(
    "metric", sorted({m.name for m in metrics_of("classes").values() if m.weighted} - {"ece"})
)
@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_weighted_metrics_equal_the_metric_of_the_rows_drawn(metric, kind):
    r = rng(3)
    for k in (2, 3):
        labels = r.integers(0, k, 60)
        scores = r.normal(size=(60, k)).round(1)  # ties
        if kind == "probability":
            scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        p = Predictions(tuple(map(str, range(60))), labels, scores, kind)
        index = r.integers(0, 60, size=(40, 60))
        times = np.stack([np.bincount(i, minlength=60) for i in index], axis=1).astype(float)
        row = METRICS[metric]
        slow = [row.function(Predictions((), labels[i], scores[i], kind)) for i in index]
        assert row.weighted(p, times) == pytest.approx(slow)


# --- pairing --------------------------------------------------------------------------------


def test_only_shared_seeds_are_compared():
    labels = [0, 1] * 20
    right, wrong = labels, [1 - y for y in labels]
    a = runs("a", labels, {0: right, 1: right, 7: wrong})
    b = runs("b", labels, {1: right, 0: right, 5: wrong})
    e = difference(a, b, "accuracy", rng())
    assert e.n == 2
    assert e.value == 0.0


def test_other_rows_or_labels_are_refused():
    labels = np.array([0, 1, 1, 0])
    a = runs("lora", labels, {3: labels})
    cases = [
        (runs("svm", labels, {3: labels}, ids=("r0", "r1", "r2", "x")), "other test rows"),
        (runs("svm", labels[:3], {3: labels[:3]}), "other test rows.*3 and 4"),
        (runs("svm", 1 - labels, {3: labels}), "other labels"),
    ]
    for b, text in cases:
        for call in (difference, compare):
            with pytest.raises(ValueError, match=rf"svm \(seed 3\) has {text}"):
                call(a, b, "accuracy", rng())
        with pytest.raises(ValueError, match=text):
            compare_all([a, b], "accuracy", rng())


def test_no_seed_in_common():
    labels = [0, 1, 1, 0]
    a, b = runs("a", labels, {0: labels}), runs("b", labels, {1: labels, 2: labels})
    for call in (difference, compare):
        with pytest.raises(ValueError, match=r"a and b have no seed in common.*\[0\].*\[1, 2\]"):
            call(a, b, "accuracy", rng())
    assert compare_all([a, b], "accuracy", rng()) == []


def test_a_metric_without_a_value_or_a_name():
    labels = [0, 1, 1, 0]
    a = runs("a", labels, {0: labels, 1: labels})
    svm = runs("svm", labels, {0: labels, 1: labels}, kind="margin")
    with pytest.raises(ValueError, match="margins"):
        compare(a, svm, "log_loss", rng())
    with pytest.raises(ValueError, match="margins"):
        difference(a, svm, "log_loss", rng())
    with pytest.raises(ValueError, match="unknown metric 'acc'; known: accuracy"):
        compare(a, svm, "acc", rng())
    others = [dataclasses.replace(a, label=x) for x in "bc"]
    found = compare_all([a, svm, *others], "log_loss", rng())
    assert [(c.a, c.b) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_diverged_scores_are_refused():
    a, b = pair(0.9, 0.8, seeds=2, rows=20)
    a.by_seed[1].scores[3, 0] = np.nan
    with pytest.raises(ValueError, match="diverged"):
        compare_all([a, b], "accuracy", rng())


# --- the interval ---------------------------------------------------------------------------


@pytest.mark.parametrize("metric", sorted(metrics_of("classes")))
def test_every_metric_can_be_compared(metric):
    r = rng(1)
    labels = r.integers(0, 3, 90)
    both = []
    for name, skill in (("a", 1.5), ("b", 0.5)):
        by_seed = {}
        for s in range(3):
            logits = r.normal(size=(90, 3)) + skill * np.eye(3)[labels]
            by_seed[s] = Predictions(tuple(map(str, range(90))), labels, logits, "logit")
        both.append(Runs(name, by_seed))
    e = difference(*both, metric, rng())
    function = METRICS[metric].function
    expected = np.mean(
        [function(both[0].by_seed[s]) - function(both[1].by_seed[s]) for s in (0, 1, 2)]
    )
    assert e.value == pytest.approx(expected)
    assert e.low < e.value < e.high
    assert e.n == 3


def test_the_fast_way_equals_the_slow_way():
    a, b = pair(0.9, 0.8, seeds=3, rows=80)
    for name in ("accuracy", "f1_macro", "mcc", "precision_weighted"):
        fast = difference(a, b, name, rng(5), resamples=150)
        row = METRICS[name]
        try:
            METRICS[name] = dataclasses.replace(row, from_counts=None, weighted=None)
            slow = difference(a, b, name, rng(5), resamples=150)
        finally:
            METRICS[name] = row
        assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)


def test_same_rng_same_interval_and_swapping_changes_only_the_sign():
    a, b = pair(0.9, 0.85, seeds=4, rows=100)
    one, two = (difference(a, b, "accuracy", rng(3)) for _ in range(2))
    assert one == two
    back = difference(b, a, "accuracy", rng(3))
    assert (back.value, back.low, back.high) == pytest.approx((-one.value, -one.high, -one.low))


def test_one_seed_is_a_bootstrap_of_rows_and_says_so():
    a, b = pair(0.9, 0.85, seeds=1, rows=400)
    e = difference(a, b, "accuracy", rng())
    d = np.subtract(
        *((p.predicted == p.labels).astype(float) for p in (a.by_seed[0], b.by_seed[0]))
    )
    half = 1.96 * d.std(ddof=1) / math.sqrt(400)
    assert e.high - e.value == pytest.approx(half, rel=0.08)
    assert "one seed" in e.procedure


def test_interval_narrows_with_seeds_but_not_below_what_rows_leave():
    few = difference(*pair(0.85, 0.85, seeds=3, rows=300), "accuracy", rng())
    a, b = pair(0.85, 0.85, seeds=60, rows=300)
    many = difference(a, b, "accuracy", rng())
    right = [[p.predicted == p.labels for p in m.by_seed.values()] for m in (a, b)]
    by_row = np.mean(right[0], axis=0) - np.mean(right[1], axis=0)
    rows = 1.96 * by_row.std(ddof=1) / math.sqrt(300)
    assert 0.97 * rows < many.high - many.value < few.high - few.value
    assert many.high - many.value < 1.2 * rows


def test_where_seeds_are_the_noise_the_interval_is_that_of_two_samples_of_seeds():
    # Each method's seeds scatter by themselves: Welch's standard error. Its degrees of freedom are
    # between those of one method and of both; a little fewer, since variances are not known.
    a, b = pair(0.8, 0.8, seeds=5, rows=5000, seed_sd=0.08)
    e = difference(a, b, "accuracy", rng())
    right = [[np.mean(p.predicted == p.labels) for p in m.by_seed.values()] for m in (a, b)]
    assert e.value == pytest.approx(np.mean(right[0]) - np.mean(right[1]))
    error = math.sqrt(sum(np.var(r, ddof=1) / 5 for r in right))
    half = (e.high - e.low) / 2 / error
    assert t.ppf(0.975, 8) * 0.97 < half < t.ppf(0.975, 4) * 1.05


def test_agreement_on_few_rows_is_not_known_equality():
    labels = [0, 1] * 5
    a, b = (runs(x, labels, dict.fromkeys(range(6), labels)) for x in "ab")
    c = compare(a, b, "accuracy", rng())
    assert c.difference.low < -0.05
    assert c.difference.high > 0.05
    assert c.verdict == "undecided"


def test_one_row_has_no_interval():
    a = runs("a", [1], {s: [1] for s in range(6)})
    b = runs("b", [1], {s: [0] for s in range(6)})
    c = compare(a, b, "accuracy", rng())
    assert (c.difference.value, c.difference.low, c.difference.high) == (1.0, None, None)
    assert c.verdict == "undecided"
    assert c.p_value is None
    assert "one test row" in c.difference.procedure
    assert c.sentence == "a and b cannot be told apart: +100.0 points, no interval (one test row)"


def test_resamples_without_a_class_are_left_out():
    r = rng(2)
    labels = np.array([1] + [0] * 19)  # a third of all resamples lack class 1
    both = [
        Runs(
            name,
            {
                s: Predictions(tuple(map(str, range(20))), labels, r.normal(size=(20, 2)), "logit")
                for s in range(2)
            },
        )
        for name in "ab"
    ]
    e = difference(*both, "roc_auc", rng())
    assert np.isfinite([e.value, e.low, e.high]).all()


def coverage(studies, seeds, rows, truth=0.01, **effects):
    hits = 0
    for i in range(studies):
        a, b = pair(0.86, 0.86 - truth, seeds=seeds, rows=rows, seed=1000 + i, **effects)
        e = difference(a, b, "accuracy", rng(i), resamples=300)
        hits += e.low <= truth <= e.high
    return hits / studies


def test_coverage_of_the_interval():
    assert 0.89 <= coverage(120, seeds=6, rows=300) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("rows", [300, 1000])
@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_coverage_is_close_to_95_percent(seeds, rows):
    # 400 studies: the standard error of a coverage of 0.95 is 0.011.
    assert 0.92 <= coverage(400, seeds, rows) <= 0.99


# --- tests over seeds -----------------------------------------------------------------------


def test_sign_flip_smallest_p():
    for n, p in ((1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)):
        assert sign_flip([0.01 + 0.001 * i for i in range(n)]) == p
    assert sign_flip([0.1] * 16) == 2 / 2**16
    assert sign_flip([0.0] * 6) == 1.0


def test_sign_flip_counts_ties_in_spite_of_rounding():
    # 0.1 + 0.2 - 0.3 is not 0 in floating point; all sums of equal size must count.
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip([0.3, -0.1, -0.2]) == 1.0


def test_sign_flip_of_many_seeds_draws():
    d = rng(1).normal(0.3, 1, size=20)
    with pytest.raises(ValueError, match="pass an rng"):
        sign_flip(d)
    p = sign_flip(d, rng(2))
    assert p == sign_flip(d, rng(2))
    assert 0 < sign_flip(np.ones(20), rng(3)) < 0.001
    with pytest.raises(ValueError, match="at least one"):
        sign_flip([])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# --- verdicts -------------------------------------------------------------------------------


def test_five_seeds_are_never_enough_six_are():
    for seeds, verdict in ((5, "undecided"), (6, "better")):
        a, b = pair(0.95, 0.7, seeds=seeds, rows=500)
        c = compare(a, b, "accuracy", rng())
        assert c.verdict == verdict
        assert compare(b, a, "accuracy", rng()).verdict == verdict.replace("better", "worse")
    assert c.p_seeds == 0.03125
    assert c.p_value < 1e-6
    assert c.seeds_needed is c.rows_needed is None


def test_seeds_that_agree_on_few_rows_are_not_enough():
    # Every one of 8 seeds favours a, by the same two rows of 40: other rows may say otherwise.
    labels = np.zeros(40, dtype=int)
    flip = np.zeros((8, 40), dtype=int)
    flip[:, :2] = 1
    for s in range(8):  # and an error that both share, so that seeds differ
        flip[s, 10 + s] = 1
    shared = flip.copy()
    shared[:, :2] = 0
    a, b = runs("a", labels, dict(enumerate(shared))), runs("b", labels, dict(enumerate(flip)))
    c = compare(a, b, "accuracy", rng())
    assert c.p_seeds == 2 / 2**8
    assert c.p_value > 0.05
    assert c.difference.low < 0
    assert c.verdict == "undecided"
    assert c.seeds_needed is None
    assert c.rows_needed > 20
    assert "more test rows are needed: about" in c.reason
    assert c.sentence.endswith(f"needs about {40 + c.rows_needed} test rows instead of 40 to tell")


def test_lower_is_better_turns_the_verdict_round():
    r = rng(4)
    labels = r.integers(0, 2, 300)
    both = []
    for name, skill in (("sharp", 3.0), ("dull", 0.3)):
        by_seed = {
            s: Predictions(
                tuple(map(str, range(300))),
                labels,
                r.normal(size=(300, 2)) * 0.5 + skill * np.eye(2)[labels],
                "logit",
            )
            for s in range(6)
        }
        both.append(Runs(name, by_seed))
    c = compare(*both, "log_loss", rng())
    assert c.difference.value < 0
    assert c.verdict == "better"
    assert "points" not in c.sentence
    assert "lower is better" in c.sentence
    assert compare(*both, "roc_auc", rng()).verdict == "better"


def test_equivalent_needs_six_seeds_and_enough_rows():
    for seeds, rows, verdict in (
        (6, 8000, "equivalent"),
        (5, 8000, "undecided"),
        (6, 100, "undecided"),
    ):
        a, b = pair(0.9, 0.9, seeds=seeds, rows=rows, seed_sd=0.001)
        assert compare(a, b, "accuracy", rng()).verdict == verdict, (seeds, rows)
    wide = compare(*pair(0.9, 0.9, seeds=6, rows=100), "accuracy", rng(), margin=0.2)
    assert wide.verdict == "equivalent"
    assert "equivalent within 20 points: " in wide.sentence


def test_equivalence_rests_on_the_90_percent_interval():
    a, b = pair(0.9, 0.9, seeds=6, rows=1000, seed_sd=0.001)
    at_90, at_95 = (difference(a, b, "accuracy", rng(), level=x) for x in (0.9, 0.95))
    need = [max(-e.low, e.high) for e in (at_90, at_95)]
    for margin, verdict in (
        (0.99 * need[0], "undecided"),
        ((need[0] + need[1]) / 2, "equivalent"),
        (1.01 * need[1], "equivalent"),
    ):
        assert compare(a, b, "accuracy", rng(), margin=margin).verdict == verdict


def test_deterministic_methods_are_tested_over_rows():
    r = rng(5)
    labels = r.integers(0, 2, 400)
    a = np.where(r.random(400) < 0.9, labels, 1 - labels)
    b = np.where(r.random(400) < 0.7, labels, 1 - labels)
    fixed = [runs(n, labels, dict.fromkeys(range(3), p)) for n, p in (("a", a), ("b", b))]
    c = compare(*fixed, "accuracy", rng())
    assert c.verdict == "better"
    assert "McNemar" in c.reason
    assert "McNemar" in c.sentence
    assert "every seed predicts the same" in c.sentence
    assert "seeds carry no spread" in c.difference.procedure
    assert compare(*fixed, "f1_macro", rng()).verdict == "better"
    once = [runs(x.label, labels, {0: x.by_seed[0].predicted}) for x in fixed]
    assert compare(*once, "accuracy", rng()).verdict == "undecided"  # not known to repeat


def test_a_small_difference_of_many_rows_is_not_said_to_be_nothing():
    labels = np.arange(200_000) % 2
    right = [np.arange(200_000) >= n for n in (1000, 1080)]
    a, b = (
        runs(x, labels, dict.fromkeys((0, 1), np.where(r, labels, 1 - labels)))
        for x, r in zip("ab", right, strict=True)
    )
    c = compare(a, b, "accuracy", rng(), margin=1e-4)
    assert c.sentence.startswith("a is better than b: +0.04 points (95% interval +0.03 to +0.05, p")


def test_methods_are_deterministic_up_to_the_last_digits_of_their_scores():
    r = rng(6)
    labels = r.integers(0, 2, 300)
    scores = [r.normal(size=(300, 2)) + 2 * np.eye(2)[labels], r.normal(size=(300, 2))]
    ids = tuple(map(str, range(300)))

    def with_noise(noise):
        return [
            Runs(
                name,
                {
                    s: Predictions(ids, labels, x + noise * r.normal(size=2), "margin")
                    for s in (0, 1)
                },
            )
            for name, x in zip("ab", scores, strict=True)
        ]

    assert "McNemar" in compare(*with_noise(1e-6), "accuracy", rng()).reason
    assert "McNemar" not in compare(*with_noise(0.3), "accuracy", rng()).reason


def test_one_deterministic_method_against_one_that_is_not():
    a, b = pair(0.95, 0.7, seeds=6, rows=500)
    fixed = Runs("b", dict.fromkeys(range(6), b.by_seed[0]))
    c = compare(a, fixed, "accuracy", rng())
    assert c.reason == "p by t test over seeds and test rows"
    assert c.verdict == "better"


def test_two_copies_of_one_method():
    a, _ = pair(0.9, 0.8, seeds=6, rows=300)
    c = compare(a, dataclasses.replace(a, label="copy"), "accuracy", rng())
    assert c.difference.value == 0
    assert c.p_value == 1.0
    assert c.verdict == "equivalent"
    assert "0.0 points" in c.sentence
    assert "+0.0" not in c.sentence
    assert "-0.0" not in c.sentence


def three(seeds, rows=400, skills=(0.95, 0.6, 0.8)):
    """Three methods on the same rows: a, b and c."""
    found = [pair(x, 0.7, seeds=seeds, rows=rows, seed=0)[0] for x in skills]
    return [dataclasses.replace(r, label=x) for r, x in zip(found, "abc", strict=True)]


def test_six_seeds_are_enough_with_many_pairs_and_five_never():
    # The sign-flip is not corrected: Holm's correction is of the test over seeds and rows.
    for seeds, verdict in ((5, "undecided"), (6, "better")):
        found = compare_all(three(seeds), "accuracy", rng())
        assert [(x.a, x.b) for x in found] == [("a", "b"), ("a", "c"), ("b", "c")]
        assert found[0].verdict == verdict
        assert found[0].p_seeds == 2 ** (1 - seeds)
        if seeds == 5:
            assert found[0].seeds_needed == 1
            assert "5 seeds: at least 6 are needed before tunelab says better" in found[0].sentence


def test_p_values_hold_for_all_pairs_and_intervals_of_all_pairs_agree_with_them():
    methods = three(6, rows=150, skills=(0.9, 0.84, 0.82))
    together = compare_all(methods, "accuracy", rng())
    raw = [c.p_value for c in (compare(*ab, "accuracy", rng()) for ab in pairs_of(methods))]
    for c, by_holm in zip(together, holm(raw), strict=True):
        # Pairs hang together and methods help each other: no more than Holm's of each pair alone.
        assert c.p_value <= 1.5 * by_holm + 1e-3
        low, high = c.simultaneous
        assert low <= c.difference.low
        assert high >= c.difference.high
        assert (low > 0 or high < 0) <= (c.p_value <= 0.05)


def pairs_of(methods):
    return itertools.combinations(methods, 2)


def test_alone_the_interval_of_all_pairs_is_the_interval():
    one = compare(*three(6, rows=150)[:2], "accuracy", rng())
    assert one.simultaneous == pytest.approx((one.difference.low, one.difference.high))


def test_a_pair_that_only_holm_tells_apart_has_an_interval_that_ends_at_zero():
    # Three pairs, two of them clear: Holm tests the third at 5%, Bonferroni at 1.7%.
    for seed in range(60):
        one = pair(0.9, 0.86, seeds=6, rows=400, seed=seed)
        far = dataclasses.replace(pair(0.6, 0.5, seeds=6, rows=400, seed=seed)[0], label="far")
        c = compare_all([*one, far], "accuracy", rng())[0]
        if 0.05 / 3 < c.p_value <= 0.05:
            assert c.simultaneous[0] == 0.0
            assert c.difference.low > 0
            return
    pytest.fail("no study of 60 was between the two corrections")


def test_one_seed_a_hair_behind_does_not_forbid_a_clear_difference():
    # Five seeds far ahead and one a hair behind: signs alone say 4 / 2^6, the sizes are sure.
    labels = np.array([0, 1] * 500)
    by_seed = {s: np.where(np.arange(1000) < 80 + 2 * s, 1 - labels, labels) for s in range(6)}
    by_seed[5] = np.where(np.arange(1000) < 9, 1 - labels, labels)
    a = runs("a", labels, {s: np.where(np.arange(1000) < 10, 1 - labels, labels) for s in by_seed})
    c = compare(a, runs("b", labels, by_seed), "accuracy", rng())
    assert c.p_seeds == 4 / 2**6
    assert c.verdict == "better"


def test_compare_all_of_one_or_no_runs_is_empty():
    a, _ = pair(0.9, 0.8, seeds=2, rows=30)
    assert compare_all([a], "accuracy", rng()) == []
    assert compare_all([], "accuracy", rng()) == []
    assert compare_all([a, Runs("failed", {})], "accuracy", rng()) == []


# --- how much more --------------------------------------------------------------------------


def test_seeds_needed_makes_the_interval_exclude_zero():
    more, _ = seeds_needed(0.01, 0.02**2, 0.003**2, seeds=4, rows=1000)
    assert 14 <= more <= 24
    total = 4 + more
    assert 1.96 * math.sqrt(0.02**2 / total + 0.003**2) < 0.01
    assert seeds_needed(0.1, 1e-6, 1e-6, seeds=3, rows=1000)[0] == 3  # six are needed in any case
    assert seeds_needed(0.01, 0.02**2, 0.003**2, seeds=4, rows=1000, pairs=6)[0] > more
    assert seeds_needed(0.0, 0.02**2, 0.001**2, seeds=4, rows=1000, margin=0.01)[0] is not None


def test_rows_needed_makes_the_interval_exclude_zero_or_fit_the_margin():
    more, reason = rows_needed(0.01, 0.004**2, 0.01**2, seeds=6, rows=500)
    assert f"{500 + more:,}" in reason
    variance = 0.004**2 / 6 + 0.01**2 * 500 / (500 + more)
    assert 0.95 < 1.97 * math.sqrt(variance) / 0.01 < 1.0  # rounded up to two digits
    more, _ = rows_needed(0.0, 0.0, 0.01**2, seeds=6, rows=500, margin=0.01)
    assert 1.64 * 0.01 * math.sqrt(500 / (500 + more)) == pytest.approx(0.01, rel=0.05)
    both = rows_needed(0.01, 0.03**2, 0.01**2, seeds=6, rows=500)
    assert both[0] is None
    assert re.fullmatch(r"more test rows are needed: about [\d,]+, and \d+ seeds", both[1])
    assert rows_needed(0.0, 0.1, 0.1, seeds=6, rows=5) == (None, "no difference was observed")
    assert rows_needed(0.1, None, 0.1, seeds=1, rows=5)[0] is None


def test_rows_not_seeds_where_rows_are_the_noise():
    more, reason = seeds_needed(0.01, 1e-8, 0.01**2, seeds=6, rows=500)
    assert more is None
    assert reason == "more test rows are needed: about 2,000"  # 500 * 1.96^2 = 1,921
    found = int(reason.rsplit(" ", 1)[1].replace(",", ""))
    assert seeds_needed(0.01, 1e-8, 0.01**2 * 500 / found, seeds=6, rows=found)[0] is not None


def test_what_no_number_of_seeds_can_tell():
    assert seeds_needed(0.0, 1.0, 1.0, seeds=3, rows=10) == (None, "no difference was observed")
    assert seeds_needed(0.1, None, 1.0, seeds=1, rows=10)[0] is None
    more, reason = seeds_needed(1e-4, 0.1**2, 1e-12, seeds=3, rows=10)
    assert (more, reason) == (None, "more than 1,000 more seeds are needed")
    assert "more than 10,000,000" in seeds_needed(1e-7, 0.1**2, 0.01, seeds=3, rows=100)[1]


def test_the_components_of_a_difference_are_found_again():
    """Rows on which every seed agrees, rows that a seed decides, and seeds better than others."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        row = rng.choice([-1.0, 0.0, 1.0], p=[0.03, 0.94, 0.03], size=400)  # variance 0.06
        own = rng.choice([-1.0, 0.0, 1.0], p=[0.02, 0.96, 0.02], size=(6, 400))  # 0.04
        found.append(components(row + own + 0.02 * rng.normal(size=(6, 1))))
    within, common, seed = np.mean(found, axis=0)
    assert within == pytest.approx(0.1, rel=0.03)
    assert common == pytest.approx(0.06, rel=0.05)
    assert seed**0.5 == pytest.approx(0.02, rel=0.1)
    same = np.repeat(row[None], 3, axis=0)
    assert components(same) == pytest.approx((row.var(ddof=1), row.var(ddof=1), 0.0))


def test_detectable_difference_is_the_published_one():
    for rows, points in ((872, 2.7), (1066, 2.4), (25_000, 0.5)):
        assert round(100 * detectable_difference(rows, 6), 1) == points
    spread = [detectable_difference(872, s, seed_sd=0.01) for s in (3, 6, 1000)]
    assert spread[0] > spread[1] > spread[2] > detectable_difference(872, 6)
    with pytest.raises(ValueError, match="at least one"):
        detectable_difference(0, 3)


# --- plain words ----------------------------------------------------------------------------


def test_sentences_as_a_reader_sees_them():
    signed = r"(?:[+-]\d+\.\d|0\.0)"
    interval = rf"95% interval {signed} to {signed}"
    c = compare(*pair(0.95, 0.7, seeds=3, rows=400), "accuracy", rng())
    assert re.fullmatch(
        rf"a is ahead of b: \+\d+\.\d points, {interval} "
        r"\(3 seeds: at least 6 are needed before tunelab says better\)",
        c.sentence,
    )
    assert c.seeds_needed == 3
    c = compare(*pair(0.7, 0.95, seeds=6, rows=400), "accuracy", rng())
    assert re.fullmatch(
        rf"a is worse than b: -\d+\.\d points \({interval}, p < 0\.001, 6 seeds\)", c.sentence
    )
    c = compare(*pair(0.87, 0.85, seeds=3, rows=2000, seed_sd=0.03, seed=5), "accuracy", rng())
    assert re.fullmatch(
        rf"a is within noise of b: {signed} points, {interval}; "
        rf"needs about {c.seeds_needed} more seeds?"
        r"(?: or [\d,]+ test rows instead of 2,000)? to tell",
        c.sentence,
    )
    c = compare(*pair(0.85, 0.85, seeds=1, rows=400), "accuracy", rng())
    assert "within noise of b" in c.sentence
    assert c.sentence.endswith("one seed: the spread over seeds is unknown; at least 6 are needed")
    assert c.p_value is None
    c = compare(*pair(0.95, 0.7, seeds=1, rows=400), "accuracy", rng())
    assert c.sentence.endswith("(1 seed: at least 6 are needed before tunelab says better)")
    c = compare(*pair(0.9, 0.9, seeds=6, rows=8000, seed_sd=0.001), "f1_macro", rng())
    assert re.fullmatch(
        rf"a and b are equivalent within 1 point: {signed} points of macro F1, "
        rf"90% interval {signed} to {signed} \(6 seeds\)",
        c.sentence,
    )


def test_no_sentence_breaks_its_form():
    for seed in range(25):
        r = rng(seed)
        seeds, rows = int(r.integers(1, 9)), int(r.choice([2, 10, 200]))
        a, b = pair(*r.uniform(0.5, 0.97, size=2), seeds=seeds, rows=rows, seed=seed)
        for metric in ("accuracy", "mcc"):
            c = compare(a, b, metric, rng())
            assert "\n" not in c.sentence
            assert not re.search(r"-0\.0+\b(?!\d)", c.sentence)
            assert "nan" not in c.sentence
            assert "None" not in c.sentence
            assert c.sentence.isascii()
            assert c.reason
            if c.verdict in {"better", "worse"}:
                assert c.seeds_needed is None


# --- configurations in which seeds change nothing ---------------------------------------------


def fixed(method):
    return Runs(method.label, dict.fromkeys(method.by_seed, method.by_seed[0]))


def test_a_deterministic_method_does_not_lend_its_certainty_to_one_that_is_not():
    # Only a pair in which both repeat may be decided over rows; one SVM in the pair is not enough.
    for seeds, verdict in ((5, "undecided"), (6, "worse")):
        a, b = pair(0.95, 0.7, seeds=seeds, rows=500)
        c = compare(fixed(b), a, "accuracy", rng())
        assert c.verdict == verdict
        assert c.p_seeds == 2 ** (1 - seeds)
        assert "Student t" in c.difference.procedure
    over_seeds = np.ptp([METRICS["accuracy"].function(p) for p in a.by_seed.values()])
    assert over_seeds > 0


def test_two_svms_among_stochastic_methods_are_tested_over_rows_within_one_holm_family():
    lora, tfidf = pair(0.95, 0.7, seeds=3, rows=500)
    svm = dataclasses.replace(fixed(pair(0.86, 0.7, seeds=3, rows=500)[0]), label="svm")
    found = {(c.a, c.b): c for c in compare_all([lora, svm, fixed(tfidf)], "accuracy", rng())}
    both = found["svm", "b"]
    right = [m.by_seed[0].predicted == m.by_seed[0].labels for m in (svm, tfidf)]
    alone = [compare(lora, m, "accuracy", rng()).p_value for m in (svm, fixed(tfidf))]
    rank = sum(p > mcnemar(*right) for p in alone) + 1  # Holm multiplies by what is not smaller
    assert both.p_value == pytest.approx(rank * mcnemar(*right), rel=0.01)
    assert both.verdict == "better"
    assert "3 seeds" not in both.sentence
    for other in (found["a", "svm"], found["a", "b"]):
        assert other.verdict == "undecided"
        assert other.p_seeds == 0.25
        assert "at least 6 are needed" in other.sentence


def test_two_equal_svms_are_equivalent_on_many_rows_with_two_seeds():
    labels = np.array([0, 1] * 400)
    svm, copy = (runs(x, labels, dict.fromkeys(range(2), labels)) for x in ("svm", "copy"))
    c = compare(svm, copy, "accuracy", rng())
    assert (c.verdict, c.p_value, c.difference.value) == ("equivalent", 1.0, 0.0)
    assert c.difference.low < 0 < c.difference.high


def test_an_undecided_pair_of_svms_asks_for_rows_never_for_seeds():
    labels = np.array([0, 1] * 100)
    a, b = labels.copy(), labels.copy()
    a[:4], b[4:12] = 1 - a[:4], 1 - b[4:12]
    c = compare(
        *(runs(n, labels, dict.fromkeys(range(8), p)) for n, p in (("a", a), ("b", b))),
        "accuracy",
        rng(),
    )
    assert c.verdict == "undecided"
    assert c.seeds_needed is None
    assert f"needs about {200 + c.rows_needed} test rows instead of 200" in c.sentence
    assert "more test rows are needed: about" in c.reason
    assert "seed" not in c.sentence


def collapsed(label, winner, labels, seeds):
    r = rng(winner)
    ids = tuple(map(str, range(len(labels))))
    scores = [r.normal(size=(len(labels), 2)) * 0.1 + 3 * np.eye(2)[winner] for _ in range(seeds)]
    return Runs(label, {s: Predictions(ids, labels, x, "logit") for s, x in enumerate(scores)})


@pytest.mark.parametrize("seeds", [2, 6, 12])
def test_models_that_collapsed_to_one_class_are_not_repetitions(seeds):
    # Every seed predicts the same class on every row, with other scores: 12 seeds are one vote.
    labels = np.array([0] * 53 + [1] * 47)
    a, b = collapsed("a", 0, labels, seeds), collapsed("b", 1, labels, seeds)
    c = compare(a, b, "accuracy", rng())
    assert c.p_value == pytest.approx(mcnemar(labels == 0, labels == 1))
    assert c.p_value > 0.5
    assert c.verdict == "undecided"
    same = compare(a, collapsed("copy", 0, labels, seeds), "accuracy", rng())
    assert same.p_value == 1.0
    auc = METRICS["roc_auc"].function  # reads the scores, and so does see other models
    by_seed = [auc(a.by_seed[s]) - auc(b.by_seed[s]) for s in range(seeds)]
    assert compare(a, b, "roc_auc", rng()).p_seeds == sign_flip(by_seed)
    skewed = np.array([0] * 90 + [1] * 10)
    clear = compare(
        collapsed("a", 0, skewed, seeds), collapsed("b", 1, skewed, seeds), "accuracy", rng()
    )
    assert clear.verdict == ("undecided" if seeds < 6 else "better")


@pytest.mark.slow
@pytest.mark.parametrize("rows", [300, 1000])
def test_coverage_against_a_deterministic_method(rows):
    hits, studies, truth = 0, 300, 0.01
    for i in range(studies):
        # The same study twice: rows are shared, and the fixed method has no effect of seeds.
        a, _ = pair(0.86, 0.86 - truth, seeds=6, rows=rows, seed=1000 + i)
        _, b = pair(0.86, 0.86 - truth, seeds=6, rows=rows, seed=1000 + i, seed_sd=0.0)
        e = difference(a, fixed(b), "accuracy", rng(i), resamples=300)
        hits += e.low <= truth <= e.high
    assert 0.915 <= hits / studies <= 0.99  # the standard error of 0.95 is 0.013


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[math.nan] * 6, [0.1] * 5 + [math.nan], [math.inf, 0.1]])
def test_sign_flip_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="all finite"):  # else p = 0, as sure as can be
        sign_flip(bad, rng())


@pytest.mark.parametrize("bad", [[0.01, math.nan], [-0.1], [0.2, 1.5]])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ValueError, match=r"p values in 0\.\.1"):
        holm(bad)


def test_percent_where_fractions_are_expected_is_refused():
    a, b = pair(0.9, 0.85, seeds=2, rows=50)
    for name in ("level", "margin"):
        with pytest.raises(ValueError, match=f"{name} is a fraction between 0 and 1, found 9"):
            compare(a, b, "accuracy", rng(), **{name: 9})
    with pytest.raises(ValueError, match="level is a fraction"):
        difference(a, b, "accuracy", rng(), level=95)
    for name in ("disagreement", "power"):
        with pytest.raises(ValueError, match=f"{name} is a fraction between 0 and 1, found 80"):
            detectable_difference(872, 6, **{name: 80})


def test_few_rows_not_seeds_are_named_where_students_t_makes_the_difference():
    # 1.96 standard errors of the rows are below 0.02, the 2.09 of 19 degrees of freedom above.
    more, reason = seeds_needed(0.02, 1e-8, (0.02 / 2.03) ** 2, seeds=6, rows=20)
    assert more is None
    assert reason.startswith("more test rows are needed: about ")


def test_rows_that_stand_in_groups_count_as_their_groups():
    """Each row four times, as a group, tells what it tells once: the same spread, the same p."""
    right = rng(3).random((2, 6, 90)) < np.array([0.85, 0.7])[:, None, None]
    groups = {f"{i}.{j}": str(i) for i in range(90) for j in range(4)}
    zeros = np.zeros(90, dtype=int)
    once = [runs(f"m{k}", zeros, dict(enumerate(1 - of))) for k, of in enumerate(right)]
    often = [
        dataclasses.replace(
            runs(
                f"m{k}", zeros.repeat(4), dict(enumerate((1 - of).repeat(4, 1))), ids=tuple(groups)
            ),
            groups=groups,
        )
        for k, of in enumerate(right)
    ]
    alone = [dataclasses.replace(r, groups=None) for r in often]
    a, b, c = (difference(*some, "accuracy", rng()) for some in (once, often, alone))
    assert b.value == pytest.approx(a.value)
    widths = [e.high - e.low for e in (a, b, c)]
    assert widths[1] == pytest.approx(widths[0], rel=0.02)  # but for what no row shows
    assert widths[2] < 0.9 * widths[0]
    assert "360 test rows, which count as 90 groups of one size" in b.procedure
    low, same = (mean(some[0], "accuracy", rng()).low for some in (once, often))
    assert same == pytest.approx(low, abs=0.02)
    # Predictions that no seed changes are judged by groups, not by McNemar's independent rows.
    fixed = [dataclasses.replace(r, by_seed=dict.fromkeys(range(6), r.by_seed[0])) for r in often]
    (said,) = compare_all(fixed, "accuracy", rng())
    assert said.verdict == "better"
    assert said.reason == "p by sign-flip over groups of test rows"
    (exact,) = compare_all([dataclasses.replace(r, groups=None) for r in fixed], "accuracy", rng())
    assert exact.p_value < 1e-3 * said.p_value


def test_rows_in_groups_have_as_many_degrees_of_freedom_as_groups():
    from scipy import stats as scipy_stats

    from tunelab.stats.power import Decision, Observed, more_rows

    value, variance, rows, groups = 0.088, 0.043**2, 15, 3
    goal = Decision(value, 0.95, 0.9, None)

    def needed(units: int | None) -> int:
        more, _ = more_rows(Observed(value, (), variance, 3, rows, units=units), goal)
        assert more is not None
        return rows + more

    def decides(n: int) -> bool:
        t = scipy_stats.t.ppf(0.975, max(1, n * groups / rows - 1))
        return bool(value > t * math.sqrt(variance * rows / n))

    assert needed(groups) == next(n for n in range(2, 99) if decides(n))
    assert needed(groups) > needed(None) == needed(rows)
