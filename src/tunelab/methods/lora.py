"""LoRA and what grew out of it: low-rank updates beside frozen weights.

W' = W + s B A with A (r, in), B (out, r), s = lora_alpha / r; the variants change how A and B
start, what scales them, which of them train, or how the frozen W is kept.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunelab.core.errors import ConfigError, TrialError
from tunelab.core.extras import install_line
from tunelab.methods.lora_settings import (
    AdaLoraSettings,
    DoraSettings,
    EvaSettings,
    LoraFaSettings,
    LoraPlusSettings,
    LoraSettings,
    OloraSettings,
    PissaSettings,
    QLora4Settings,
    QLoraSettings,
    RsLoraSettings,
)
from tunelab.methods.method import Extras, refusing
from tunelab.methods.peft import Asked, check_settings, row, saved
from tunelab.models.bases import Base, Quantization
from tunelab.models.names import PEFT_PREFIX

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import LoraLayer

__all__ = [
    "METHODS",
]


def lora_config(a: Asked) -> Any:
    """LoRA: W' = W + (lora_alpha / r) B A, with A (r, in), B (out, r), B = 0 at first.

    Hu et al. 2021, arXiv:2106.09685.
    """
    from peft import LoraConfig, TaskType

    s = a.settings
    layers = s.layers_to_transform
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=s.r,
        lora_alpha=s.lora_alpha,
        lora_dropout=s.lora_dropout,
        target_modules=a.targets,
        modules_to_save=saved(a),
        bias=s.bias,
        use_rslora=s.use_rslora,
        use_dora=s.use_dora,
        init_lora_weights=s.init_lora_weights,
        layers_to_transform=list(layers) if layers is not None else None,
        rank_pattern=dict(s.rank_pattern),
        alpha_pattern=dict(s.alpha_pattern),
        fan_in_fan_out=a.conv1d,
    )


def rslora_config(a: Asked) -> Any:
    """rsLoRA: W' = W + (lora_alpha / sqrt(r)) B A. Kalajdzievski 2023, arXiv:2312.03732."""
    return lora_config(a)


def dora_config(a: Asked) -> Any:
    """DoRA: W' = m (W + s B A) / |W + s B A| by columns, m trained. Liu et al. 2024, 2402.09353."""
    return lora_config(a)


def pissa_config(a: Asked) -> Any:
    """PiSSA: B A starts as the r largest singular components of W, the rest of W is frozen.

    Meng et al. 2024, arXiv:2404.02948. Kept afterwards as plain LoRA (`to_plain_lora`).
    """
    return lora_config(a)


def olora_config(a: Asked) -> Any:
    """OLoRA: B A starts from W = Q R, the first r columns and rows. Büyükakyüz 2024, 2406.01775."""
    return lora_config(a)


def eva_config(a: Asked) -> Any:
    """EVA: A starts as the components of the layer's inputs that explain most of their variance.

    Paischer et al. 2024, arXiv:2410.07170.
    """
    from peft import EvaConfig

    config = lora_config(a)
    config.eva_config = EvaConfig(rho=a.settings.rho)
    return config


def lora_fa_config(a: Asked) -> Any:
    """LoRA-FA: A stays as it was drawn, B is trained. Zhang et al. 2023, arXiv:2308.03303."""
    return lora_config(a)


def adalora_config(a: Asked) -> Any:
    """AdaLoRA: W' = W + s P diag(E) Q; entries of E that matter least are set to zero for good.

    Zhang et al. 2023, arXiv:2303.10512. The number of steps is set once it is known (`_adalora`).
    """
    from peft import AdaLoraConfig, TaskType

    s = a.settings
    return AdaLoraConfig(
        task_type=TaskType.SEQ_CLS,
        init_r=s.init_r,
        target_r=s.target_r,
        lora_alpha=s.lora_alpha,
        lora_dropout=s.lora_dropout,
        deltaT=s.delta_t,
        beta1=s.beta1,
        beta2=s.beta2,
        orth_reg_weight=s.orth_reg_weight,
        total_step=1,
        target_modules=a.targets,
        modules_to_save=saved(a),
        fan_in_fan_out=a.conv1d,
    )


