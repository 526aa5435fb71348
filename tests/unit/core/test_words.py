"""Small words: counts, verbs and names as a sentence has them."""

from __future__ import annotations

import pytest

from tunelab.core.words import (
    agreeing,
    as_one,
    comma_names,
    counted,
    short_labels,
    signed,
    told_apart,
)


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


def test_methods_of_a_grid_have_short_names_and_no_two_the_same() -> None:
    labels = [
        "svm",
        "lora[r=4,lora_alpha=8]",
        "lora[r=16,lora_alpha=8]",
        "full[learning_rate=1e-5]",
    ]
    assert list(short_labels(labels).values()) == [
        "svm",
        "lora r=4 a=8",
        "lora r=16 a=8",
        "full lr=1e-5",
    ]
    # What is no grid's label stays as it is, and so do two that would be called the same.
    for odd in (["a [b]", "]", "x[", "x[]", "my[own]"], ["lora[r=4]", "lora r=4"]):
        assert list(short_labels(odd)) == list(short_labels(odd).values()) == odd


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (["good", "go\u200bod", "b\u00e4d"], ["good", "go\\u200bod", "b\u00e4d"]),
        (["caf\u00e9", "cafe\u0301"], ["caf\\xe9", "cafe\\u0301"]),
        (["a b", "a\u00a0b", "A b"], ["a b", "a\\xa0b", "A b"]),
        (["pos", "\u0440\u043e\u0455"], ["pos", "\\u0440\\u043e\\u0455"]),
        (["\u597d", "\U0001f600"], ["\u597d", "\U0001f600"]),
    ],
)
def test_names_that_are_drawn_alike_are_written_out(names: list[str], seen: list[str]) -> None:
    assert told_apart(names) == seen
