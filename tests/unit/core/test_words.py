"""Small words: counts, verbs and names as a sentence has them."""

from __future__ import annotations

import pytest

from tunelab.core.words import agreeing, as_one, comma_names, counted, signed


@pytest.mark.parametrize(
    ("n", "noun", "said"),
    [
        (1, "model card", "1 model card"),
        (2, "model card", "2 model cards"),
        (1_200, "row", "1,200 rows"),
        (1, "class", "1 class"),
        (66, "class", "66 classes"),
        (3, "try", "3 tries"),
        (2, "study", "2 studies"),
        (2, "key", "2 keys"),
        (0, "text", "0 texts"),
    ],
)
def test_a_count_has_its_plural(n: int, noun: str, said: str) -> None:
    assert counted(n, noun) == said


def test_a_verb_agrees_with_its_count() -> None:
    assert agreeing(1, "have one word or none") == "has one word or none"
    assert agreeing(2, "have one word or none") == "have one word or none"
    assert [agreeing(1, v) for v in ("are", "were", "stand", "carry")] == [
        "is", "was", "stands", "carries",
    ]  # fmt: skip


def test_nothing_has_no_sign() -> None:
    assert [signed(x, 1) for x in (0.84, -0.04, 0.04, 0.0, -0.06, -1234.5)] == [
        "+0.8", "0.0", "0.0", "0.0", "-0.1", "-1,234.5",
    ]  # fmt: skip


def test_a_name_with_a_comma_is_one_name() -> None:
    assert [as_one(n) for n in ("Entity, other", "Human")] == ['"Entity, other"', "Human"]
    assert comma_names("svm, lora[r=4,bias=all],,full") == ["svm", "lora[r=4,bias=all]", "full"]
    assert comma_names(("a,b", "c")) == ["a,b", "c"]
