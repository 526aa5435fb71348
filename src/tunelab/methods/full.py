"""Methods that train weights the base already has: all of them, its biases, or the head alone."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tunelab.core.errors import ModelError
from tunelab.methods.method import Costs, Extras, refusing, trained_by_gradient
from tunelab.methods.settings import FROZEN_DROPOUT, TrainingSettings
from tunelab.models.bases import Base
from tunelab.models.names import is_within

__all__ = [
    "METHODS",
    "BitFitSettings",
    "FullSettings",
    "ProbeSettings",
]


class FullSettings(TrainingSettings):
    """Settings of `full`."""

    any_family: ClassVar[bool] = True
    learning_rate: float = Field(5e-5, gt=0, le=10, description="peak learning rate of AdamW")
    freeze_layers: int = Field(
        0, ge=0, description="so many of the lowest layers stay as they are, embeddings too"
    )
    frozen_dropout: bool = FROZEN_DROPOUT


class ProbeSettings(TrainingSettings):
    """Settings of `probe`."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of AdamW")
    # A probe is a classifier on features, and those of a text are fixed (Alain & Bengio 2016).
    frozen_dropout: bool = Field(False, description=FROZEN_DROPOUT.description)


class BitFitSettings(TrainingSettings):
    """Settings of `bitfit`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")


def adapt_full(model: Any, _family: Any, _head: list[str], settings: FullSettings) -> Any:
    """Train every parameter (Devlin et al. 2019), but for the lowest `freeze_layers` layers."""
    from tunelab.models import parts

    if settings.freeze_layers:
        parts.freeze_layers(model, settings.freeze_layers)
    return model


def adapt_probe(model: Any, _family: Any, head: list[str], _settings: ProbeSettings) -> Any:
    """Train the head alone: a linear probe where the head is one layer (Alain & Bengio 2016)."""
    _freeze(model, head, biases=False)
    return model


def adapt_bitfit(model: Any, _family: Any, head: list[str], _settings: BitFitSettings) -> Any:
    """BitFit: train the biases and the head. Ben Zaken et al. 2021, arXiv:2106.10199."""
    _freeze(model, head, biases=True)
    return model


def _freeze(model: Any, head: list[str], biases: bool) -> None:
    for name, p in model.named_parameters():
        p.requires_grad_(is_within(name, head) or (biases and name.endswith(".bias")))


def check_full(base: Base, settings: FullSettings) -> None:
    """Refuse to freeze as many layers as there are."""
    layers = base.sizes.own_layers
    if layers is not None and settings.freeze_layers >= layers:
        raise ModelError(
            f"freeze_layers: expected fewer than the {layers} layers of {base.ref.name}, found "
            f"{settings.freeze_layers}. To train the head alone, use the method probe."
        )


_NO_BIAS = refusing("its layers have no biases", lambda family: not family.biased)

METHODS = (
    trained_by_gradient(
        "full",
        "full fine-tuning: every weight is trained",
        FullSettings,
        adapt_full,
        check=check_full,
        # Gradients, two moments and the best epoch's weights lie beside the weights.
        costs=Costs(work=6.0, weight_copies=5.0),
        extras=Extras(
            no_adapter="full fine-tuning has no adapter: the base itself is trained",
        ),
    ),
    trained_by_gradient(
        "probe",
        "the head alone on the frozen base",
        ProbeSettings,
        adapt_probe,
        costs=Costs(work=2.0, once=True),
        extras=Extras(no_adapter="a probe has no adapter: the head alone is trained"),
    ),
    trained_by_gradient(
        "bitfit",
        "BitFit: biases and head",
        BitFitSettings,
        adapt_bitfit,
        refused=_NO_BIAS,
    ),
)
