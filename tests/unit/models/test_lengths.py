"""The limit that `max_length: auto` chooses for texts, and what limits cut and cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tunelab.core.text_lengths import text_lengths_from_json
from tunelab.models import bases, batches, lengths, pretrained
from tunelab.models.bases import Base

MANY = np.asarray([100] * 95 + [130] * 5)


@pytest.fixture(scope="module")
def minilm() -> Base:
    return bases.resolve("minilm")


@pytest.fixture
def endless(minilm: Base) -> Base:
    config = {k: v for k, v in minilm.config.items() if k != "max_position_embeddings"}
    return replace(minilm, config=config)


@pytest.mark.parametrize(
    ("counts", "limit"),
    [
        ([10] * 100, 128),  # no text is cut for a limit that costs nothing
        (MANY, 128),  # 95% are whole
        ([100] * 94 + [130] * 6, 160),
        ([200] * 100, 224),
        ([600] * 100, 512),  # the model has no more positions
    ],
)
def test_auto_keeps_95_of_100_texts_whole(minilm, counts, limit):
    assert lengths.automatic(np.asarray(counts), minilm) == limit


def test_auto_costs_five_times_the_usual_at_most_and_leaves_room_for_a_prompt(minilm, endless):
    long = np.asarray([5_000] * 100)
    limit = lengths.automatic(long, endless)
    cost = {n: lengths.limits_on(long, 100, endless, [n]).at(n).cost for n in (limit, limit + 32)}
    assert limit == 544
    assert cost[limit] <= lengths.MOST_TIMES < cost[limit + 32]
    assert lengths.automatic(np.asarray([600] * 100), minilm, taken=20) == 492


def test_a_base_with_fewer_positions_has_a_limit_of_its_own(tiny_bert):
    base = bases.resolve(str(tiny_bert))
    assert lengths.limit_of("auto", base, ["a film"]) == 64
    assert lengths.limit_of(32, base, ["a film"]) == 32


@pytest.mark.parametrize("plain", [False, True])
def test_texts_are_counted_as_they_are_tokenized(tiny_bert, minilm, plain):
    base = bases.resolve(str(tiny_bert)) if plain else minilm
    texts = ["", "a", "Ünïcode 東京 😀", "film " * 700, "a film, of a plot"]
    expected = batches.encode(pretrained.load_tokenizer(base), texts, 10**6).lengths
    np.testing.assert_array_equal(lengths.count_tokens(base, texts), expected)
    np.testing.assert_array_equal(lengths.count_tokens(base, texts), expected)  # as kept
    assert batches.count_longer(pretrained.load_tokenizer(base), texts, 20) == 1
    with batches.counting_cut() as cut:
        batches.encode(pretrained.load_tokenizer(base), texts, 20)
    batches.encode(pretrained.load_tokenizer(base), texts, 20)
    assert cut.count == 1


def test_of_very_many_texts_some_are_counted(minilm, monkeypatch):
    monkeypatch.setattr(lengths, "_COUNTED", 10)
    counts = lengths.count_tokens(minilm, [*["film"] * 95, *["film " * 200] * 5])
    assert len(counts) == 10
    assert counts[-1] == 202
    said = lengths.limits_on(counts, 100, minilm, [128], chosen=[128])
    assert (said.rows, said.counted) == (100, 10)
    assert said.at(128).cut == 0.1


def test_costs_and_cuts_are_of_real_lengths_and_go_through_json(minilm):
    said = lengths.limits_on(np.asarray([100, 300, 900, 900]), 4, minilm, [128, 256], kept=[256])
    assert [(x.tokens, x.cut) for x in said.limits] == [(128, 0.75), (256, 0.75), (512, 0.5)]

    def work(limit: int) -> float:
        return sum(n * (1 + n / (6 * 384)) for n in np.minimum([100, 300, 900, 900], limit))

    assert said.at(512).cost == pytest.approx(work(512) / work(128))
    assert text_lengths_from_json(said.to_json()) == said


def test_a_count_that_was_cut_short_is_made_anew(tiny_bert: Path):
    base = bases.resolve(str(tiny_bert))
    expected = lengths.count_tokens(base, ["a film", "the plot of it"])
    for file in lengths.cache.folder().glob("lengths/*.npy"):
        file.write_bytes(b"cut")
    np.testing.assert_array_equal(
        lengths.count_tokens(base, ["a film", "the plot of it"]), expected
    )
