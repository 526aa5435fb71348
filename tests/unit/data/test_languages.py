"""Languages are named where the words tell, and nowhere else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tunelab.core.values import DataSpec
from tunelab.data import duplicates, load
from tunelab.data.gate.texts import LEAST_WORDS_TO_NAME_LANGUAGE, SCRIPTS, languages
from tunelab.data.gate.values import bag_of

SENTENCES = [
    line.split("\t")
    for line in (Path(__file__).resolve().parents[2] / "fixtures" / "languages.tsv")
    .read_text(encoding="utf-8")
    .splitlines()
]


def named(texts: list[str]) -> list[str | None]:
    twins = duplicates.find_twins(texts)
    of_group = languages(twins, bag_of(twins))
    return [of_group[g] for g in twins.group]


def test_foreign_sentences_are_named_and_none_wrongly():
    """Short ones stay unnamed; of those with enough words, nine in ten are named."""
    got = named([text for _, text in SENTENCES])
    right, long_enough = Counter(), Counter()
    for (language, text), name in zip(SENTENCES, got, strict=True):
        assert name in (None, language)
        if language in SCRIPTS or len(text.split()) >= LEAST_WORDS_TO_NAME_LANGUAGE:
            long_enough[language] += 1
            right[language] += name is not None
    assert right.total() >= 0.88 * long_enough.total()
    assert all(right[language] >= 0.7 * long_enough[language] for language in long_enough)
    assert all(right[script] == long_enough[script] for script in SCRIPTS)


def test_english_is_never_called_foreign():
    whole = load(DataSpec("demo:stars"))
    texts = [t for s in whole.parts.values() for t in s.texts]
    assert set(named(texts)) <= {"English", None}


@pytest.mark.parametrize(
    "text",
    [
        "no me, no",
        "a film by Pedro Almodóvar, en español, with subtitles",
        "El Niño, La Niña and Los Lobos in one evening",
        "an energy to y tu mamá también",
        "merci pour le movie .",
        "per se, de facto, et al., in situ",
        "die hard with a van in the sea",
        "Das Boot",
        "o brother where art thou",
        "la la land",
    ],
)
def test_short_or_mixed_texts_are_not_called_foreign(text: str):
    assert named([text])[0] in ("English", None)
