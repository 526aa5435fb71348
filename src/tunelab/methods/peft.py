"""Parameter-efficient methods through peft: the base is frozen, a small adapter and the head train.

A new one is a settings class, a function settings -> peft config, and a row in METHODS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import Field

from tunelab.errors import ModelError
from tunelab.methods.method import Adapt, Method, Outcome, Task
from tunelab.settings import TrainingSettings

__all__ = ["METHODS", "LoraSettings"]

# (settings, targets, head modules) -> a peft config
Configure = Callable[[Any, Any, list[str]], Any]


class LoraSettings(TrainingSettings):
    """Settings of `lora`; names and meaning as in peft's LoraConfig."""

    # About ten times full fine-tuning's: LoRA's optimum lies there (Thinking Machines 2025).
    learning_rate: float = Field(5e-4, gt=0, le=10, description="peak learning rate of AdamW")
    r: int = Field(8, ge=1, description="rank of the update B A")
    lora_alpha: float = Field(16, gt=0, description="the update is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the update")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear",
        description="query, query-value, attention, all-linear, module names, or a regex",
    )
    modules_to_save: tuple[str, ...] = Field(
        (), description="modules trained in full and saved, besides the head"
    )
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases train")
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r) (rsLoRA)")
    use_dora: bool = Field(False, description="train magnitude and direction apart (DoRA)")
    init_lora_weights: bool | str = Field(
        True, description="true, gaussian, pissa, olora, orthogonal, ... as in peft"
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


def lora_config(s: LoraSettings, targets: Any, head: list[str]) -> Any:
    """LoRA: W' = W + (lora_alpha / r) B A, with A (r, in), B (out, r), B = 0 at first.

    Hu et al. 2021, arXiv:2106.09685.
    """
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=s.r,
        lora_alpha=s.lora_alpha,
        lora_dropout=s.lora_dropout,
        target_modules=targets,
        modules_to_save=list(dict.fromkeys([*head, *s.modules_to_save])),
        bias=s.bias,
        use_rslora=s.use_rslora,
        use_dora=s.use_dora,
        init_lora_weights=s.init_lora_weights,
        layers_to_transform=list(s.layers_to_transform) if s.layers_to_transform else None,
        rank_pattern=dict(s.rank_pattern),
        alpha_pattern=dict(s.alpha_pattern),
    )


def adapt_peft(
    model: Any, family: Any, head: list[str], settings: Any, configure: Configure
) -> Any:
    """Freeze the base, add the adapter that `configure` describes, train it and the head."""
    from peft import get_peft_model

    from tunelab import models

    targets = models.target_modules(family, settings.target_modules)
    check_targets(model, targets, head)
    return get_peft_model(model, configure(settings, targets, head))


def fit_peft(task: Task, adapt: Adapt) -> Outcome:
    """Train the adapter and the head."""
    from tunelab.methods import neural

    return neural.fit(task, adapt)


def check_targets(model: Any, targets: str | list[str], head: list[str]) -> None:
    """Refuse targets that match nothing, naming the linear layers that there are."""
    import re

    from tunelab import models

    names = [name for name, _ in model.named_modules()]
    asked = [targets] if isinstance(targets, str) else targets
    for target in asked:
        if isinstance(targets, str):
            found = any(re.fullmatch(target, n) for n in names)
        else:
            found = any(n == target or n.endswith("." + target) for n in names)
        if not found:
            there = ", ".join(models.linear_modules(model, head))
            raise ModelError(
                f"target_modules: {target!r} matches no module of this model. Expected a preset "
                f"(query, query-value, attention, all-linear), a regex, or some of: {there}."
            )


def _row(name: str, about: str, settings: type[TrainingSettings], configure: Configure) -> Method:
    adapt = partial(adapt_peft, configure=configure)
    return Method(name, about, settings, partial(fit_peft, adapt=adapt), adapt=adapt)


METHODS = (_row("lora", "LoRA: low-rank updates beside frozen weights", LoraSettings, lora_config),)
