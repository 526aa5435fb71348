"""Whether a classifier in another form still says what the original says, on texts it never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ArtifactError
from tunelab.core.tasks import Labels, label_words
from tunelab.core.values import ScoreKind
from tunelab.stats import mcnemar
from tunelab.stats.predictions import probabilities

__all__ = [
    "EXACT",
    "ROUNDED",
    "AccuracyChange",
    "Agreement",
    "ChangedText",
    "JudgedTexts",
    "Rule",
    "agreement_of",
    "least_texts",
    "upper_bound",
]

_LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class JudgedTexts:
    """What forms are judged on: texts that the classifier was not trained on.

    `labels` (n,) index the classifier's label names, -1 where there is none; of several labels a
    text they are (n, n_labels), ones and zeros, and -1 where none is known. `calibration`: texts
    that it was trained on, which quantisation reads and which judge nothing. `described`: which
    texts these are, for people.
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    calibration: tuple[str, ...]
    described: str

    def __post_init__(self) -> None:
        if not self.texts:
            raise ArtifactError("No texts to compare predictions on: give some, or leave them out.")

    def without_empty(self) -> JudgedTexts:
        """The same without texts of no character: of some tokenizers these have no token."""
        kept = np.array([bool(text.strip()) for text in self.texts])
        texts = tuple(text for text in self.texts if text.strip())
        return replace(self, texts=texts, labels=self.labels[kept])


@dataclass(frozen=True, slots=True)
class ChangedText:
    """A text that gets another label, and its true one where that is known."""

    text: str
    before: str
    after: str
    truth: str | None


@dataclass(frozen=True, slots=True)
class AccuracyChange:
    """Accuracy (shares) of the original and of the other form on the same `rows` labelled texts.

    `p_value`: exact McNemar, two-sided.
    """

    rows: int
    before: float
    after: float
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether the other form is shown to be worse, at 5%."""
        return self.after < self.before and self.p_value <= 1 - _LEVEL


@dataclass(frozen=True, slots=True)
class Agreement:
    """How predictions compare on `texts` texts; of several labels a text all of them are compared.

    `largest`: of a change of a probability, in 0..1 (NaN: some score is no number). `at_most`: the
    upper 95% bound (Clopper & Pearson 1934, one-sided) of the share of labels that change.
    `accuracy` is None where no text has a label.
    """

    texts: int
    described: str
    largest: float
    changed: tuple[ChangedText, ...]
    at_most: float
    accuracy: AccuracyChange | None

    @property
    def sentence(self) -> str:
        """The same in words."""
        said = (
            f"{len(self.changed)} of {self.texts} labels changed (at most "
            f"{100 * self.at_most:.2f}%, at 95%), largest change of a probability "
            f"{self.largest:.1e}"
        )
        if self.accuracy is None:
            return said
        a = self.accuracy
        return (
            f"{said}; accuracy {100 * a.before:.1f} before and {100 * a.after:.1f} after on "
            f"{a.rows} labelled texts (p = {a.p_value:.2g})"
        )

    def changed_texts(self) -> list[dict[str, str | None]]:
        """The texts that get another label, with their labels, for JSON."""
        return [asdict(c) for c in self.changed]

    def to_json(self) -> dict[str, object]:
        """As a manifest keeps it: figures, no texts."""
        a = self.accuracy
        return {
            "texts": self.texts,
            "described": self.described,
            "changed_labels": len(self.changed),
            "changed_labels_at_most": self.at_most,
            # No number is not JSON.
            "largest_change": self.largest if math.isfinite(self.largest) else None,
            "accuracy": None if a is None else asdict(a),
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed without asking: `largest` change of a probability (None: any), and the share
    of `changed` labels, whose upper bound must keep to it; 0: none may be seen to change.
    """

    largest: float | None
    changed: float

    def fault(self, agreement: Agreement) -> str | None:
        """Why predictions do not hold, in words; None where they do."""
        a = agreement
        if not math.isfinite(a.largest):
            return "some scores are no finite numbers"
        if self.largest is not None and a.largest > self.largest:
            return f"a probability moves by {a.largest:.1e} (allowed: {self.largest:.0e})"
        if not self.changed:
            return f"{len(a.changed)} of {a.texts} labels change" if a.changed else None
        if a.at_most > self.changed:
            few = least_texts(len(a.changed), self.changed)
            more = (
                f": {few} texts with no more changes than that would show it, there are {a.texts}"
                if len(a.changed) <= self.changed * a.texts
                else ""
            )
            return (
                f"up to {100 * a.at_most:.2f}% of labels may change ({len(a.changed)} of "
                f"{a.texts} did; allowed: {100 * self.changed:g}%, at 95%){more}"
            )
        if a.accuracy is not None and a.accuracy.is_worse:
            return (
                f"accuracy falls from {100 * a.accuracy.before:.1f} to "
                f"{100 * a.accuracy.after:.1f} (p = {a.accuracy.p_value:.2g})"
            )
        return None


# Another order of the same float32 sums moves a probability by about 1e-6; numbers of fewer bits
# move it by much more, and then it is labels that count.
EXACT = Rule(largest=1e-4, changed=0.0)
ROUNDED = Rule(largest=None, changed=0.01)


def upper_bound(hits: int, n: int) -> float:
    """The upper 95% bound (one-sided, exact) of a share of which `hits` of `n` were seen."""
    from scipy.special import betaincinv

    return 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, _LEVEL))


def least_texts(hits: int, share: float) -> int:
    """How many texts there must be for the bound of so many hits to keep to a share."""
    n = max(1, hits + 1)
    while upper_bound(hits, n) > share:
        n += 1
    return n


def agreement_of(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    judged: JudgedTexts,
    label_names: Sequence[str],
    thresholds: NDArray[np.float64] | None = None,
) -> Agreement:
    """Compare logits (n, n_classes) of the original with those of another form. `thresholds`
    (n_labels,): of a classifier of several labels a text.
    """
    n = len(before)
    finite = np.isfinite(before).all() and np.isfinite(after).all()
    said = [_read_at(x, thresholds) for x in (before, after)]
    changed = np.flatnonzero(_rows_that_differ(said[0], said[1]))
    known = judged.labels >= 0 if judged.labels.ndim == 1 else judged.labels[:, 0] >= 0
    accuracy = None
    if known.any():
        right, right_after = (~_rows_that_differ(labels, judged.labels)[known] for labels in said)
        accuracy = AccuracyChange(
            rows=int(known.sum()),
            before=float(right.mean()),
            after=float(right_after.mean()),
            p_value=mcnemar(right, right_after),
        )
    texts = tuple(
        ChangedText(
            judged.texts[i],
            label_words(said[0][i], label_names),
            label_words(said[1][i], label_names),
            label_words(judged.labels[i], label_names) if known[i] else None,
        )
        for i in changed
    )
    largest = math.nan
    if finite:
        kind: ScoreKind = "logit" if thresholds is None else "label_logit"
        first, second = (probabilities(x, kind) for x in (before, after))
        largest = float(np.abs(first - second).max())
    return Agreement(n, judged.described, largest, texts, upper_bound(len(changed), n), accuracy)


def _read_at(scores: NDArray[np.float64], thresholds: NDArray[np.float64] | None) -> Labels:
    if thresholds is None:
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    return np.asarray(scores >= np.log(thresholds / (1 - thresholds)), dtype=np.int64)


def _rows_that_differ(a: Labels, b: Labels) -> NDArray[np.bool_]:
    """Which rows have another class, or another set of labels, (n,)."""
    unlike = np.asarray(a != b)
    return unlike if unlike.ndim == 1 else np.asarray(unlike.any(axis=1))
