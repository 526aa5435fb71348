"""A base, asked by loading it: are its files whole, do its tokens fit, do its scores hold?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tunelab.core.errors import ModelError
from tunelab.models import company, pretrained, scoring
from tunelab.models.bases import Base
from tunelab.models.batches import Batch, Encoded, pad

__all__ = [
    "check_computed",
    "check_files",
]


_TWO = ("0", "1")


def check_files(base: Base, *, head: bool) -> None:
    """Refuse files that lack a tensor, and tokens without an embedding; loads no weights."""
    tokenizer = pretrained.load_tokenizer(base)
    _refuse_no_pad(base, tokenizer)
    _refuse_tokens(base, tokenizer, base.sizes.vocabulary)
    if head:
        model: Any = pretrained.load_classifier(base, _TWO, 0, weightless=True)[0]
    else:
        model = pretrained.load_encoder(base, weightless=True)
    _refuse_tokens(base, tokenizer, pretrained.token_rows(model))


def check_computed(base: Base, max_length: int | None, *, head: bool) -> tuple[str, ...]:
    """As `check_files`, and the base computes: a text's score is its own, to the longest text.

    Returns what is worth saying of it.
    """
    check_files(base, head=head)  # without weights first: a config of other sizes would fill memory
    tokenizer = pretrained.load_tokenizer(base)
    # What is new is drawn; that must not move the user's random state.
    with torch.random.fork_rng([]):
        model: Any = pretrained.load_classifier(base, _TWO, 0)[0] if head else None
        model = model or pretrained.load_encoder(base)
        _refuse_tokens(base, tokenizer, pretrained.token_rows(model))
        model.eval()
        where = torch.device("cpu")
        try:
            ready = (
                [scoring.plain_scorer(model, where)[1]]
                if head
                else [_leaks(scoring.prepare_encoder(model, p)) for p in ("cls", "mean")]
            )
        except ModelError as e:
            raise ModelError(f"Model {base.ref.name}: {e}") from e
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as e:
            raise _does_not_compute(base, e) from e
        if max_length is not None:
            _refuse_positions(base, model, max_length, int(tokenizer.pad_token_id))
    return (f"The base's {company.PADDING_CHANGES}",) if any(ready) else ()


def _leaks(prepared: scoring.Prepared) -> bool:
    return company.PADDING_CHANGES in (prepared.why or "")


def _does_not_compute(base: Base, e: Exception) -> ModelError:
    reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
    return ModelError(
        f"Model {base.ref.name}: of the type {base.model_type!r}, which does not compute a text of "
        f"a few tokens ({type(e).__name__}: {reason}). Use another base."
    )


def _refuse_no_pad(base: Base, tokenizer: Any) -> None:
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"Model {base.ref.name}: its tokenizer names no padding token and no end of a text, so "
            "texts cannot lie side by side. Set tokenizer.pad_token to one of its tokens and save "
            "it: tokenizer.save_pretrained(folder)"
        )


def _refuse_tokens(base: Base, tokenizer: Any, rows: int | None) -> None:
    """Refuse a tokenizer that makes ids which an embedding of so many rows does not have."""
    if rows is None:
        return
    vocabulary = tokenizer.get_vocab()
    beyond = sorted((i, token) for token, i in vocabulary.items() if i >= rows)
    if beyond:
        number, token = beyond[0]
        raise ModelError(
            f"Model {base.ref.name}: its tokenizer has the token {token!r} with the number "
            f"{number}, but its embedding has {rows} rows (0 to {rows - 1}). Save both together: "
            "model.resize_token_embeddings(len(tokenizer)), or the tokenizer without it."
        )


def _refuse_positions(base: Base, model: Any, max_length: int, pad_id: int) -> None:
    """Refuse a length that the model cannot compute, whatever its config says."""
    for length in _lengths_to_try(base, max_length):
        try:
            _compute(model, length, pad_id)
        except (IndexError, RuntimeError) as e:
            first = e
            continue
        if length == max_length:
            return
        raise ModelError(
            f"max_length is {max_length}, but {base.ref.name} computes texts of {length} tokens "
            f"at most. Lower it: --max-length {length}"
        )
    raise _does_not_compute(base, first)


def _lengths_to_try(base: Base, max_length: int) -> list[int]:
    """The one that is asked for; then those that are left where positions begin after padding."""
    limit = base.max_positions
    pad = base.config.get("pad_token_id")
    after = (pad if isinstance(pad, int) else 0) + 1
    fewer = [] if limit is None else [n for n in (limit - after, limit // 2) if 0 < n < max_length]
    return [max_length, *fewer, min(3, max_length)]


def _compute(model: Any, length: int, pad_id: int) -> None:
    # No pad id, of the tokenizer or the model: positions may leave those out.
    pads = {pad_id, getattr(model.config, "pad_token_id", None)}
    middle = int(model.config.vocab_size) // 2
    token = next(i for i in range(middle, middle + len(pads) + 1) if i not in pads)
    text = Encoded((np.full(length, token, dtype=np.int64),))
    batch: Batch = pad(text, np.asarray([0]), pad_id)
    with torch.no_grad():
        model(
            input_ids=torch.from_numpy(batch.input_ids),
            attention_mask=torch.from_numpy(batch.attention_mask),
        )
