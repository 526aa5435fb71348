"""Settings that users write, typed and checked: the one place that knows their names and defaults.

Every method's settings are a frozen pydantic model that rejects unknown keys. Methods that train by
gradient extend TrainingSettings. A key is a flag on the command line (with dashes), a key in a
config file, and a column of results.csv; adding a field here or in a method's own model is enough.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ALIASES",
    "FROZEN_DROPOUT",
    "BestEpochMetric",
    "EncoderSettings",
    "Settings",
    "TrainingSettings",
]


# Metrics of the winning class or its rank; "loss" stands for those of probabilities.
BestEpochMetric = Literal[
    "accuracy",
    "f1_macro",
    "f1_weighted",
    "precision_macro",
    "precision_weighted",
    "recall_macro",
    "recall_weighted",
    "balanced_accuracy",
    "mcc",
    "roc_auc",
    "f1_micro",
    "f1_samples",
    "subset_accuracy",
    "quadratic_kappa",
    "loss",
]

# Names that users bring from other tools. Accepted, translated, and said aloud.
ALIASES = {
    "lora_r": "r",
    "lora_rank": "r",
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "lora_target": "target_modules",
    "lora_target_modules": "target_modules",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "max_seq_length": "max_length",
    "cutoff_len": "max_length",
    "lr_scheduler": "lr_scheduler_type",
    "scheduler": "lr_scheduler_type",
    "warmup_ratio": "warmup_steps",
    "label_smoothing": "label_smoothing_factor",
    "dtype": "precision",
    "mixed_precision": "precision",
}


class Settings(BaseModel):
    """Base of every method's settings: frozen, strict about names, checks its defaults too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class EncoderSettings(Settings):
    """Settings of every method that reads texts through a pretrained model."""

    max_length: Annotated[int, Field(ge=4, le=1_000_000)] | Literal["auto"] = Field(
        "auto",
        description="longest text in tokens, the rest is cut; auto: so many that 95% of training "
        "texts are whole, from 128 on, for 5 times the time of 128 at most",
    )
    per_device_eval_batch_size: int = Field(
        64, ge=1, description="texts scored at a time; does not change scores"
    )


class TrainingSettings(EncoderSettings):
    """Settings of every method that trains by gradient; names as in transformers.

    A method overrides the defaults that differ for it (its recommended learning rate).
    """

    learning_rate: float = Field(5e-5, gt=0, le=10, description="peak learning rate of AdamW")
    num_train_epochs: int = Field(3, ge=1, description="passes over the training part")
    per_device_train_batch_size: int = Field(16, ge=1, description="texts in one forward pass")
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="forward passes per optimizer step"
    )
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW weight decay (not on biases and norms)"
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate after warm-up"
    )
    warmup_steps: float = Field(
        0.06, ge=0, description="steps of linear warm-up; below 1, a share of all steps"
    )
    max_grad_norm: float = Field(
        1.0, ge=0, description="clip the gradient's norm; 0 for no clipping"
    )
    label_smoothing_factor: float = Field(
        0.0, ge=0, lt=1, description="probability mass spread over all classes"
    )
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: weight each class by 1 / its frequency in the loss"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better validation score"
    )
    metric_for_best_model: BestEpochMetric = Field(
        "accuracy", description="validation score that picks the best epoch (the study's metric)"
    )
    engine: Literal["auto", "plain"] = Field(
        "auto", description="auto: packed where the model can, equal results; plain: never"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: bfloat16 where the hardware multiplies it faster; adapters, head and "
        "optimizer stay in float32. float32 is exact; float16 needs a GPU",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, slower"
    )


# Of methods that may leave lower layers frozen. True is what transformers' Trainer does.
FROZEN_DROPOUT: Any = Field(
    True,
    description="dropout of the base in the layers below the lowest that is trained; false: they "
    "are computed once for all epochs and trials",
)
