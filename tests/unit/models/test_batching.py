"""Batches: every row once, like lengths together, nothing dropped, padding counted right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from families import make_family
from tunelab.models import bases, pretrained
from tunelab.models.batches import Encoded, encode, eval_batches, train_batches


def encoded(lengths: list[int]) -> Encoded:
    return Encoded(tuple(np.arange(1, n + 1, dtype=np.int64) for n in lengths))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 17), st.integers(0, 9)
)
def test_an_epoch_holds_every_row_exactly_once(lengths: list[int], size: int, seed: int) -> None:
    batches = train_batches(np.asarray(lengths), size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert max(len(b) for b in batches) <= size
    assert sum(len(b) < size for b in batches) <= 1


def test_the_same_generator_gives_the_same_order_and_another_a_different_one() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    first, again, other = (
        np.concatenate(train_batches(lengths, 16, np.random.default_rng(s))) for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_like_lengths_stand_together_so_that_little_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 100, 1600)
    random = np.random.default_rng(1).permutation(1600).reshape(-1, 16)
    grouped = train_batches(lengths, 16, np.random.default_rng(1))

    def computed(batches: list[np.ndarray] | np.ndarray) -> int:
        return sum(len(b) * int(lengths[b].max()) for b in batches)

    useful = int(lengths.sum())
    assert computed(grouped) < 1.05 * useful
    assert computed(random) > 1.6 * useful


@given(st.lists(st.integers(1, 40), min_size=1, max_size=100), st.integers(1, 9))
def test_scoring_batches_cover_all_rows_and_mask_exactly_the_padding(
    lengths: list[int], size: int
) -> None:
    texts = encoded(lengths)
    seen: list[int] = []
    for batch in eval_batches(texts, size, pad_id=99):
        seen += batch.rows.tolist()
        for row, ids, mask in zip(batch.rows, batch.input_ids, batch.attention_mask, strict=True):
            n = lengths[row]
            assert ids[:n].tolist() == list(range(1, n + 1))
            assert (ids[n:] == 99).all()
            assert mask.tolist() == [1] * n + [0] * (len(ids) - n)
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize("texts", [[], ()])
def test_no_texts_give_no_tokens(texts: list[str]) -> None:
    assert len(encode(None, texts, 8)) == 0


# --- long texts -----------------------------------------------------------------------------


class Watched:
    """A tokenizer that keeps how long the texts were that it was given at a time."""

    def __init__(self, own: Any) -> None:
        self.own, self.longest = own, 0
        self.pad_token_id = own.pad_token_id

    def __call__(self, texts: list[str], **more: Any) -> Any:
        self.longest = max(self.longest, sum(map(len, texts)))
        return self.own(texts, **more)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_of_a_long_text_so_much_is_tokenized_as_is_read(tmp_path: Path, family: str) -> None:
    base = bases.resolve(str(make_family(tmp_path / family, family)))
    watched = Watched(pretrained.load_tokenizer(base))
    rng = np.random.default_rng(0)
    words = ["good", "film", "plot!", "Lovely", "\n", "\t dull", "scene", "x" * 150, "日本語"]
    texts = [" ".join(words[i] for i in rng.integers(0, len(words), n)) for n in (15_000, 9, 3_000)]
    texts += [" " * 50_000 + "good film", "good" * 9_000, "a good film"]
    for limit in (8, 600):
        watched.longest = 0
        ids = encode(watched, texts[:3], limit).ids
        # What a text costs does not grow with it: a million characters are 3 GB in a tokenizer.
        assert watched.longest < 200_000
        whole = watched.own(texts[:3], truncation=True, max_length=limit)["input_ids"]
        assert [i.tolist() for i in ids] == whole
        # Without an end to cut at, as much is read as has to be.
        rest = watched.own(texts[3:], truncation=True, max_length=limit)["input_ids"]
        assert [i.tolist() for i in encode(watched, texts[3:], limit).ids] == rest


def test_many_texts_are_tokenized_a_few_at_a_time(tiny_bert: Path) -> None:
    watched = Watched(pretrained.load_tokenizer(bases.resolve(str(tiny_bert))))
    texts = ["good film " * 1_900] * 60
    assert len(encode(watched, texts, 8)) == 60
    assert watched.longest <= 1_000_000
