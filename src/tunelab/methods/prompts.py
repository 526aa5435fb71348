"""Prompt methods through peft: virtual tokens are trained, in front of the text or in every layer.

They take up positions: max_length + num_virtual_tokens has to fit the base.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tunelab.core.errors import ModelError
from tunelab.methods.method import refusing
from tunelab.methods.peft import Asked, row, saved
from tunelab.methods.settings import TrainingSettings
from tunelab.models.bases import Base
from tunelab.models.families import sizes_of

__all__ = [
    "METHODS",
]


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
        **_prompt_sizes(a),
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
        **_prompt_sizes(a),
    )


def prefix_config(a: Asked) -> Any:
    """Prefix tuning: trained keys and values in every layer. Li & Liang 2021, arXiv:2101.00190."""
    from peft import PrefixTuningConfig, TaskType

    return PrefixTuningConfig(
        task_type=TaskType.SEQ_CLS,
        num_virtual_tokens=a.settings.num_virtual_tokens,
        modules_to_save=saved(a),
    )


def _prompt_sizes(a: Asked) -> dict[str, int]:
    """What peft looks for in the config under names that not every family uses."""
    sizes = sizes_of(a.model.config.to_dict())
    known = {
        "token_dim": sizes.embedding,
        "num_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
    }
    return {k: v for k, v in known.items() if v is not None}


def check_positions(base: Base, settings: Any) -> None:
    """Refuse a prompt that does not fit beside the longest text."""
    limit, virtual = base.max_positions, settings.num_virtual_tokens
    if (
        limit is not None
        and settings.max_length != "auto"
        and settings.max_length + virtual > limit
    ):
        raise ModelError(
            f"max_length is {settings.max_length} and num_virtual_tokens {virtual}, but "
            f"{base.ref.name} has positions for {limit} tokens in all. "
            f"Lower them: --max-length {max(4, limit - virtual)}"
        )


_NO_LAST_TOKEN = refusing(
    "its head reads the last token, which peft cannot tell from padding behind embeddings",
    lambda family: family.anatomy.causal,
)
_NO_CACHE = refusing(
    "an encoder in transformers takes no keys and values from outside",
    lambda family: not family.anatomy.causal,
)
_NO_NETWORK = refusing(
    "peft takes the prompt network's mlp_head for the model's own module `head`",
    lambda family: "head" in family.head,
)

METHODS = (
    row(
        "prompt-tuning",
        "prompt tuning: trained tokens before the text",
        PromptSettings,
        prompt_config,
        refused=_NO_LAST_TOKEN,
        check=check_positions,
    ),
    row(
        "p-tuning",
        "P-tuning: prompt tokens from a small network",
        PTuningSettings,
        p_tuning_config,
        refused=_NO_LAST_TOKEN | _NO_NETWORK,
        check=check_positions,
    ),
    row(
        "prefix-tuning",
        "prefix tuning: trained keys and values in every layer",
        PrefixSettings,
        prefix_config,
        refused=_NO_CACHE,
        check=check_positions,
    ),
)
