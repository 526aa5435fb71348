"""How many tokens a base makes of texts, and the limit that `max_length: auto` stands for."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunelab.core import cache
from tunelab.core.text_lengths import SHARE_WHOLE, TextLengths, TokenLimit
from tunelab.models import tokenizer_probe
from tunelab.models.bases import Base

__all__ = [
    "MOST_TIMES",
    "USUAL",
    "automatic",
    "count_tokens",
    "limits_on",
    "limit_of",
]

USUAL = 128  # tokens: no text is cut below it by `auto`, since short ones cost no more for it
MOST_TIMES = (
    5.0  # the training time that `auto` may take, against that of 128 tokens: 512 is within it
)
_STEP = 32
_COUNTED = 10_000  # texts
_LONGER_THAN_ANY = 1_000_000
# Changing how tokens are counted must change this, or old counts would be read back.
_COUNTS_VERSION = 1


def limit_of(asked: int | str, base: Base, texts: Sequence[str], taken: int = 0) -> int:
    """The limit in tokens of a `max_length`: as it is, or what `auto` is for training texts.

    `taken`: positions that stand for something else than text (a prompt's).
    """
    return asked if isinstance(asked, int) else automatic(count_tokens(base, texts), base, taken)


def automatic(counts: NDArray[np.int64], base: Base, taken: int = 0) -> int:
    """The least limit that keeps 95% of texts whole, a multiple of 32 from 128 on.

    It ends where the model has no more positions, and before training would take more than
    `MOST_TIMES` as long as with 128 tokens.
    """
    positions = None if base.max_positions is None else max(4, base.max_positions - taken)
    limit = USUAL
    while _share_cut(counts, limit) > 1 - SHARE_WHOLE:
        if _cost(counts, limit + _STEP, base) > MOST_TIMES:
            break
        limit += _STEP
        if positions is not None and limit >= positions:
            break
    return limit if positions is None else min(limit, positions)


def limits_on(
    counts: NDArray[np.int64],
    rows: int,
    base: Base,
    used: Iterable[int],
    *,
    chosen: Iterable[int] = (),
    kept: Iterable[int] = (),
) -> TextLengths:
    """What the limits that are `used` do to texts, beside the one that would be long enough.

    `counts` are of some of the `rows` texts, or of all; `chosen` and `kept` as in `TextLengths`.
    """
    enough = int(np.ceil(np.quantile(counts, SHARE_WHOLE, method="inverted_cdf") / _STEP)) * _STEP
    enough = min(enough, base.max_positions or enough)
    known = sorted({*used, enough})
    limits = tuple(TokenLimit(n, _share_cut(counts, n), _cost(counts, n, base)) for n in known)
    return TextLengths(
        base.ref.name,
        base.max_positions,
        rows,
        len(counts),
        limits,
        tuple(sorted(set(chosen))),
        tuple(sorted(set(kept))),
    )


def count_tokens(base: Base, texts: Sequence[str]) -> NDArray[np.int64]:
    """Tokens of each text (special ones included), of 10,000 at most, evenly spaced: (n,).

    Kept in the cache by tokenizer and texts. Loads no torch where the base has a tokenizer.json.
    """
    if len(texts) > _COUNTED:
        texts = [texts[i] for i in np.linspace(0, len(texts) - 1, _COUNTED).astype(int)]
    path = cache.folder() / "lengths" / f"{_key(base, texts)}.npy"
    content = cache.kept(path)
    if content is not None:
        known: NDArray[np.int64] = np.load(io.BytesIO(content))
        return known
    counts = _token_counts(base, texts)
    buffer = io.BytesIO()
    np.save(buffer, counts)
    cache.keep(path, buffer.getvalue())
    return counts


def _token_counts(base: Base, texts: Sequence[str]) -> NDArray[np.int64]:
    file = base.path / "tokenizer.json"
    if base.runs_its_code or not file.is_file():
        return _counts_by_transformers(base, texts)
    from tokenizers import Tokenizer

    tokenizer_probe.refuse_endless(base.ref.name, base.path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises nothing narrower; who loads the base says what is wrong
        return _counts_by_transformers(base, texts)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts: list[int] = []
    for i in range(0, len(texts), 256):
        counts += [len(e.ids) for e in tokenizer.encode_batch_fast(list(texts[i : i + 256]))]
    return np.maximum(1, np.asarray(counts, dtype=np.int64))  # of nothing, one token is made


def _counts_by_transformers(base: Base, texts: Sequence[str]) -> NDArray[np.int64]:
    from tunelab.models import batches, pretrained

    return batches.encode(pretrained.load_tokenizer(base), texts, _LONGER_THAN_ANY).lengths


def _key(base: Base, texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    digest.update(
        json.dumps([_COUNTS_VERSION, base.tokenizer_sha256, base.ref.code_sha256]).encode()
    )
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:32]


def _share_cut(counts: NDArray[np.int64], limit: int) -> float:
    return float((counts > limit).mean()) if len(counts) else 0.0


def _cost(counts: NDArray[np.int64], limit: int, base: Base) -> float:
    """Training time against that of `USUAL` tokens: arithmetic of all tokens, and of attention.

    A token of a layer takes 24 width^2 operations with weights and 4 width for each token that it
    looks at, so attention adds n / (6 width) to the time of a text of n tokens.
    """
    width = base.sizes.width or 384

    def work(longest: int) -> float:
        read = np.minimum(counts, longest).astype(np.float64)
        return float((read * (1 + read / (6 * width))).sum())

    usual = work(USUAL)
    return work(limit) / usual if usual else 1.0
