"""What a method says of rows that not every seed of it has tested."""

from __future__ import annotations

import numpy as np

from tunelab.core.values import Predictions
from tunelab.report.evidence import common_rows, voice_of


def predictions(ids: str, first: list[float]) -> Predictions:
    """Probabilities of two classes; rows whose id is a vowel are of the second."""
    labels = np.array([int(i in "aeiou") for i in ids], dtype=np.int64)
    one = np.array(first)
    return Predictions(tuple(ids), labels, np.stack([one, 1 - one], axis=1), "probability")


def test_seeds_that_test_the_same_rows_are_averaged_row_by_row():
    runs = [predictions("abc", [0.2, 0.9, 0.6]), predictions("abc", [0.4, 0.7, 0.2])]
    voice = voice_of(runs)
    assert voice.ids == ("a", "b", "c")
    np.testing.assert_array_equal(voice.scores, np.mean([p.scores for p in runs], axis=0))
    assert voice.asked.tolist() == [2, 2, 2]
    assert voice.agreeing.tolist() == [2, 2, 1]
    assert voice.predicted.tolist() == [1, 0, 1]
    assert voice.labels.tolist() == [1, 0, 0]


def test_a_row_is_what_those_seeds_say_that_tested_it():
    folds = [predictions("ab", [0.2, 0.9]), predictions("cd", [0.6, 0.3])]
    second = predictions("ca", [0.1, 0.9])  # of another repetition
    voice = voice_of([*folds, second])
    assert voice.ids == ("a", "b", "c", "d")
    assert voice.asked.tolist() == [2, 1, 2, 1]
    np.testing.assert_allclose(voice.scores[:, 0], [0.55, 0.9, 0.35, 0.3])
    assert voice.agreeing.tolist() == [1, 1, 1, 1]
    assert voice.labels.tolist() == [1, 0, 0, 0]


def test_methods_are_compared_on_the_rows_that_all_tested():
    whole = voice_of([predictions("abcd", [0.1, 0.2, 0.3, 0.4])])
    turned = voice_of([predictions("dcb", [0.9, 0.8, 0.7])])
    other = voice_of([predictions("xyz", [0.9, 0.8, 0.7])])
    found = common_rows({"whole": whole, "turned": turned, "other": other})
    assert {m: v.ids for m, v in found.items()} == {
        "whole": ("b", "c", "d"),
        "turned": ("b", "c", "d"),
    }
    np.testing.assert_allclose(found["turned"].scores[:, 0], [0.7, 0.8, 0.9])
    assert common_rows({}) == {}