# --- beside the config ----------------------------------------------------------------------


def _lora_layers(model: Any) -> dict[str, LoraLayer]:
    from peft.tuners.lora import LoraLayer

    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer) and m.lora_A}


def keep_start(model: Any, _encoded: Any, _pad_id: int, settings: Any) -> Any:
    """A and B as they were at first, for inits that take them out of the frozen weight."""
    if not str(settings.init_lora_weights).startswith(("pissa", "olora")):
        return None
    return {
        name: (
            m.lora_A["default"].weight.detach().clone(),
            m.lora_B["default"].weight.detach().clone(),
        )
        for name, m in _lora_layers(model).items()
    }


def to_plain_lora(model: Any, start: Any) -> dict[str, object]:
    """PiSSA and OLoRA as a LoRA of rank 2r on the base as it was: s B A - s B0 A0.

    The frozen weight gets back what was taken out of it, so the adapter fits the original base and
    needs no decomposition to be loaded again.
    """
    import torch

    if start is None:
        return {}
    config = model.peft_config["default"]
    for name, m in _lora_layers(model).items():
        a0, b0 = start[name]
        a, b = m.lora_A["default"], m.lora_B["default"]
        back = m.scaling["default"] * (b0 @ a0)
        with torch.no_grad():
            weight = m.get_base_layer().weight
            weight += back.T if m.fan_in_fan_out else back
            a.weight = torch.nn.Parameter(torch.cat([a.weight, a0]))
            b.weight = torch.nn.Parameter(torch.cat([b.weight, -b0], dim=1))
        a.out_features = b.in_features = m.r["default"] = 2 * m.r["default"]
        # The scale stays as it was: alpha grows with the rank (with its root for rsLoRA).
        m.lora_alpha["default"] *= 2**0.5 if config.use_rslora else 2
    grown = 2**0.5 if config.use_rslora else 2
    config.r *= 2
    config.lora_alpha *= grown
    config.rank_pattern = {k: 2 * v for k, v in config.rank_pattern.items()}
    config.alpha_pattern = {k: grown * v for k, v in config.alpha_pattern.items()}
    config.init_lora_weights = True
    return {"saved_rank": config.r}


def start_eva(model: Any, encoded: Any, pad_id: int, settings: Any) -> None:
    """Read training texts through the model and start each A from what its layer sees."""
    import numpy as np
    import torch
    from peft import initialize_lora_eva_weights

    from tunelab.models import pretrained
    from tunelab.models.batches import pad

    where = pretrained.device()
    size = settings.per_device_train_batch_size
    count = min(len(encoded), settings.eva_texts)
    rows = np.linspace(0, len(encoded) - 1, count).astype(np.int64)
    batches = []
    for i in range(0, count, size):
        batch = pad(encoded, rows[i : i + size], pad_id)
        batches.append(
            {
                "input_ids": torch.from_numpy(batch.input_ids).to(where),
                "attention_mask": torch.from_numpy(batch.attention_mask).to(where),
            }
        )
    with pretrained.quiet():
        initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    # Loaded again, A and B come from the file.
    model.peft_config["default"].init_lora_weights = True


def ranks(model: Any, _prepared: Any) -> dict[str, object]:
    """Rank of each layer, where they differ."""
    return {"ranks": {_short(n): m.r["default"] for n, m in _lora_layers(model).items()}}


def freeze_a(model: Any) -> None:
    """LoRA-FA's one difference."""
    for m in _lora_layers(model).values():
        m.lora_A["default"].requires_grad_(False)


def _loraplus(_model: Any, settings: Any, _steps: int) -> Any:
    """LoRA+: B learns `loraplus_lr_ratio` times as fast as A. Hayou et al. 2024, 2402.12354."""
    from tunelab.methods.training.updates import Hooks

    return Hooks(rate=lambda name: settings.loraplus_lr_ratio if "lora_B" in name else 1.0)


