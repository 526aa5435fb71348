"""Thousands of verdicts: the rule that judges, without what is said beside a verdict.

A study's rows are resampled by the same draws as another's of its size (studies are drawn anew, so
they have nothing in common by that), and no forecast and no chance is computed: neither enters a
verdict, its p value or its interval.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from tunelab.stats import contrasts, resampling, verdicts

__all__ = ["drawn_once", "verdicts_alone"]

_draw_rows = resampling._draw_rows


@functools.lru_cache(maxsize=4)
def _known_draws(n: int, resamples: int) -> tuple[Any, ...]:
    return tuple(_draw_rows(np.random.default_rng([n, resamples]), n, resamples, None))


def _draws(rng: np.random.Generator, n: int, resamples: int, group: Any) -> Iterable[Any]:
    if group is not None:  # groups are others in each study
        return _draw_rows(rng, n, resamples, group)
    return _known_draws(n, resamples)


@contextmanager
def drawn_once() -> Iterator[None]:
    """Resamples of so many rows that are alone are drawn once, and kept."""
    with patch.object(resampling, "_draw_rows", _draws):
        yield


@contextmanager
def verdicts_alone() -> Iterator[None]:
    """Within this, comparisons have verdicts, p values and intervals, and nothing else."""

    def no_chances(means: Any, covariance: Any, pairs: Sequence[Any], *_: Any) -> list[float]:
        return [np.nan] * len(pairs)

    nothing = verdicts._Missing(None, None, "")
    with (
        drawn_once(),
        patch.object(contrasts, "chances_of_more", no_chances),
        patch.object(verdicts, "_what_is_missing", lambda *_: nothing),
    ):
        yield
