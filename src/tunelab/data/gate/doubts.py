"""Which labels a model doubts, and how many of those it lists are wrong at least.

A model that has not seen a row may contradict its label because the label is wrong, or because the
row is hard: the list alone does not tell. So noise is planted: every row also gets a label drawn
from the other classes, and the same finder ranks these. Nothing is trained again, since a row's
prediction does not depend on its own label. It tells (1) how well the model tells a wrong label
from the given one, `telling`, and (2) which share of wrong labels stands above a cut-off. Above the
cut-off that a fifth of the planted ones reach, rows that are not planted are wrong labels or hard
rows; what is left of them after the hard ones is the share of wrong labels, and with (2) the
precision of every longer list (a mixture proportion: Scott, Blanchard and Handy 2013,
"Classification with asymmetric label noise"). How many hard rows reach so far cannot be seen in
the labels. It is bounded by HARD_SHARE of what `telling` lacks to one: more than was measured on
real data taken as they are (`benchmarks/gate_labels.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.core.words import agreeing, counted
from tunelab.data.gate.values import Example, Finding

__all__ = [
    "LEAST_PRECISION",
    "LEAST_TELLING",
    "DoubtfulLabels",
    "doubtful_labels",
    "label_finding",
    "reading",
]

LEAST_TELLING = 0.85  # a model that tells less is itself weak: nothing is said
LEAST_PRECISION = 1 / 3  # a list of which less is wrong is not worth reading
HARD_SHARE = 0.25
LEAST_LISTED = 10
REFERENCE = 0.2  # share of planted labels above the cut-off at which wrong labels are counted
SHARES = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # of planted labels above each cut-off that is tried
PLANTED_PER_ROW = 3  # wrong labels
SHOWN_DOUBTS = 20  # a ranked list is to be read


@dataclass(frozen=True, slots=True, eq=False)
class DoubtfulLabels:
    """Rows with doubtful labels, the most doubtful first, and what the list is worth.

    `precision` is the share of the listed labels that is wrong at least, `wrong_share` that of all
    labels, `telling` how often a planted wrong label is doubted more than a given one (0.5 is
    chance). `reason` says why no row is listed; "" where some are.
    """

    rows: NDArray[np.int64]
    precision: float
    wrong_share: float
    telling: float
    reason: str = ""


def doubtful_labels(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], seed: int = 0
) -> DoubtfulLabels:
    """Rank labels (n,) by how far out-of-sample probabilities (n, k) contradict them.

    The longest list of which a third at least is wrong by this estimate; none where the model is
    weak.
    """
    n, k = probabilities.shape
    doubt = _doubt(probabilities, labels)
    rng = np.random.default_rng(seed)
    others = [(labels + rng.integers(1, k, n)) % k for _ in range(PLANTED_PER_ROW)]
    planted = np.sort(np.concatenate([_doubt(probabilities, drawn) for drawn in others]))
    telling = _share_of_pairs(np.sort(doubt), planted)
    if telling < LEAST_TELLING:
        why = (
            f"the model that judges them doubts a wrong label that was planted more than a given "
            f"one in {telling:.0%} of cases only ({LEAST_TELLING:.0%} are needed)"
        )
        return _none(why, 0.0, telling)
    cutoff = _cutoff(planted, REFERENCE)
    hard = HARD_SHARE * (1 - telling)
    wrong = max(0.0, _least_count(int((doubt >= cutoff).sum())) / (n * REFERENCE) - hard)
    for share in SHARES:
        listed = np.flatnonzero(doubt >= _cutoff(planted, share))
        precision = min(1.0, wrong * share * n / max(1, len(listed)))
        if len(listed) >= LEAST_LISTED and precision >= LEAST_PRECISION:
            rows = listed[np.argsort(-doubt[listed], kind="stable")]
            return DoubtfulLabels(rows, precision, wrong, telling)
    why = "no list of labels can be shown to be wrong in a third of its rows"
    return _none(why, wrong, telling)


def _none(reason: str, wrong: float, telling: float) -> DoubtfulLabels:
    return DoubtfulLabels(np.zeros(0, dtype=np.int64), 0.0, wrong, telling, reason)


def _doubt(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log odds of the likeliest other class against the label, (n,)."""
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    rest = probabilities.copy()
    rest[rows, labels] = -1.0
    return np.asarray(np.log(rest.max(axis=1) + 1e-9) - np.log(own + 1e-9), dtype=np.float64)


def _share_of_pairs(given: NDArray[np.float64], planted: NDArray[np.float64]) -> float:
    """Share of pairs in which the planted is larger, ties counted half; `given` is sorted."""
    below = np.searchsorted(given, planted, "left") + np.searchsorted(given, planted, "right")
    return float(below.mean() / 2 / len(given))


def _cutoff(planted: NDArray[np.float64], share: float) -> float:
    """The doubt that a share of the planted labels (sorted) reaches."""
    return float(planted[min(len(planted) - 1, int((1 - share) * len(planted)))])


def _least_count(count: int) -> float:
    """Lower 95% bound of a Poisson mean, of one count."""
    from scipy.special import gammaincinv

    return float(gammaincinv(count, 0.05)) if count else 0.0


# --- as a finding ---------------------------------------------------------------------------


def label_finding(
    doubts: DoubtfulLabels,
    of: int,
    judges: str,
    examples: tuple[Example, ...],
    test_ids: tuple[str, ...],
) -> Finding:
    """What the gate says of a ranked list: how long it is, and how much of it is wrong at least.

    `judges` names the model or models in the words of the sentence.
    """
    count = len(doubts.rows)
    return Finding(
        check="label-errors",
        where="all",
        level="warning" if doubts.wrong_share >= 0.05 else "note",
        count=count,
        of=of,
        says=f"{count:,} of {counted(of, 'label')} {agreeing(count, 'are')} doubtful: {judges} "
        f"contradicts {'it' if count == 1 else 'them'}, and at least "
        f"{100 * doubts.precision:.0f}% of these are wrong (estimated from wrong labels planted in "
        "these data)",
        advice="Read them from the top, where most are wrong; the others are hard.",
        numbers={
            "share": count / of,
            "precision": doubts.precision,
            "wrong_share": doubts.wrong_share,
            "telling": doubts.telling,
        },
        examples=examples,
        test_ids=test_ids,
    )


def reading(label_names: Sequence[str], probabilities: NDArray[np.float64], label: int) -> str:
    """What a model reads in one row (probabilities (k,)) instead of its label."""
    likely = int(probabilities.argmax())
    return (
        f"looks like {label_names[likely]!r} ({probabilities[likely]:.0%}; its own label "
        f"{probabilities[label]:.0%})"
    )
