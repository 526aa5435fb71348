"""What all methods through peft share: the base is frozen, a small adapter and the head train.

A new one is a settings class, a function settings -> peft config, and a `row` in lora.py,
adapters.py or prompts.py. `check` refuses what cannot work from the names and shapes in the base's
weight files, so that a study finds out before anything is trained and without loading torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import Field

from tunelab import bases
from tunelab.bases import Base
from tunelab.errors import ConfigError, ModelError
from tunelab.families import FAMILIES, Family, family_of, target_modules
from tunelab.methods.method import Adapt, Extras, Method, Outcome, Task
from tunelab.settings import TrainingSettings

__all__ = [
    "Asked",
    "Configure",
    "TargetSettings",
    "check_settings",
    "check_targets",
    "matches",
    "matrices",
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


def fit_peft(task: Task, adapt: Adapt, extras: Extras) -> Outcome:
    """Train the adapter and the head."""
    from tunelab.methods import neural

    return neural.fit(task, adapt, extras)


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
) -> Method:
    """A row of METHODS for a peft config. `then` changes the wrapped model before training."""
    adapt = partial(adapt_peft, configure=configure, then=then)
    return Method(
        name, about, settings, partial(fit_peft, adapt=adapt, extras=extras),
        adapt=adapt, refused=refused or {}, check=check or check_settings,
    )  # fmt: skip


# --- before anything is trained -------------------------------------------------------------


def check_settings(base: Base, settings: Any) -> None:
    """Refuse targets that the base does not have, and ranks above a targeted layer's width."""
    asked = getattr(settings, "target_modules", None)
    if not asked:
        return
    family = family_of(base, settings)
    if asked not in ("", *family.targets):
        _check_names(base, target_modules(family, asked))
    rank = getattr(settings, "r", None)
    if rank is not None and getattr(settings, "rank_is_bounded", True):
        _check_rank(base, target_modules(family, asked), settings)


def matrices(base: Base) -> dict[str, tuple[int, ...]]:
    """Weight matrices of the base by module name, embedding tables left out."""
    return {
        key.removesuffix(".weight"): shape
        for key, shape in bases.weight_shapes(base).items()
        if key.endswith(".weight") and len(shape) == 2 and "embed" not in key.lower()
    }


def _check_names(base: Base, targets: str | list[str]) -> None:
    if isinstance(targets, str):
        _compiled(targets)  # whether it matches is seen on the model: its names have a prefix
        return
    names = matrices(base)
    for target in targets:
        # A user may write the model's prefix, which the weight file may lack.
        if not any(_ends(n, target) or _ends(target, n) for n in names):
            raise _no_match(target, sorted({_within_block(n) for n in names}))


def _check_rank(base: Base, targets: str | list[str], settings: Any) -> None:
    ranks = [settings.r, *getattr(settings, "rank_pattern", {}).values()]
    for name, shape in matrices(base).items():
        if not matches(name, targets):
            continue
        if max(ranks) > min(shape):
            raise ModelError(
                f"r is {max(ranks)}, but {name} of {base.ref.name} is {min(shape)} wide: a rank "
                f"above that adds nothing. Lower it: --r {min(shape)} or less."
            )


def check_targets(model: Any, targets: str | list[str], head: list[str]) -> None:
    """Refuse targets that match nothing, naming the linear layers that there are."""
    from tunelab import models

    names = [name for name, _ in model.named_modules()]
    for target in [targets] if isinstance(targets, str) else targets:
        one = target if isinstance(targets, str) else [target]
        if not any(matches(n, one) for n in names):
            raise _no_match(target, models.linear_modules(model, head))


def matches(name: str, targets: str | list[str]) -> bool:
    """As peft: a string is a regular expression for the whole name, a list has name endings."""
    if isinstance(targets, str):
        return _compiled(targets).fullmatch(name) is not None
    return any(_ends(name, t) for t in targets)


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise ModelError(
            f"target_modules: {pattern!r} is neither a preset ({', '.join(_PRESETS)}) nor a "
            f"regular expression ({e})."
        ) from None


def _no_match(target: str, there: list[str]) -> ModelError:
    return ModelError(
        f"target_modules: {target!r} matches no module of this model. Expected a preset "
        f"({', '.join(_PRESETS)}), a regex, or some of: {', '.join(there)}."
    )


def _within_block(name: str) -> str:
    parts = name.split(".")
    numbers = [i for i, p in enumerate(parts) if p.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


_PRESETS = tuple(FAMILIES["bert"].targets)
