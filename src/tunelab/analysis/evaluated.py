"""What is said of saved classifiers that were scored on the same rows: pairs, and confidence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab import stats
from tunelab.core.words import signed

__all__ = [
    "OwnTemperature",
    "PairTest",
    "pair_in_words",
    "pair_tests",
    "truer_in_words",
]


@dataclass(frozen=True, slots=True)
class PairTest:
    """Two classifiers by their names: accuracy of `a` minus that of `b`, and McNemar's exact p.

    The rows that one of them alone has right are counted; `p_value` is adjusted after Holm.
    """

    a: str
    b: str
    difference: float
    only_a_right: int
    only_b_right: int
    p_value: float


@dataclass(frozen=True, slots=True)
class OwnTemperature:
    """What a classifier's own temperature does to its probabilities, or the `reason` for none.

    `raw_ece`: the calibration error of what its scores say without it.
    """

    temperature: float | None
    reason: str = ""
    ece: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    raw_ece: float | None = None

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        if self.temperature is None:
            return {"temperature": None, "reason": self.reason}
        return {k: v for k, v in asdict(self).items() if k != "reason"}


def pair_tests(right: Mapping[str, NDArray[np.bool_]]) -> list[PairTest]:
    """McNemar's test of each pair, from who is right on each row."""
    pairs = list(itertools.combinations(right, 2))
    raw = [stats.mcnemar(right[a], right[b]) for a, b in pairs]
    return [
        PairTest(
            a=a,
            b=b,
            difference=float(right[a].mean() - right[b].mean()),
            only_a_right=int((right[a] & ~right[b]).sum()),
            only_b_right=int((right[b] & ~right[a]).sum()),
            p_value=p,
        )
        for (a, b), p in zip(pairs, stats.holm(raw), strict=True)
    ]


def truer_in_words(name: str, ece: float | None, own: OwnTemperature) -> str:
    """How far a classifier's confidence is off, with its temperature where it has one."""
    if ece is None:
        return f"{name}: its confidence cannot be judged on these rows"
    off = f"{name}: its confidence is off by {100 * ece:.1f} points beyond the luck of the labels"
    if own.temperature is None:
        return f"{off}; not calibrated: {own.reason.removeprefix(f'{name}: ')}"
    if own.raw_ece is None:
        return off
    return (
        f"{off}, with its temperature of {own.temperature:.2f}; raw (predict --raw) by "
        f"{100 * own.raw_ece:.1f}"
    )


def pair_in_words(t: PairTest, pairs: int) -> str:
    """Which of two classifiers is more often right, and how sure that is, of so many pairs."""
    p = "p < 0.001" if t.p_value < 0.001 else f"p = {t.p_value:.2g}"
    after = " after Holm" if pairs > 1 else ""
    ahead = "is more often right than" if t.difference > 0 else "is less often right than"
    verdict = ahead if t.p_value <= 0.05 else "is not shown to differ from"
    return (
        f"{t.a} {verdict} {t.b}: {signed(100 * t.difference, 1)} points, right alone on "
        f"{t.only_a_right:,} and {t.only_b_right:,} rows, exact McNemar {p}{after}"
    )
