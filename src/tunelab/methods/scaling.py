"""Other adapters through peft: vectors, Kronecker and Hadamard products, rotations, frequencies.

A settings class, a function to a peft config and a row each; what they share is in peft.py.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, ClassVar

from pydantic import Field, field_validator

from tunelab.core.errors import ConfigError, ModelError, suggest
from tunelab.methods.method import refusing
from tunelab.methods.peft import Asked, TargetSettings, check_settings, matches, row, saved
from tunelab.methods.settings import TrainingSettings
from tunelab.models.bases import Base, family_of, matrices
from tunelab.models.families import target_modules

__all__ = [
    "METHODS",
    "PEFT_TYPES",
    "REFUSED_TYPES",
]


# Those of peft's types that pass the contract and have no method of their own here.
PEFT_TYPES = (
    "LORA",
    "BOFT",
    "HRA",
    "MISS",
    "RANDLORA",
    "SHIRA",
    "C3A",
    "ROAD",
    "WAVEFT",
    "DELORA",
    "VBLORA",
    "GRALORA",
    "HIRA",
    "PVERA",
    "GLORA",
    "UNILORA",
    "TINYLORA",
    "ADAMSS",
    "BEFT",
    "DEFT",
    "FROD",
    "PEANUT",
    "PSOFT",
    "SUPERTUNING",
)
_PROMPT_OF_A_GENERATOR = "it puts tokens before what a model goes on writing, and labels no text"
# The others that classify no text so that its score is its own, and why.
REFUSED_TYPES = {
    "LILY": "its router takes the mean over all tokens of a batch, so that a text's scores depend "
    "on the texts beside it",
    "OSF": "peft merges it a second time into a base that it is merged into, without a word",
    "SHADOW": "it follows a decoder's loop over its layers; peft has it for language models alone",
    "CARTRIDGE": "it holds keys and values for a decoder that writes; prefix-tuning does that here",
    "CPT": _PROMPT_OF_A_GENERATOR,
    "ADAPTION_PROMPT": _PROMPT_OF_A_GENERATOR,
    "MULTITASK_PROMPT_TUNING": "it needs to be told each text's task",
    "POLY": "it needs to be told each text's task",
    "XLORA": "it mixes adapters that were trained before",
    "TRAINABLE_TOKENS": "it trains the vectors of tokens that are named, and there are none new",
}


class Ia3Settings(TrainingSettings):
    """Settings of `ia3`."""

    learning_rate: float = Field(5e-3, gt=0, le=10, description="peak learning rate of AdamW")


class VeraSettings(TargetSettings):
    """Settings of `vera`; names as in peft's VeraConfig."""

    learning_rate: float = Field(5e-3, gt=0, le=10, description="peak learning rate of AdamW")
    r: int = Field(256, ge=1, description="rank of the shared random matrices")
    vera_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the update")
    d_initial: float = Field(0.1, description="start of the vector d")
    rank_is_bounded: ClassVar[bool] = False  # its matrices are random: more ranks say more


class LohaSettings(TargetSettings):
    """Settings of `loha` and `lokr`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    r: int = Field(8, ge=1, description="rank of the factors")
    lora_alpha: float = Field(8, gt=0, description="the update is scaled by lora_alpha / r")
    rank_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of ranks")
    module_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of whole updates")


class OftSettings(TargetSettings):
    """Settings of `oft`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    oft_block_size: int = Field(32, ge=2, description="size of a rotation's blocks")
    module_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of rotations")


