"""Prompt methods through peft: virtual tokens are trained, in front of the text or in every layer.

They take up positions: max_length + num_virtual_tokens has to fit the base.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tunelab.bases import Base
from tunelab.errors import ModelError
from tunelab.families import FAMILIES
from tunelab.methods.peft import Asked, row, saved
from tunelab.settings import TrainingSettings

__all__ = ["METHODS"]


class PromptSettings(TrainingSettings):
    """Settings of `prompt-tuning`; names as in peft's PromptTuningConfig."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of AdamW")
    num_virtual_tokens: int = Field(20, ge=1, description="trained tokens before the text")


class PTuningSettings(PromptSettings):
    """Settings of `p-tuning`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    encoder_hidden_size: int = Field(128, ge=1, description="width of the prompt encoder")


class PrefixSettings(PromptSettings):
    """Settings of `prefix-tuning`."""


def prompt_config(a: Asked) -> Any:
    """Prompt tuning: trained embeddings before the text's, started from those of random words.

    Lester et al. 2021, arXiv:2104.08691.
    """
    from peft import PromptTuningConfig, PromptTuningInit, TaskType

    return PromptTuningConfig(
        task_type=TaskType.SEQ_CLS,
        num_virtual_tokens=a.settings.num_virtual_tokens,
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        modules_to_save=saved(a),
        **_sizes(a),
    )


def p_tuning_config(a: Asked) -> Any:
    """P-tuning: the prompt's embeddings come out of a small trained network.

    Liu et al. 2021, arXiv:2103.10385.
    """
    from peft import PromptEncoderConfig, TaskType

    return PromptEncoderConfig(
        task_type=TaskType.SEQ_CLS,
        num_virtual_tokens=a.settings.num_virtual_tokens,
        encoder_hidden_size=a.settings.encoder_hidden_size,
        modules_to_save=saved(a),
        **_sizes(a),
    )


def prefix_config(a: Asked) -> Any:
    """Prefix tuning: trained keys and values in every layer. Li & Liang 2021, arXiv:2101.00190."""
    from peft import PrefixTuningConfig, TaskType

    return PrefixTuningConfig(
        task_type=TaskType.SEQ_CLS,
        num_virtual_tokens=a.settings.num_virtual_tokens,
        modules_to_save=saved(a),
    )


def _sizes(a: Asked) -> dict[str, int]:
    """What peft looks for in the config under names that not every family uses."""
    config = a.model.config
    width = getattr(config, "embedding_size", config.hidden_size)
    return {
        "token_dim": int(width),
        "num_layers": int(config.num_hidden_layers),
        "num_attention_heads": int(config.num_attention_heads),
    }


def check_positions(base: Base, settings: Any) -> None:
    """Refuse a prompt that does not fit beside the longest text."""
    limit, virtual = base.max_positions, settings.num_virtual_tokens
    if limit is not None and settings.max_length + virtual > limit:
        raise ModelError(
            f"max_length is {settings.max_length} and num_virtual_tokens {virtual}, but "
            f"{base.ref.name} has positions for {limit} tokens in all. "
            f"Lower them: --max-length {max(4, limit - virtual)}"
        )


_NO_LAST_TOKEN = {
    name: "its head reads the last token, which peft cannot tell from padding behind embeddings"
    for name, family in FAMILIES.items()
    if family.last_token
}
_NO_CACHE = {
    name: "an encoder in transformers takes no keys and values from outside"
    for name, family in FAMILIES.items()
    if not family.last_token
}

_NO_NETWORK = {
    "modernbert": "peft takes the prompt network's mlp_head for the model's own module `head`"
}

METHODS = (
    row("prompt-tuning", "prompt tuning: trained tokens before the text", PromptSettings,
        prompt_config, refused=_NO_LAST_TOKEN, check=check_positions),
    row("p-tuning", "P-tuning: prompt tokens from a small network", PTuningSettings,
        p_tuning_config, refused=_NO_LAST_TOKEN | _NO_NETWORK, check=check_positions),
    row("prefix-tuning", "prefix tuning: trained keys and values in every layer", PrefixSettings,
        prefix_config, refused=_NO_CACHE, check=check_positions),
)  # fmt: skip
