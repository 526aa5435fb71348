"""Which form of LinearSVC is faster, dual or primal, by rows and features.

    python benchmarks/svm.py [--quick]

CPU seconds of the fits that `svm` makes, one for each C, on the bundled reviews: of the vectors of
the bundled model, and of TF-IDF. Scikit-learn's own choice is the dual form where there are fewer
rows than features; `methods.svm` takes it where there are fewer than twice as many.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from tunelab import data
from tunelab.core.values import DataSpec
from tunelab.methods.svm import SvmSettings, TfidfSettings, _fit_vectorizers, in_dual_form
from tunelab.models import bases, embeddings
from tunelab.models.linear import tfidf_features

ROWS = (260, 500, 650, 770, 960, 1344)
ROWS_QUICK = (260, 1344)


def fits(x: Any, y: NDArray[np.int64], dual: bool, grid: Sequence[float]) -> list[float]:
    """CPU seconds of a fit with each C."""
    out = []
    for c in grid:
        started = time.process_time()
        LinearSVC(C=c, dual=dual, random_state=0, max_iter=10_000).fit(x, y)
        out.append(time.process_time() - started)
    return out


def compare(name: str, x: Any, y: NDArray[np.int64]) -> None:
    """Print what both forms take, and which one is taken."""
    dual, primal = (sum(fits(x, y, form, SvmSettings().c)) for form in (True, False))
    taken = "dual" if in_dual_form(x.shape) else "primal"
    by_default = "dual" if x.shape[0] < x.shape[1] else "primal"
    shape = f"{x.shape[0]:,} x {x.shape[1]:,}"
    print(f"{name:<8} {shape:>14} {dual:>8.2f} {primal:>8.2f}   {taken:<6} {by_default}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")  # a form that does not converge says so by its time
    part = data.load(DataSpec("demo")).train
    base = bases.resolve("minilm")
    embedder = embeddings.Embedder(base, "mean", 128, 64)
    vectors = embeddings.cached(base, part.texts, "mean", 128, embedder).vectors.astype(np.float64)
    print(f"{'features':<8} {'rows x':>14} {'dual':>8} {'primal':>8}   taken  scikit-learn's")
    with threadpool_limits(1):
        for n in ROWS_QUICK if quick else ROWS:
            x = vectors[:n] - vectors[:n].mean(axis=0)
            compare("vectors", x / x.std(axis=0), part.labels[:n])
        for n in ROWS_QUICK:
            vectorizers = _fit_vectorizers(TfidfSettings(), part.texts[:n])
            compare("TF-IDF", tfidf_features(vectorizers, part.texts[:n]), part.labels[:n])


if __name__ == "__main__":
    main()