def _adalora(model: Any, settings: Any, steps: int) -> Any:
    """Plan the budget over the steps there are, allocate after each, keep P and Q orthogonal."""
    import torch

    from tunelab.methods.training.updates import Hooks

    config, tuner = model.peft_config["default"], model.base_model
    allocator = tuner.rankallocator
    tinit, tfinal = (int(x * steps) if x < 1 else int(x) for x in (settings.tinit, settings.tfinal))
    if tinit + tfinal >= steps:
        raise ConfigError(
            f"adalora: tinit ({tinit}) and tfinal ({tfinal}) leave none of the {steps} training "
            "steps for ranks to fall. Lower them, or train for more epochs."
        )
    config.total_step, config.tinit, config.tfinal = steps, tinit, tfinal
    allocator.set_total_step(steps)
    factors = [
        (p, "lora_A" in n)
        for n, p in model.named_parameters()
        if p.requires_grad and ("lora_A" in n or "lora_B" in n)
    ]
    done = 0

    def penalty() -> torch.Tensor:
        off = [
            torch.linalg.matrix_norm((p @ p.T if is_a else p.T @ p) - torch.eye(p.shape[not is_a]))
            for p, is_a in factors
        ]
        total: torch.Tensor = torch.stack(off).mean() * settings.orth_reg_weight
        return total

    def after_step() -> None:
        nonlocal done
        tuner.update_and_allocate(done)
        done += 1

    def kept() -> dict[str, torch.Tensor]:
        means = {f"{k} {n}": t for k in _IMPORTANCE for n, t in getattr(allocator, k).items()}
        left = {f"left {n}": torch.tensor(e) for n, e in (config.rank_pattern or {}).items()}
        return {**means, **left, "done": torch.tensor(done)}

    def go_on_from(tensors: Mapping[str, torch.Tensor]) -> None:
        nonlocal done
        done = int(tensors["done"])
        for key in _IMPORTANCE:
            setattr(allocator, key, _after(f"{key} ", tensors))
        left = _after("left ", tensors)
        if left:
            config.rank_pattern = {n: e.tolist() for n, e in left.items()}

    own_penalty = penalty if settings.orth_reg_weight else None
    return Hooks(penalty=own_penalty, after_step=after_step, kept=kept, go_on_from=go_on_from)


# What peft's allocator keeps of each weight.
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def _after(start: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those whose names begin so, by the rest."""
    return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}


def final_ranks(model: Any, _prepared: Any) -> dict[str, object]:
    """Which entries of E are left in the epoch that was kept; peft saves only those."""
    config = model.peft_config["default"]
    kept = {
        name: (p.detach() != 0).flatten().tolist()
        for name, p in model.get_base_model().named_parameters()
        if "lora_E" in name
    }
    config.rank_pattern = kept
    counts = {_short(n): sum(k) for n, k in kept.items()}
    return {"ranks": counts, "mean_rank": sum(counts.values()) / len(counts)}


def _short(name: str) -> str:
    return name.removeprefix(PEFT_PREFIX).removesuffix(".lora_E.default")


def _int8(s: QLoraSettings) -> Quantization:
    """LLM.int8(): 8-bit weights, outliers apart. Dettmers et al. 2022, arXiv:2208.07339."""
    return {"load_in_8bit": True, "llm_int8_threshold": s.llm_int8_threshold}


def _nf4(s: QLora4Settings) -> Quantization:
    """QLoRA: 4-bit NormalFloat, constants quantised too. Dettmers et al. 2023, 2305.14314."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": s.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": s.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": s.bnb_4bit_compute_dtype,
    }