class FourierSettings(TargetSettings):
    """Settings of `fourierft`."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of AdamW")
    n_frequency: int = Field(1000, ge=1, description="trained frequencies of each update")
    scaling: float = Field(100.0, gt=0, description="factor of the update")


class PeftSettings(TargetSettings):
    """Settings of `peft`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    peft_type: str = Field("LORA", description="name in peft's PeftType, such as BOFT or HRA")
    peft_kwargs: dict[str, object] = Field(
        default_factory=dict, description="arguments of that type's config in peft"
    )

    @field_validator("peft_type")
    @classmethod
    def _known(cls, value: str) -> str:
        name = value.upper()
        if name in REFUSED_TYPES:
            raise ValueError(f"another type ({REFUSED_TYPES[name]})")
        if name not in PEFT_TYPES:
            raise ValueError(f"one of {', '.join(PEFT_TYPES)} (others have a method of their own)")
        return name


class LnSettings(TrainingSettings):
    """Settings of `ln-tuning`."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")


def _seq_cls() -> Any:
    from peft import TaskType

    return TaskType.SEQ_CLS


def ia3_config(a: Asked) -> Any:
    """IA3: keys, values and the input of the layer out of the feed-forward part times a vector.

    Liu et al. 2022, arXiv:2205.05638.
    """
    from peft import IA3Config

    keys_values = "|".join(n.replace(".", r"\.") for n in a.family.keys_values)
    return IA3Config(
        task_type=_seq_cls(),
        target_modules=rf".*\.({keys_values})|{a.family.down}",
        feedforward_modules=a.family.down,
        modules_to_save=saved(a),
        fan_in_fan_out=a.conv1d,
    )


def vera_config(a: Asked) -> Any:
    """VeRA: W' = W + diag(b) B diag(d) A, with B and A random, frozen and shared by all layers.

    Kopiczko et al. 2023, arXiv:2310.11454. A and B are saved too: no seed has to be trusted.
    """
    from peft import VeraConfig

    s = a.settings
    return VeraConfig(
        task_type=_seq_cls(),
        r=s.r,
        vera_dropout=s.vera_dropout,
        d_initial=s.d_initial,
        target_modules=a.targets,
        modules_to_save=saved(a),
        fan_in_fan_out=a.conv1d,
        save_projection=True,
    )


def loha_config(a: Asked) -> Any:
    """LoHa: W' = W + s (B1 A1) * (B2 A2), element by element. Hyeon-Woo et al. 2021, 2108.06098."""
    from peft import LoHaConfig

    return LoHaConfig(**_lycoris(a))


def lokr_config(a: Asked) -> Any:
    """LoKr: W' = W + s C (x) (B A), a Kronecker product. Yeh et al. 2023, arXiv:2309.14859."""
    from peft import LoKrConfig

    return LoKrConfig(**_lycoris(a))


def _lycoris(a: Asked) -> dict[str, object]:
    s = a.settings
    return {
        "task_type": _seq_cls(),
        "r": s.r,
        "alpha": s.lora_alpha,
        "rank_dropout": s.rank_dropout,
        "module_dropout": s.module_dropout,
        "target_modules": a.targets,
        "modules_to_save": saved(a),
    }


def oft_config(a: Asked) -> Any:
    """OFT: W' = W R, R block-diagonal and orthogonal. Qiu et al. 2023, arXiv:2306.07280."""
    from peft import OFTConfig

    s = a.settings
    return OFTConfig(
        task_type=_seq_cls(),
        r=0,
        oft_block_size=s.oft_block_size,
        module_dropout=s.module_dropout,
        target_modules=a.targets,
        modules_to_save=saved(a),
        fan_in_fan_out=a.conv1d,
    )


def fourierft_config(a: Asked) -> Any:
    """FourierFT: W' = W + s Re(IFFT2(F)), F sparse and trained. Gao et al. 2024, 2405.03003."""
    from peft import FourierFTConfig

    s = a.settings
    return FourierFTConfig(
        task_type=_seq_cls(),
        n_frequency=s.n_frequency,
        scaling=s.scaling,
        target_modules=a.targets,
        modules_to_save=saved(a),
        fan_in_fan_out=a.conv1d,
    )


