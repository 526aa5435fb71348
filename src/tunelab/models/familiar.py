"""Texts that read like none that a classifier was trained on: they have no class, but "other".

The training texts' letters are counted, in runs of two to four within words. A text is the less
familiar, the less likely its runs are among theirs, on average (Cavnar and Trenkle 1994 tell
languages so). How unfamiliar is too much, the validation texts say (split conformal prediction):
of texts like those at most a stated share is called other, whatever the texts are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Dataset, Split
from tunelab.models.tfidf import grams_of
from tunelab.stats.abstention import NoThresholdError

__all__ = ["Familiar", "OtherRates", "familiar_with", "other_rates"]

_RUN_LENGTHS = (2, 4)  # letters of a run


@dataclass(frozen=True, slots=True, eq=False)
class Familiar:
    """The log probability of each run of letters (`known`) and of one that was never seen
    (`unseen`); `validation` (n,) how familiar the validation texts are, rising.
    """

    known: Mapping[str, float]
    unseen: float
    validation: NDArray[np.float64]

    def how_familiar(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The mean log probability of each text's runs, (n,); of a text without any, of one that
        was never seen.
        """
        return np.asarray([self._mean(t) for t in texts], dtype=np.float64)

    def others(self, texts: Sequence[str], error: float) -> NDArray[np.bool_]:
        """Which texts are far from all training texts, (n,): of texts like the validation rows at
        most this share. Raises NoThresholdError where these are too few to promise it.
        """
        if not 0 < error < 1:
            raise NoThresholdError(f"expected a share between 0 and 1, found {error}")
        n = len(self.validation)
        allowed = math.floor(error * (n + 1) + 1e-9)
        if not allowed:
            raise NoThresholdError(
                f"a share of {error:g} takes {math.ceil(1 / error - 1e-9) - 1:,} validation rows, "
                f"found {n:,}"
            )
        return np.asarray(self.how_familiar(texts) < self.validation[allowed - 1])

    def _mean(self, text: str) -> float:
        runs = [self.known.get(g, self.unseen) for g in grams_of(text, "char_wb", _RUN_LENGTHS)]
        return float(np.mean(runs)) if runs else self.unseen


def familiar_with(train: Sequence[str], validation: Sequence[str]) -> Familiar:
    """Count the letters of training texts, and see how familiar validation texts are."""
    counts = Counter(g for text in train for g in grams_of(text, "char_wb", _RUN_LENGTHS))
    # Half a count more for each run, and as many again for those that were never seen.
    total = math.log(sum(counts.values()) + len(counts) + 1)
    known = {g: math.log(n + 0.5) - total for g, n in counts.items()}
    draft = Familiar(known, math.log(0.5) - total, np.empty(0))
    return Familiar(known, draft.unseen, np.sort(draft.how_familiar(validation)))


@dataclass(frozen=True, slots=True)
class OtherRates:
    """How often "other" is wrong where at most a share of `error` may be: of so many test `rows`,
    all of known classes, the share that is called so; and of the rows of a class that was taken
    away, one class after the other, the share that is (`of_new_class`). None where not known.
    """

    error: float
    rows: int
    wrongly: float | None
    of_new_class: float | None

    @property
    def sentence(self) -> str:
        """The same in words."""
        if self.wrongly is None:
            return "How often that is wrong is not known here: no row is left to test it on."
        new = ""
        if self.of_new_class is not None:
            new = f"; of those of a class as if it were new, {100 * self.of_new_class:.1f}% are"
        return (
            f"Of {self.rows:,} test rows, none of which is other, {100 * self.wrongly:.1f}% are "
            f"called so{new}."
        )


def other_rates(dataset: Dataset, error: float) -> OtherRates:
    """Try "other" on the test part, and on each class as if it had not been there.

    Raises NoThresholdError where validation rows are too few.
    """
    test = dataset.test
    if not len(test):
        return OtherRates(error, 0, None, None)
    whole = familiar_with(dataset.train.texts, dataset.validation.texts)
    wrongly = float(whole.others(test.texts, error).mean())
    called: list[NDArray[np.bool_]] = []
    for k in range(len(dataset.label_names)):
        new = _texts_of_class(test, k, same=True)
        rest = [_texts_of_class(s, k, same=False) for s in (dataset.train, dataset.validation)]
        try:
            called += [familiar_with(*rest).others(new, error)] if new else []
        except NoThresholdError:
            continue  # too few rows are left without that class
    of_new = float(np.concatenate(called).mean()) if called else None
    return OtherRates(error, len(test), wrongly, of_new)


def _texts_of_class(split: Split, label: int, *, same: bool) -> list[str]:
    return [t for t, k in zip(split.texts, split.labels, strict=True) if (k == label) == same]
