"""Trainings stacked K in one pass: texts a second over all of them, for K = 1, 2, 4, 8.

python benchmarks/stack.py [--sizes 1,2,4,8] [--batch 16] [--steps 10] [--precision auto] [--json]

LoRA of rank 8 on all linear layers of MiniLM, with other seeds, on the same Rotten Tomatoes
sentences in other orders; on a card where there is one, else on the processor. K = 1 is the loop of
a trial by itself. A ratio above 1 is what stacking gains.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from _measure import Contestant, arguments, compete, rate, report
from training import LABELS, folder, rows


def stacked(  # noqa: PLR0917
    model: str, size: int, batch: int, steps: int, precision: str, dropout: float
) -> Callable[[], float]:
    """`size` trainings of `steps` steps; by itself where it is one. Gives texts/s over all."""
    import numpy as np
    import torch

    from tunelab.core.values import Seeds
    from tunelab.methods import METHODS, neural
    from tunelab.methods.training import loop, stack
    from tunelab.methods.training.engine import choose_engine
    from tunelab.models import bases, batches, pretrained

    base = bases.resolve(folder(model))
    texts, labels = rows(batch * steps)
    method = METHODS["lora"]
    assert method.adapt is not None
    settings: Any = method.settings(
        per_device_train_batch_size=batch,
        precision=precision,
        lora_dropout=dropout,
        num_train_epochs=1000,  # the rate hardly falls in those few that are measured
    )
    tokenizer = pretrained.load_tokenizer(base)
    data = loop.TrainingData(
        batches.encode(tokenizer, texts, 128), np.asarray(labels), tuple(map(str, labels))
    )
    nets = [neural.adapted(base, LABELS, settings, method.adapt, k)[0] for k in range(size)]
    trainings = {
        k: loop.Training(
            net.to(pretrained.device()),
            pad_id=int(tokenizer.pad_token_id),
            train=data,
            validation=data,
            settings=settings,
            seeds=Seeds(k, k, k),
            on_step=lambda _: None,
        )
        for k, net in enumerate(nets)
    }
    engine = (
        choose_engine(nets[0], int(tokenizer.pad_token_id), settings)
        if size == 1
        else stack.shared_engine(list(trainings.values()))
    )
    for t in trainings.values():
        t.begin(engine)

    def work() -> None:
        loop.train_epoch(trainings, engine)
        for t in trainings.values():
            if t.error is not None:
                raise t.error
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    work()
    return rate(size * len(texts), work)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1,2,4,8")
    parser.add_argument("--model", choices=["minilm", "distilbert"], default="minilm")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--lora-dropout", type=float, default=0.1)
    a = parser.parse_args()
    same = {"model": a.model, "batch": a.batch, "steps": a.steps, "precision": a.precision,
            "dropout": a.lora_dropout}  # fmt: skip
    sizes = [int(k) for k in a.sizes.split(",")]
    results = compete(
        [Contestant(f"K = {k}", stacked, {**same, "size": k}) for k in sizes], a.rounds
    )
    report(
        f"Stacks, {a.model}, LoRA, batch {a.batch}", results, unit="texts/s",
        baseline=f"K = {sizes[0]}", as_json=a.as_json, steps=a.steps, precision=a.precision,
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
