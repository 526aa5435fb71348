"""TF-IDF without scikit-learn against scikit-learn's own, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tunelab.models.linear import TfidfSvm, tfidf_features
from tunelab.models.tfidf import NgramWeights
from tunelab.models.vector_heads import Hyperplanes

TRAINING = [
    "A quiet, wonderful film about a family - and its long summer.",
    "Don't watch this; it is 3 hours long, long, LONG!",
    "ein  schöner\tFilm\nüber İstanbul, naïve café",
    "映画 はとても 良い I I i",
]
TEXTS = [*TRAINING, "", "  ", "zzz qqq", "long " * 40, "a", "wonderful\u00a0film\u2003of it", "x y"]


@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 3), (2, 5), (3, 3)])
@pytest.mark.parametrize("sublinear", [True, False])
def test_weights_are_scikit_learns(analyzer: str, ngrams: tuple[int, int], sublinear: bool) -> None:
    theirs = TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, sublinear_tf=sublinear)
    theirs.fit(TRAINING)
    ours = NgramWeights.of(theirs)
    for text, row in zip(TEXTS, theirs.transform(TEXTS), strict=True):
        places, values = ours.weights_of(text)
        assert places.tolist() == row.indices.tolist()
        assert values.tolist() == row.data.tolist()


def test_scores_are_those_of_sparse_products() -> None:
    vectorizers = [
        TfidfVectorizer(analyzer="word", ngram_range=(1, 2), sublinear_tf=True).fit(TRAINING),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit(TRAINING),
    ]
    features = tfidf_features(vectorizers, TEXTS)
    rng = np.random.default_rng(0)
    planes = Hyperplanes(rng.normal(size=(3, features.shape[1])), rng.normal(size=3), 2.5)
    ours = TfidfSvm(tuple(map(NgramWeights.of, vectorizers)), planes, ("a", "b", "c"))
    assert np.array_equal(ours.scores(TEXTS), planes.logits(features))
    assert ours.scores([]).shape == (0, 3)
