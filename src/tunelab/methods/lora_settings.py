"""The settings of LoRA and its variations, a class each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunelab.methods.peft import TargetSettings

__all__ = [
    "AdaLoraSettings",
    "DoraSettings",
    "EvaSettings",
    "LoraFaSettings",
    "LoraPlusSettings",
    "LoraSettings",
    "OloraSettings",
    "PissaSettings",
    "QLora4Settings",
    "QLoraSettings",
    "RsLoraSettings",
]


class LoraSettings(TargetSettings):
    """Settings of `lora`; names and meaning as in peft's LoraConfig."""

    # About ten times full fine-tuning's: LoRA's optimum lies there (Thinking Machines 2025).
    learning_rate: float = Field(5e-4, gt=0, le=10, description="peak learning rate of AdamW")
    r: int = Field(8, ge=1, description="rank of the update B A")
    lora_alpha: float = Field(16, gt=0, description="the update is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the update")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases train")
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r) (rsLoRA)")
    use_dora: bool = Field(False, description="train magnitude and direction apart (DoRA)")
    init_lora_weights: bool | Literal["gaussian", "orthogonal", "pissa", "olora"] = Field(
        True, description="true (A random, B zero), gaussian, orthogonal, pissa or olora"
    )
    layers_to_transform: tuple[int, ...] | None = Field(
        None, description="numbers of the layers that get an adapter; all when left out"
    )
    rank_pattern: dict[str, int] = Field(
        default_factory=dict, description="rank for modules matching a regex"
    )
    alpha_pattern: dict[str, float] = Field(
        default_factory=dict, description="lora_alpha for modules matching a regex"
    )


class RsLoraSettings(LoraSettings):
    """Settings of `rslora`."""

    # The update is sqrt(r) times LoRA's at the same lora_alpha.
    learning_rate: float = Field(2e-4, gt=0, le=10, description="peak learning rate of AdamW")
    use_rslora: Literal[True] = Field(True, description="scale by lora_alpha / sqrt(r) (rsLoRA)")


class DoraSettings(LoraSettings):
    """Settings of `dora`."""

    use_dora: Literal[True] = Field(True, description="train magnitude and direction apart (DoRA)")


class PissaSettings(LoraSettings):
    """Settings of `pissa`."""

    # A and B start large, so each step moves the product further than LoRA's.
    learning_rate: float = Field(2e-4, gt=0, le=10, description="peak learning rate of AdamW")
    init_lora_weights: str = Field(  # type: ignore[assignment]
        "pissa_niter_16",
        pattern=r"^pissa(_niter_[1-9]\d*)?$",
        description="pissa (exact), or pissa_niter_n: found in n iterations, much faster",
    )


class OloraSettings(LoraSettings):
    """Settings of `olora`."""

    learning_rate: float = Field(2e-4, gt=0, le=10, description="peak learning rate of AdamW")
    init_lora_weights: Literal["olora"] = Field("olora", description="QR decomposition of W")


class EvaSettings(LoraSettings):
    """Settings of `eva`."""

    init_lora_weights: Literal["eva"] = Field("eva", description="components of the layer's inputs")  # type: ignore[assignment]
    rho: float = Field(2.0, ge=1, description="a layer's rank may grow to rho * r, others shrink")
    eva_texts: int = Field(256, ge=1, description="training texts read to initialise")


class LoraPlusSettings(LoraSettings):
    """Settings of `lora-plus`."""

    learning_rate: float = Field(2e-4, gt=0, le=10, description="peak learning rate of A and head")
    loraplus_lr_ratio: float = Field(16, ge=1, description="learning rate of B over that of A")


class LoraFaSettings(LoraSettings):
    """Settings of `lora-fa`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")


class AdaLoraSettings(TargetSettings):
    """Settings of `adalora`; names as in peft's AdaLoraConfig."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    init_r: int = Field(12, ge=1, description="rank of every update at first")
    target_r: int = Field(8, ge=1, description="mean rank that is left in the end")
    lora_alpha: float = Field(32, gt=0, description="the update is scaled by lora_alpha / init_r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the update")
    tinit: float = Field(0.1, ge=0, description="steps before ranks fall; below 1, a share")
    tfinal: float = Field(0.3, ge=0, description="steps after ranks fell; below 1, a share")
    delta_t: int = Field(1, ge=1, description="steps between two allocations")
    beta1: float = Field(0.85, gt=0, lt=1, description="smoothing of the importance")
    beta2: float = Field(0.85, gt=0, lt=1, description="smoothing of its uncertainty")
    orth_reg_weight: float = Field(0.5, ge=0, description="weight of |P P' - I| in the loss")

    @property
    def r(self) -> int:
        """The largest rank, which a layer's width bounds."""
        return max(self.init_r, self.target_r)


class QLoraSettings(LoraSettings):
    """Settings of `qlora-8bit`."""

    llm_int8_threshold: float = Field(
        0.0,
        ge=0,
        description="columns of inputs above this are multiplied in 16 bits (LLM.int8: 6); "
        "0: none, so that a text's scores do not depend on its batch",
    )


class QLora4Settings(LoraSettings):
    """Settings of `qlora-4bit`; names as in transformers' BitsAndBytesConfig."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="the 16 values of 4 bits")
    bnb_4bit_use_double_quant: bool = Field(True, description="quantise the constants too")
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="type in which dequantised weights are multiplied; in own kernels precision "
        "decides (auto: bfloat16)",
    )
