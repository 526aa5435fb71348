"""Training on a card: Trainer + peft, tunelab, and tunelab with 8 and 16 trainings in a stack.

python benchmarks/gpu.py [--model minilm|distilbert] [--batch 16] [--steps 50] [--rounds 5] [--json]

LoRA of rank 8 on all linear layers, Rotten Tomatoes sentences. Figures are texts a second over all
trainings, absolute, with the card's name; the ratio is to the peer, whose runs come one after the
other. Refuses where there is no card: benchmarks/stack.py measures stacks on a processor.
"""

from __future__ import annotations

from _measure import Contestant, arguments, compete, report
from stack import stacked
from training import peer


def main() -> None:
    import torch

    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=["minilm", "distilbert"], default="minilm")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lora-dropout", type=float, default=0.1)
    a = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(
            2, "gpu.py: expected a CUDA device, found none. Run it on a machine with a card; "
            "benchmarks/stack.py measures the same on a processor.\n",
        )  # fmt: skip
    same = {"model": a.model, "batch": a.batch, "steps": a.steps, "dropout": a.lora_dropout}
    stock = "Trainer + peft as shipped"
    ours = [
        Contestant(
            "tunelab" if k == 1 else f"tunelab, {k} in a stack", stacked,
            {**same, "size": k, "precision": "auto"},
        )
        for k in (1, 8, 16)
    ]  # fmt: skip
    results = compete(
        [Contestant(stock, peer, {**same, "mode": "lora", "options": False, "card": True}), *ours],
        a.rounds,
    )
    report(
        f"Training on {torch.cuda.get_device_name()}, {a.model}, LoRA, batch {a.batch}", results,
        unit="texts/s", baseline=stock, as_json=a.as_json, steps=a.steps,
        card=torch.cuda.get_device_name(), lora_dropout=a.lora_dropout,
    )  # fmt: skip


if __name__ == "__main__":
    main()