def any_config(a: Asked) -> Any:
    """Whatever peft has: its config class with `peft_kwargs`, our targets and head."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    s = a.settings
    make: Any = PEFT_TYPE_TO_CONFIG_MAPPING[s.peft_type]
    known = {f.name for f in fields(make)}
    unknown = [k for k in s.peft_kwargs if k not in known]
    if unknown:
        raise ConfigError(
            f"peft_kwargs: {unknown[0]!r} is no argument of {make.__name__}."
            f"{suggest(unknown[0], sorted(known), what='Arguments')}"
        )
    more = {"fan_in_fan_out": a.conv1d, "progressbar": False}
    more = {k: v for k, v in more.items() if k in known}
    own = {"task_type": _seq_cls(), "target_modules": a.targets, "modules_to_save": saved(a)}
    try:
        return make(**{**own, **more, **s.peft_kwargs})
    except (TypeError, ValueError) as e:
        raise ConfigError(f"peft_kwargs: {make.__name__} refuses them ({e}).") from e


def _check_frequencies(base: Base, settings: Any) -> None:
    """Refuse more frequencies than a targeted weight has entries."""
    check_settings(base, settings)
    asked = target_modules(family_of(base, settings), settings.target_modules)
    for name, shape in matrices(base).items():
        if matches(name, asked) and settings.n_frequency > math.prod(shape):
            raise ModelError(
                f"n_frequency is {settings.n_frequency}, but {name} of {base.ref.name} has "
                f"{math.prod(shape)} entries. Lower it: --n-frequency {math.prod(shape)} or less."
            )


def _check_arguments(base: Base, settings: Any) -> None:
    """Make peft's config, which finds unknown and refused arguments."""
    check_settings(base, settings)
    family = family_of(base, settings)
    config = any_config(Asked(settings, ["any"], [], family, None))
    if settings.peft_type == "ADAMSS":  # it keeps the rank that was asked for, whatever it has
        targets = target_modules(family, settings.target_modules)
        widths = [min(s) for n, s in matrices(base).items() if matches(n, targets)]
        if widths and config.r > min(widths):
            raise ModelError(
                f"peft_kwargs: r is {config.r}, but a layer of {base.ref.name} is {min(widths)} "
                f"wide. Lower it: peft_kwargs: {{r: {min(widths)}}} or less."
            )


def ln_tuning_config(a: Asked) -> Any:
    """LN tuning: scales and shifts of the normalisation layers. Zhao et al. 2023, 2312.11420."""
    from peft import LNTuningConfig

    return LNTuningConfig(
        task_type=_seq_cls(), target_modules=list(a.family.norms), modules_to_save=saved(a)
    )


_NO_CONV1D = refusing(
    "peft adapts no Conv1D layer with it, which all of GPT-2's linear layers are",
    lambda family: family.conv1d,
)

METHODS = (
    row(
        "ia3",
        "IA3: keys, values and feed-forward inputs scaled by vectors",
        Ia3Settings,
        ia3_config,
    ),
    row("vera", "VeRA: shared random matrices, trained vectors", VeraSettings, vera_config),
    row(
        "loha",
        "LoHa: Hadamard product of two low-rank updates",
        LohaSettings,
        loha_config,
        refused=_NO_CONV1D,
    ),
    row(
        "lokr",
        "LoKr: Kronecker product as the update",
        LohaSettings,
        lokr_config,
        refused=_NO_CONV1D,
    ),
    row("oft", "OFT: weights rotated block by block", OftSettings, oft_config, refused=_NO_CONV1D),
    row(
        "fourierft",
        "FourierFT: a sparse spectrum as the update",
        FourierSettings,
        fourierft_config,
        check=_check_frequencies,
    ),
    row("ln-tuning", "LN tuning: normalisation layers alone", LnSettings, ln_tuning_config),
    row(
        "peft",
        "any other adapter of peft, by its peft_type",
        PeftSettings,
        any_config,
        check=_check_arguments,
    ),
)
