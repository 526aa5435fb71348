"""One text at a time, and LoRA's steps, while other processes take every core.

python benchmarks/busy.py [--others 2] [--texts 20] [--steps 2] [--rounds 5] [--json]

So many other processes (--others, as many as there are cores; 0: none) do nothing but count. Every
contestant has the same LoRA-adapted MiniLM and labels the same sentences, one by one: onnxruntime
in float32 and a pipeline of transformers on the merged model, and tunelab, also with threads that
wait as OpenMP ships them. Steps of training (--steps 0: none) are 16 texts each, by transformers'
Trainer with peft and by tunelab. Only ratios within one run count.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from _measure import AS_SHIPPED, Contestant, arguments, compete, rate, report
from inference import LABELS, adapted, onnx, pipeline, texts
from training import ours as our_steps
from training import peer as peer_steps


def one_by_one(rows: int, precision: str) -> Callable[[], float]:
    """tunelab, a text a call."""
    from tunelab.core.values import BaseRef
    from tunelab.models.classifier import TransformerClassifier

    model, tokenizer = adapted()
    classifier = TransformerClassifier(
        model, tokenizer, tuple(LABELS), BaseRef("minilm", ""), 128, 64, precision=precision
    )
    some = texts(rows)
    classifier.scores(some)
    return rate(rows, lambda: [classifier.scores([text]) for text in some])


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--others", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2)
    a = parser.parse_args()
    n = a.texts
    exact = {"rows": n, "precision": "float32"}
    same = {"model": "minilm", "mode": "lora", "batch": 16, "steps": a.steps, "dropout": 0.1}
    peer = "Trainer + peft"
    one = [
        Contestant("onnxruntime, float32", onnx, {"rows": n, "batch": 1}, AS_SHIPPED),
        Contestant("pipeline", pipeline, {"rows": n}, AS_SHIPPED),
        Contestant("tunelab, float32", one_by_one, exact),
        Contestant("tunelab", one_by_one, {**exact, "precision": "auto"}),
        Contestant("tunelab, bfloat16", one_by_one, {**exact, "precision": "bfloat16"}),
        Contestant("tunelab, float32, threads as shipped", one_by_one, exact, AS_SHIPPED),
    ]
    auto = {**same, "engine": "auto", "precision": "auto"}
    steps = [
        Contestant(peer, peer_steps, {**same, "options": False}, AS_SHIPPED),
        Contestant("tunelab", our_steps, auto),
        Contestant("tunelab, threads as shipped", our_steps, auto, AS_SHIPPED),
    ]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(a.others)]
    try:
        kinds = (("one text at a time", one), ("training", steps if a.steps else []))
        for title, contestants in kinds:
            if not contestants:
                continue
            report(
                f"{title}, beside {a.others} busy processes", compete(contestants, a.rounds),
                unit="texts/s", baseline=contestants[0].name, as_json=a.as_json,
            )  # fmt: skip
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
