"""Weights of 8 and 4 bits, as bitsandbytes holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunelab.models.bases import Quantization
from tunelab.models.families import USUAL_HEADS

__all__ = ["compute_exactly", "configuration"]


def configuration(quantization: Quantization, head: Sequence[str]) -> Any:
    """BitsAndBytesConfig (Dettmers et al. 2022, 2023) that leaves head and pooler in float."""
    from transformers import BitsAndBytesConfig as Config

    asked: dict[str, object] = dict(quantization)
    if "bnb_4bit_compute_dtype" in asked:
        asked["bnb_4bit_compute_dtype"] = getattr(torch, str(asked["bnb_4bit_compute_dtype"]))
    # transformers takes these as regular expressions from the start of a name, or as its end.
    skip = list(dict.fromkeys([*head, *USUAL_HEADS, r".*\.pooler"]))
    return Config(**asked, llm_int8_skip_modules=skip)  # type: ignore[no-untyped-call]


def compute_exactly(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for bfloat16 at the first evaluation.

    On a processor with AVX512-BF16 it would do so for good and in silence: scores would differ
    from those trained on, and a bias that is added in place would break training's next epoch.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
