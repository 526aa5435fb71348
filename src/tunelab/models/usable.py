"""Whether a base can be used at all, found out before anything is trained.

What its files say is asked first, without torch. Then it is loaded as training would load it:
without weights where the type has a row, with them where nothing is known of it. What was fine once
is remembered by content, so that the next study's plan loads nothing.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

from tunelab.core import cache
from tunelab.core.errors import ModelError
from tunelab.models import bases
from tunelab.models.bases import Base
from tunelab.models.families import AN_ENCODER, FAMILIES

__all__ = [
    "check_base",
    "refuse_by_config",
]


# Changing what is checked must change this, or bases would pass for what was not asked of them.
_CHECKS_VERSION = 1
# Of unknown types, what is larger is not loaded for planning: its trials ask it.
_MOST_TO_LOAD = 1_000_000_000


def refuse_by_config(base: Base) -> None:
    """Refuse what config.json alone says cannot be trained here. Raises ModelError."""
    name, config = base.ref.name, base.config
    said = config.get("quantization_config")
    if said:
        how = said.get("quant_method") if isinstance(said, dict) else None
        raise ModelError(
            f"Model {name}: its weights are quantised already ({how or 'quantization_config'}). "
            "Give the float original; qlora-4bit and qlora-8bit quantise it while it is loaded."
        )
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"Model {name}: of the type {base.model_type!r}, an encoder with a decoder, which no "
            f"method here trains. Expected a text encoder or decoder, such as {AN_ENCODER}."
        )


def check_base(base: Base, max_length: int | None, *, head: bool) -> tuple[str, ...]:
    """Refuse a base that cannot be loaded whole, or whose tokens or scores would be wrong.

    `head`: whether a classifier is trained on it, and not vectors read from it. `max_length`: of
    the longest text, where it is known. Returns what is worth saying. Raises ModelError.
    """
    if base.ref.name == bases.BUNDLED:  # its hash is the published one
        return ()
    kept = cache.folder() / "bases" / f"{_content_key(base, max_length, head)}.json"
    known = cache.kept_json(kept)
    if isinstance(known, dict) and isinstance(known.get("notes"), list):
        return tuple(map(str, known["notes"]))
    from tunelab.models import asked

    large = bases.count_parameters(base) > _MOST_TO_LOAD
    if base.model_type in FAMILIES or large:
        asked.check_files(base, head=head)
        notes: tuple[str, ...] = ()
    else:
        notes = asked.check_computed(base, max_length, head=head)
    cache.keep_json(kept, {"base": base.ref.name, "notes": notes}, bounded=False)
    return notes


@lru_cache(maxsize=1)
def _transformers() -> str:
    """Which transformers is installed: a file is read for it, and every setting of a grid asks."""
    from importlib.metadata import version

    return version("transformers")


def _content_key(base: Base, max_length: int | None, head: bool) -> str:
    tokenizer = base.path / "tokenizer_config.json"
    said: list[Any] = [
        _CHECKS_VERSION,
        _transformers(),
        base.ref.sha256,
        base.ref.code_sha256,
        base.config,
        base.tokenizer_sha256,
        tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None,
        head,
        None if base.model_type in FAMILIES else max_length,
    ]
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
