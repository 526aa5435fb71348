"""Tokens read back are those that tokenizing gives, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunelab.core import cache
from tunelab.models import bases, batches, pretrained, tokens
from tunelab.models.batches import Encoded

TEXTS = ["good film", "", "bad plot " * 20, "é 漢字 👍", "warm"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))


def tokenizer(folder: Path) -> Any:
    return pretrained.load_tokenizer(bases.resolve(str(folder)))


def files() -> list[Path]:
    return sorted((cache.folder() / "tokens").glob("*"))


def same(a: Encoded, b: Encoded) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a.ids, b.ids, strict=True)
    )


@pytest.mark.parametrize("limit", [4, 16, 64])
def test_what_is_read_back_is_what_tokenizing_gives(tiny_bert: Path, limit: int) -> None:
    expected = batches.encode(tokenizer(tiny_bert), TEXTS, limit)
    first = tokens.encoded(tokenizer(tiny_bert), TEXTS, limit, False)
    again = tokens.encoded(tokenizer(tiny_bert), TEXTS, limit, False)
    assert same(first, expected)
    assert same(again, expected)
    assert len(files()) == 1
    assert not again.ids[0].flags.owndata  # mapped, not copied
    assert not again.ids[0].flags.writeable


def test_other_texts_limits_and_tokenizers_have_files_of_their_own(
    tiny_bert: Path, tiny_distilbert: Path
) -> None:
    texts = ["good film", "bad plot"]
    tokens.encoded(tokenizer(tiny_bert), texts, 16, False)
    tokens.encoded(tokenizer(tiny_bert), texts, 8, False)
    tokens.encoded(tokenizer(tiny_bert), ["good", "filmbad plot"], 16, False)
    other = tokenizer(tiny_bert)
    other.add_tokens(["good film"])
    assert not same(
        tokens.encoded(other, texts, 16, False),
        tokens.encoded(tokenizer(tiny_bert), texts, 16, False),
    )
    assert len(files()) == 4
    tokens.encoded(tokenizer(tiny_bert), ["new"], 16, True)  # with code of its own: not kept
    assert len(files()) == 4


def test_what_was_tokenized_before_does_not_matter(tiny_bert: Path) -> None:
    for _ in range(2):  # the second time, nothing is tokenized at all
        one = tokenizer(tiny_bert)
        for texts in (["good film"], ["bad plot"]):
            tokens.encoded(one, texts, 16, False)
        assert len(files()) == 2


@pytest.mark.parametrize("kept", [-8, 20, 4, 0])
def test_a_file_cut_short_is_made_anew(tiny_bert: Path, kept: int) -> None:
    texts = ["good film", "bad plot"]
    expected = tokens.encoded(tokenizer(tiny_bert), texts, 16, False)
    (file,) = files()
    file.write_bytes(file.read_bytes()[:kept])
    assert same(tokens.encoded(tokenizer(tiny_bert), texts, 16, False), expected)
    assert same(tokens.encoded(tokenizer(tiny_bert), texts, 16, False), expected)
