"""What all methods through peft share: the base is frozen, a small adapter and the head train.

A new one is a settings class, a function settings -> peft config, and a `row` in lora.py,
scaling.py or prompts.py. `check` refuses what cannot work from the names and shapes in the base's
weight files, or in the model made from its config without weights, so that a study finds out before
anything is trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import Field

from tunelab.core.errors import ConfigError, ModelError
from tunelab.methods.method import Extras, Method, trained_by_gradient
from tunelab.methods.settings import FROZEN_DROPOUT, TrainingSettings
from tunelab.models.bases import Base, family_of, matrices
from tunelab.models.families import PRESETS, target_modules
from tunelab.models.family import Family
from tunelab.models.names import ends_in, is_within, within_block

__all__ = [
    "Asked",
    "Configure",
    "TargetSettings",
    "check_settings",
    "check_targets",
    "matches",
    "row",
    "saved",
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a peft config is made from: settings, the modules to adapt and those saved in full, the
    family, and the loaded model, for its sizes.
    """

    settings: Any
    targets: str | list[str]
    head: list[str]
    family: Family
    model: Any

    @property
    def conv1d(self) -> bool:
        """Whether adapted layers keep their weight as (in, out); quantised ones never do."""
        return self.family.conv1d and not getattr(self.model, "is_quantized", False)


Configure = Callable[[Asked], Any]


class TargetSettings(TrainingSettings):
    """Settings of every method that adapts layers by name."""

    target_modules: str | tuple[str, ...] = Field(
        "all-linear",
        description="query, query-value, attention, all-linear, module names, or a regex",
    )
    modules_to_save: tuple[str, ...] = Field(
        (), description="modules trained in full and saved, besides the head"
    )
    frozen_dropout: bool = FROZEN_DROPOUT


def saved(asked: Asked) -> list[str]:
    """Modules that are trained in full and saved with the adapter."""
    return list(dict.fromkeys([*asked.head, *getattr(asked.settings, "modules_to_save", ())]))


def adapt_peft(
    model: Any,
    family: Family,
    head: list[str],
    settings: Any,
    *,
    configure: Configure,
    then: Callable[[Any], None] | None = None,
) -> Any:
    """Freeze the base, add the adapter that `configure` describes, train it and the head."""
    from peft import get_peft_model

    asked = getattr(settings, "target_modules", None)
    targets = target_modules(family, asked) if asked else []
    config = configure(Asked(settings, targets, list(head), family, model))
    if asked:
        check_targets(model, targets, head)
    try:
        wrapped = get_peft_model(model, config)
    except (ValueError, TypeError) as e:
        reason = " ".join(str(e).split())
        raise ConfigError(f"peft refuses these settings on this model: {reason}") from e
    if then:
        then(wrapped)
    return wrapped


def row(
    name: str,
    about: str,
    settings: type[TrainingSettings],
    configure: Configure,
    *,
    extras: Extras = Extras(),  # noqa: B008  frozen
    then: Callable[[Any], None] | None = None,
    refused: Mapping[str, str] | None = None,
    check: Callable[[Base, Any], None] | None = None,
    why_alone: Callable[[Any], str | None] | None = None,
) -> Method:
    """A row of METHODS for a peft config. `then` changes the wrapped model before training.

    `why_alone(settings)`: why these cannot be trained in one pass with others; None where they can.
    """
    return trained_by_gradient(
        name,
        about,
        settings,
        partial(adapt_peft, configure=configure, then=then),
        extras=extras,
        refused=refused,
        check=check or check_settings,
        why_alone=why_alone,
    )


# --- before anything is trained -------------------------------------------------------------


def check_settings(base: Base, settings: Any) -> None:
    """Refuse what names something the base does not have, and ranks above a layer's width.

    Presets on a known family are held against the shapes in the weight files, without torch. What
    names modules is held against the model itself, made from its config without weights.
    """
    asked = getattr(settings, "target_modules", None)
    if not asked:
        return
    family = family_of(base, settings)
    targets = target_modules(family, asked)
    if isinstance(targets, str):
        _compiled(targets)
    _check_layers(base, settings)
    shapes = matrices(base)
    if asked not in family.targets or _names_modules(settings):
        shapes = _check_names(base, family, targets, settings)
    if getattr(settings, "r", None) is not None and getattr(settings, "rank_is_bounded", True):
        _check_rank(base, {n: s for n, s in shapes.items() if matches(n, targets)}, settings)


_NAME_PATTERNS = ("rank_pattern", "alpha_pattern")


def _names_modules(settings: Any) -> bool:
    return any(getattr(settings, key, None) for key in (*_NAME_PATTERNS, "modules_to_save"))