def _check_quantised(base: Base, settings: Any) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "qlora needs bitsandbytes, which is not installed. Install it: "
            f"{install_line('quant')}, or use lora, which trains the same adapter on float weights."
        )
    if settings.init_lora_weights in ("pissa", "olora"):
        raise ConfigError(
            f"init_lora_weights: {settings.init_lora_weights} takes components out of the frozen "
            "weight, which qlora keeps in few bits. Use true or gaussian, or the method lora."
        )
    check_settings(base, settings)
    from tunelab.models import pretrained

    quantization = _nf4(settings) if isinstance(settings, QLora4Settings) else _int8(settings)
    try:
        pretrained.quantization_backend(quantization)
    except TrialError as e:
        raise ConfigError(str(e)) from e


def _why_alone(s: LoraSettings) -> str | None:
    """Why these settings cannot be stacked: what is trained or kept must be plain LoRA."""
    odd = {
        "engine: plain": s.engine == "plain",
        "gradient_checkpointing": s.gradient_checkpointing,
        f"bias: {s.bias}": s.bias != "none",
        "use_dora": s.use_dora,
        f"init_lora_weights: {s.init_lora_weights}": str(s.init_lora_weights).startswith(
            ("pissa", "olora", "eva")
        ),
        "modules_to_save": bool(s.modules_to_save),
    }
    return next((f"{k} changes more than adapters and head" for k, v in odd.items() if v), None)


_CONV1D_FLIPPED = refusing(
    "peft decomposes Conv1D weights the wrong way round", lambda family: family.conv1d
)
_READS_A_TABLE = refusing(
    "its layers also project the table of relative positions, which is not what a text's tokens "
    "look like",
    lambda family: family.anatomy.positions == "distances",
)
_PLAIN = Extras(prepare=keep_start, finish=to_plain_lora)

METHODS = (
    row(
        "lora",
        "LoRA: low-rank updates beside frozen weights",
        LoraSettings,
        lora_config,
        extras=_PLAIN,
        why_alone=_why_alone,
    ),
    row(
        "rslora",
        "rsLoRA: LoRA scaled by 1 / sqrt(r)",
        RsLoraSettings,
        rslora_config,
        extras=_PLAIN,
        why_alone=_why_alone,
    ),
    row("dora", "DoRA: LoRA on the direction, magnitudes apart", DoraSettings, dora_config),
    row(
        "pissa",
        "PiSSA: LoRA started from the weight's principal components",
        PissaSettings,
        pissa_config,
        extras=_PLAIN,
    ),
    row(
        "olora",
        "OLoRA: LoRA started from the weight's QR decomposition",
        OloraSettings,
        olora_config,
        extras=_PLAIN,
        refused=_CONV1D_FLIPPED,
    ),
    row(
        "eva",
        "EVA: LoRA started from what the layers see",
        EvaSettings,
        eva_config,
        extras=Extras(prepare=start_eva, finish=ranks),
        refused=_READS_A_TABLE,
    ),
    row(
        "lora-plus",
        "LoRA+: LoRA with a higher learning rate for B",
        LoraPlusSettings,
        lora_config,
        extras=Extras(prepare=keep_start, hooks=_loraplus, finish=to_plain_lora),
        why_alone=_why_alone,
    ),
    row(
        "lora-fa",
        "LoRA-FA: LoRA with A frozen",
        LoraFaSettings,
        lora_fa_config,
        then=freeze_a,
        why_alone=_why_alone,
    ),
    row(
        "adalora",
        "AdaLoRA: LoRA whose ranks fall where they matter least",
        AdaLoraSettings,
        adalora_config,
        extras=Extras(hooks=_adalora, finish=final_ranks),
    ),
    row(
        "qlora-8bit",
        "QLoRA: LoRA on a base in 8 bits",
        QLoraSettings,
        lora_config,
        extras=Extras(quantization=_int8),
        check=_check_quantised,
    ),
    row(
        "qlora-4bit",
        "QLoRA: LoRA on a base in 4 bits (NF4)",
        QLora4Settings,
        lora_config,
        extras=Extras(quantization=_nf4),
        check=_check_quantised,
    ),
)
