"""TF-IDF of n-grams as scikit-learn has it, of a vectorizer that was fitted: it loads no more than
numpy, where importing scikit-learn takes longer than labelling thousands of texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Analyzer",
    "NgramWeights",
    "analyzer_of",
    "check_ngrams",
    "grams_of",
    "summed",
]

Analyzer = Literal["word", "char", "char_wb"]
_MOST_GRAMS = 20  # characters or words of an n-gram; longer ones are made to use up memory
# scikit-learn's own: words of two letters or more; runs of white space are one space.
_WORD_OF_TWO, _WHITE_SPACE = re.compile(r"(?u)\b\w\w+\b"), re.compile(r"\s\s+")


@dataclass(frozen=True, slots=True, eq=False)
class NgramWeights:
    """`terms`, n-grams of words or characters and the place of each, with their `idf` (n_terms,).

    Texts are lowered in case; `sublinear_tf`: a count c weighs 1 + log c. A text's weights have
    length one (as sklearn.feature_extraction.text.TfidfVectorizer, bit for bit).
    """

    analyzer: Analyzer
    ngram_range: tuple[int, int]
    sublinear_tf: bool
    terms: dict[str, int]
    idf: NDArray[np.float64]

    @classmethod
    def of(cls, vectorizer: Any) -> NgramWeights:
        """What a fitted TfidfVectorizer found."""
        return cls(
            vectorizer.analyzer,
            vectorizer.ngram_range,
            vectorizer.sublinear_tf,
            {term: int(i) for term, i in vectorizer.vocabulary_.items()},
            np.asarray(vectorizer.idf_, dtype=np.float64),
        )

    def described(self) -> dict[str, object]:
        """Which terms there are, in the order of their weights, as vocabulary.json holds it."""
        return {
            "analyzer": self.analyzer,
            "ngram_range": list(self.ngram_range),
            "sublinear_tf": self.sublinear_tf,
            "terms": sorted(self.terms, key=self.terms.__getitem__),
        }

    def weights_of(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Places of a text's terms, in order, and their weights: (k,) each."""
        known = self.terms
        grams = grams_of(text, self.analyzer, self.ngram_range)
        counts = Counter(known[gram] for gram in grams if gram in known)
        places = np.asarray(sorted(counts), dtype=np.int64)
        if not len(places):
            return places, np.empty(0)
        values = np.asarray([counts[p] for p in places.tolist()], dtype=np.float64)
        if self.sublinear_tf:
            values = np.log(values) + 1.0
        values *= self.idf[places]
        return places, values / np.sqrt(summed(values * values))


def grams_of(text: str, analyzer: Analyzer, ngram_range: tuple[int, int]) -> Iterator[str]:
    """The n-grams of a text, lowered in case, as scikit-learn counts them; unknown ones too."""
    text = text.lower()
    if analyzer == "word":
        yield from _joined_grams(_WORD_OF_TWO.findall(text), ngram_range)
        return
    text = _WHITE_SPACE.sub(" ", text)
    if analyzer == "char":
        first, last = ngram_range
        for n in range(first, min(last, len(text)) + 1):
            yield from (text[i : i + n] for i in range(len(text) - n + 1))
        return
    for word in text.split():
        yield from _grams_within(f" {word} ", ngram_range)


def analyzer_of(name: object) -> Analyzer:
    """The analyzer of this name. Raises ValueError where there is none."""
    for known in get_args(Analyzer):
        if name == known:
            analyzer: Analyzer = known
            return analyzer
    raise ValueError(f"n-grams of {name!r}")


def check_ngrams(analyzer: object, ngram_range: Sequence[int]) -> None:
    """Raise ValueError for an analyzer that there is not, and lengths that no n-gram has."""
    analyzer_of(analyzer)
    if len(ngram_range) != 2 or not 1 <= ngram_range[0] <= ngram_range[1] <= _MOST_GRAMS:
        raise ValueError(f"n-grams of {' to '.join(map(str, ngram_range))[:60]}")


def summed(values: NDArray[np.float64]) -> Any:
    """Their sum along the first axis, one after the other, as scikit-learn and scipy add."""
    return np.cumsum(values, axis=0)[-1]


def _joined_grams(words: Sequence[str], ngram_range: tuple[int, int]) -> Iterator[str]:
    first, last = ngram_range
    for n in range(first, min(last, len(words)) + 1):
        yield from (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))


def _grams_within(word: str, ngram_range: tuple[int, int]) -> Iterator[str]:
    """A word that is shorter than an n-gram counts once, whatever longer ones are asked for."""
    first, last = ngram_range
    for n in range(first, last + 1):
        yield word[:n]
        yield from (word[i : i + n] for i in range(1, len(word) - n + 1))
        if len(word) <= n:
            break