def _check_layers(base: Base, settings: Any) -> None:
    """layers_to_transform: numbers of layers that there are, and not beside a regex."""
    asked = getattr(settings, "layers_to_transform", None)
    if asked is None:
        return
    targets = settings.target_modules
    if isinstance(targets, str) and targets not in PRESETS:
        raise ConfigError(
            "layers_to_transform: works with a preset or module names, not with the regex "
            f"{targets!r}. Write the layers into the regex instead."
        )
    count = base.sizes.own_layers
    if not asked or (count and not all(0 <= n < count for n in asked)):
        there = f"the layers of {base.ref.name} are 0 to {count - 1}" if count else "one or more"
        raise ModelError(f"layers_to_transform: {there}, found {list(asked)}.")


def _check_names(
    base: Base, family: Family, targets: str | list[str], settings: Any
) -> dict[str, tuple[int, ...]]:
    """Hold every name against the model's modules; returns the shapes of its weight matrices."""
    from tunelab.models import parts, pretrained

    model = pretrained.skeleton(base)
    modules = dict(model.named_modules())
    saved_too = getattr(settings, "modules_to_save", ())
    for name in saved_too:
        if not any(ends_in(n, [name]) for n in modules):
            raise ModelError(
                f"modules_to_save: {name!r} is no module of {base.ref.name}. Its head: "
                f"{', '.join(_outside_the_encoder(model))}. Others end in, for example: "
                f"{', '.join(parts.linear_modules(model, ())[:8])}."
            )
    head = list(dict.fromkeys([*family.head, *saved_too]))
    check_targets(model, targets, head)
    shapes = {
        n: tuple(m.weight.shape)
        for n, m in modules.items()
        if getattr(getattr(m, "weight", None), "ndim", 0) == 2
    }
    for n, module in modules.items():
        if matches(n, targets) and n not in shapes:
            raise ModelError(
                f"target_modules: matches {n} of {base.ref.name}, a {type(module).__name__}, which "
                "has no weight matrix of its own. Expected linear layers, some of: "
                f"{', '.join(parts.linear_modules(model, head))}."
            )
    targeted = [n for n in shapes if matches(n, targets)]
    for key in _NAME_PATTERNS:
        for pattern, value in getattr(settings, key, {}).items():
            # As peft's get_pattern_key.
            one = _compiled(rf"(.*\.)?({pattern})$", key, pattern)
            if not any(one.match(n) for n in targeted):
                raise ModelError(
                    f"{key}: {pattern!r} matches none of the modules that are adapted. Expected a "
                    f"name, or a regex, for some of: {', '.join(_short_names(targeted))}."
                )
            if value <= 0:
                raise ConfigError(f"{key}: {pattern!r} is {value}, expected a number above 0.")
    return shapes


def _short_names(names: list[str]) -> list[str]:
    return sorted({within_block(n) for n in names})


def _outside_the_encoder(model: Any) -> list[str]:
    encoder = model.base_model_prefix
    return [n for n, m in model.named_children() if n != encoder and [*m.parameters()]]


def _check_rank(base: Base, targeted: Mapping[str, tuple[int, ...]], settings: Any) -> None:
    patterns = getattr(settings, "rank_pattern", {})
    for name, shape in targeted.items():
        own = [r for p, r in patterns.items() if re.match(rf"(.*\.)?({p})$", name)]
        rank = own[0] if own else settings.r
        if rank > min(shape):
            raise ModelError(
                f"r is {rank}, but {name} of {base.ref.name} is {min(shape)} wide: a rank "
                f"above that adds nothing. Lower it: --r {min(shape)} or less."
            )


def check_targets(model: Any, targets: str | list[str], head: list[str]) -> None:
    """Refuse targets that match nothing outside the head, naming the linear layers that there are.

    The head is trained in full: an adapter inside of it would be there twice.
    """
    from tunelab.models import parts

    names = [name for name, _ in model.named_modules() if not is_within(name, head)]
    for target in [targets] if isinstance(targets, str) else targets:
        one = target if isinstance(targets, str) else [target]
        if not any(matches(n, one) for n in names):
            raise _no_match(target, parts.linear_modules(model, head))


def matches(name: str, targets: str | list[str]) -> bool:
    """As peft: a string is a regular expression for the whole name, a list has name endings."""
    if isinstance(targets, str):
        return _compiled(targets).fullmatch(name) is not None
    return ends_in(name, targets)


def _compiled(
    pattern: str, key: str = "target_modules", said: str | None = None
) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        no_preset = f"neither a preset ({', '.join(PRESETS)}) nor" if said is None else "not"
        raise ModelError(
            f"{key}: {said or pattern!r} is {no_preset} a regular expression ({e})."
        ) from None


def _no_match(target: str, there: list[str]) -> ModelError:
    return ModelError(
        f"target_modules: {target!r} matches no module of this model. Expected a preset "
        f"({', '.join(PRESETS)}), a regex, or some of: {', '.join(there)}."
    )
