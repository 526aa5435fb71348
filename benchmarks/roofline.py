"""How near training comes to what this processor can multiply.

python benchmarks/roofline.py [--model minilm|distilbert] [--mode lora|full] [--rounds 5] [--json]

The floor counts matrix products only: an encoder weight takes part in 2 operations a token in the
forward pass, 2 more for the gradient of what lies below, and 2 more where it learns: 4 a weight and
token for LoRA, 6 for full fine-tuning. The peak is torch's own best product at the model's shapes.
"""

from __future__ import annotations

import time
from typing import Any

from _measure import Contestant, Result, arguments, compete, report
from training import folder, ours, rows

OPERATIONS = {"lora": 4, "full": 6}


def peak(dtype: str, width: int, wide: int, tokens: int = 448) -> float:
    """Floating-point operations a second of the best of many products, at a layer's shapes."""
    import torch

    best = 0.0
    for k, n in ((width, width), (width, wide), (wide, width)):
        x = torch.randn(tokens, k).to(getattr(torch, dtype))
        w = torch.randn(n, k).to(getattr(torch, dtype))
        for _ in range(100):
            started = time.perf_counter()
            torch.nn.functional.linear(x, w)
            best = max(best, 2 * tokens * k * n / (time.perf_counter() - started))
    return best


def shape(model: str) -> dict[str, float]:
    """Encoder weights, and tokens of a text on average."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModel

    from tunelab.models import bases, batches, pretrained

    path = folder(model)
    with torch.device("meta"):
        net: Any = AutoModel.from_config(AutoConfig.from_pretrained(path))
    weights = sum(
        m.weight.numel() for n, m in net.named_modules()
        if isinstance(m, torch.nn.Linear) and "pooler" not in n
    )  # fmt: skip
    tokenizer = pretrained.load_tokenizer(bases.resolve(path))
    lengths = batches.encode(tokenizer, rows(1000)[0], 128).lengths
    config = net.config
    return {
        "weights": weights,
        "tokens": float(np.mean(lengths)),
        "width": config.hidden_size,
        "wide": getattr(config, "intermediate_size", None) or config.hidden_dim,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=["minilm", "distilbert"], default="minilm")
    parser.add_argument("--mode", choices=list(OPERATIONS), default="lora")
    parser.add_argument("--steps", type=int, default=20)
    a = parser.parse_args()
    about = shape(a.model)
    same = {"model": a.model, "mode": a.mode, "batch": 16, "steps": a.steps, "dropout": 0.0}
    measured = compete(
        [Contestant(f"tunelab, {p}", ours, {**same, "engine": "auto", "precision": p})
         for p in ("float32", "bfloat16")],
        a.rounds,
    )  # fmt: skip
    work = OPERATIONS[a.mode] * about["weights"] * about["tokens"]
    floors = [
        Result(
            f"floor, {p}",
            (peak(p, int(about["width"]), int(about["wide"])) / work,) * a.rounds,
            None,
        )
        for p in ("float32", "bfloat16")
    ]
    results = [r for pair in zip(floors, measured, strict=True) for r in pair]
    report(
        f"Roofline, {a.model}, {a.mode}, batch 16", results, unit="texts/s",
        baseline="floor, float32", as_json=a.as_json, operations_a_text=f"{work / 1e9:.2f} G",
        of_the_floor={m.name: f"{m.median / f.median:.0%}"
                      for f, m in zip(floors, measured, strict=True)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
