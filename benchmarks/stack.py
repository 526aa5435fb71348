"""Trainings stacked K in one pass: texts a second over all of them, for K = 1, 2, 4, 8.

python benchmarks/stack.py [--sizes 1,2,4,8] [--batch 16] [--steps 10] [--precision auto] [--json]

LoRA of rank 8 on all linear layers of MiniLM, with other seeds, on the same Rotten Tomatoes
sentences in other orders; on a card where there is one, else on the processor. K = 1 is the loop of
a trial by itself. A ratio above 1 is what stacking gains.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any

from _measure import Contestant, arguments, compete, rate, report
from training import LABELS, folder, rows


def stacked(  # noqa: PLR0917
    model: str, size: int, batch: int, steps: int, precision: str, dropout: float
) -> Callable[[], float]:
    """`size` trainings of `steps` steps; by itself where it is one. Gives texts/s over all."""
    import numpy as np
    import torch

    from tunelab import bases, batching, models, stacking, train
    from tunelab.methods import METHODS, neural

    base = bases.resolve(folder(model))
    texts, labels = rows(batch * steps)
    method = METHODS["lora"]
    assert method.adapt is not None
    settings: Any = method.settings(
        per_device_train_batch_size=batch, precision=precision, lora_dropout=dropout
    )
    tokenizer = models.load_tokenizer(base)
    data = train.TrainingData(
        batching.encode(tokenizer, texts, 128), np.asarray(labels), tuple(map(str, labels))
    )
    nets = [neural.adapted(base, LABELS, settings, method.adapt, k)[0] for k in range(size)]
    for net in nets:
        net.to(models.device())
    train.kernels.keep_memory()

    def epoch(seed: int) -> Generator[train.Ask, Any, None]:
        engine = yield train.Join(nets[seed], int(tokenizer.pad_token_id), settings, seed)
        step = train._stepper(nets[seed], engine, data, settings, steps=10_000, hooks=train.Hooks())
        yield train.Turn(training=True)
        nets[seed].train()
        order = np.random.default_rng(seed)
        for part in batching.train_batches(data.encoded.lengths, batch, order):
            yield from step(part)
        yield train.Turn(training=False)

    def work() -> None:
        if size == 1:
            train.alone(epoch(0))
        else:
            for gave in stacking.run([epoch(k) for k in range(size)]):
                if isinstance(gave, Exception):
                    raise gave
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
