"""How training time and memory grow with rows and with the length of texts: LoRA on MiniLM.

python benchmarks/scaling.py [--rows 64] [--tokens 64] [--lengths 16,32,64,128,256,512]
                             [--rounds 3] [--json]

Two series of synthetic texts of one length each: rows x1, x2, x4, x8 of `--tokens` tokens, and
`--rows` rows of each length. A point is trained for one epoch (batch 16) in a process of its own,
once to warm up and then `--rounds` times; its time is the median. Linear time has the slope 1 of
log seconds over log tokens: a fixed cost lowers it, attention (quadratic in the length) raises it.
Exits with 1 where a slope is above 1.1.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from _measure import Contestant, arguments, compete, report

LIMIT = 1.1
SERIES = ("rows", "length")


def training(rows: int, tokens: int) -> Callable[[], float]:
    """The method's own `fit`; its figure is tokens a second of training, loading left out."""
    import numpy as np

    from tunelab.core.values import Split
    from tunelab.methods import METHODS, Task, fit_alone
    from tunelab.models import bases
    from tunelab.study.trial import named_seeds

    words = ("good", "bad", "film", "story", "with", "the", "music", "and")  # one token each
    draw = np.random.default_rng(0)

    def part(name: str, n: int) -> Split:
        # Two tokens of each text are the tokenizer's own.
        texts = tuple(" ".join(draw.choice(words, tokens - 2)) for _ in range(n))
        return Split(tuple(f"{name}-{i}" for i in range(n)), texts, np.arange(n) % 2)

    method = METHODS["lora"]
    task = Task(
        ("negative", "positive"), part("train", rows), part("validation", 2),
        bases.resolve("minilm"),
        method.settings(num_train_epochs=1, per_device_train_batch_size=16, max_length=512),
        named_seeds(0), "accuracy", lambda _: None,
    )  # fmt: skip
    fit_alone(method, task)
    return lambda: rows * tokens / fit_alone(method, task).train_seconds


def slope(points: Sequence[dict[str, Any]]) -> float:
    """Slope of log seconds over log tokens, least squares."""
    import numpy as np

    x, y = (np.log([p[k] for p in points]) for k in ("all_tokens", "seconds"))
    return float(np.polyfit(x, y, 1)[0])


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.set_defaults(rounds=3)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--lengths", default="16,32,64,128,256,512")
    a = parser.parse_args()
    sizes = [("rows", a.rows * k, a.tokens) for k in (1, 2, 4, 8)]
    sizes += [("length", a.rows, int(n)) for n in a.lengths.split(",")]
    results, points = [], []
    for series, rows, tokens in sizes:
        name = f"{series}: {rows} rows of {tokens} tokens"
        one = Contestant(name, training, {"rows": rows, "tokens": tokens})
        (result,) = compete([one], a.rounds)  # one process at a time: its peak is its own
        results.append(result)
        points.append({"series": series, "rows": rows, "tokens": tokens,
                       "all_tokens": rows * tokens, "seconds": rows * tokens / result.median,
                       "peak_bytes": result.peak_bytes})  # fmt: skip
    slopes = {s: round(slope([p for p in points if p["series"] == s]), 3) for s in SERIES}
    report(
        "Scaling of training: LoRA on MiniLM, one epoch, batch 16",
        results, unit="tokens/s", baseline=results[0].name, as_json=a.as_json,
        slope_of_log_seconds_over_log_tokens=slopes, limit=LIMIT,
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
        **({"points": points} if a.as_json else {
            "seconds": ", ".join(f"{p['seconds']:.2f}" for p in points)
        }),
    )  # fmt: skip
    over = {s: v for s, v in slopes.items() if v > LIMIT}
    if over:
        sys.exit(f"slope above {LIMIT}: {over}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TUNELAB_CACHE"] = scratch
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        main()
