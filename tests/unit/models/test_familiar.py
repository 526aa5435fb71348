"""Texts that read like none of the training texts: at most as many as was promised."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.models.familiar import familiar_with
from tunelab.stats.abstention import NoThresholdError


def test_of_texts_like_the_validation_rows_at_most_the_share_is_other():
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefgh"))

    def some(n: int) -> list[str]:
        return [" ".join("".join(rng.choice(letters, 4)) for _ in range(8)) for _ in range(n)]

    shares = [familiar_with(some(60), some(39)).others(some(200), 0.1).mean() for _ in range(30)]
    assert np.mean(shares) <= 0.1 + 2 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) >= 0.05  # and not none
    own = familiar_with(some(60), some(39))
    assert own.others(["xyz xyz uvw", "", "12 34"], 0.1).all()


def test_too_few_rows_for_a_share_are_said():
    own = familiar_with(["a text"], ["another text"] * 18)
    with pytest.raises(NoThresholdError, match=r"0\.05 takes 19 validation rows, found 18"):
        own.others(["a"], 0.05)
