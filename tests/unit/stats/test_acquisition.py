"""Which texts a label would tell most of."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.data.duplicates import rows_unlike
from tunelab.stats.acquisition import doubt_of


def test_uncertainty_is_entropy_and_disagreement_the_part_that_members_do_not_doubt():
    sure, other, unsure = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]
    a = np.array([sure, sure, unsure])
    b = np.array([sure, other, unsure])
    said = doubt_of({"a": [a], "b": [b]})
    assert said.uncertainty == pytest.approx([0, 1, 1])
    assert said.disagreement == pytest.approx([0, 1, 0])
    assert said.probabilities[1] == pytest.approx([0.5, 0.5])


def test_a_method_speaks_once_however_many_seeds_it_has():
    a, b = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    once, often = doubt_of({"a": [a], "b": [b]}), doubt_of({"a": [a] * 5, "b": [b]})
    assert often.uncertainty == pytest.approx(once.uncertainty)
    assert often.disagreement == pytest.approx(once.disagreement)


def test_seeds_of_one_method_disagree_too():
    said = doubt_of({"a": [np.array([[0.95, 0.05]]), np.array([[0.05, 0.95]])]})
    assert said.disagreement[0] > 0.5


def test_chosen_rows_are_like_no_other_and_like_no_labelled_row():
    labelled = ["The plot is a long and winding road through nothing at all, really."]
    texts = [
        "the plot is a long and winding road through NOTHING at all - really",
        "A warm and funny film with a cast that has the time of its life here.",
        "a warm and funny film, with a cast that has the time of its life here!",
        "Nobody will remember this by the time they get to the car park outside.",
    ]
    order = np.arange(4)
    assert rows_unlike(labelled, texts, order, 9).tolist() == [1, 3]
    assert rows_unlike(labelled, texts, order, 1).tolist() == [1]
    assert rows_unlike([], texts, order[::-1], 9).tolist() == [3, 2, 0]
