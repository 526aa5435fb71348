"""A study of K LoRA trials: `tunelab compare --jobs auto` against K runs of Trainer + peft in turn.

python benchmarks/study.py [--rows 1600] [--trials 8] [--rounds 1] [--json]

Both train the bundled MiniLM on the same Rotten Tomatoes rows, one epoch, batch 16, r=8, alpha=16,
all linear layers, dropout 0.1, seeds 0 to K - 1, and score the validation rows after the epoch.
The peer starts a fresh Python for each run (benchmarks/peer.py), as a script in a loop does.
tunelab's time is of the whole command, which also scores the test rows, measures latency, saves
every classifier and writes the report. Seconds are wall time, from nothing to the last result.
tunelab runs twice: the first study on a machine compiles the kernels, finds out the fastest number
format and puts the report's chart library together, and every later one has these. No vector, token
or result is left from the first.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import Result, arguments, report, shared_data

OURS, PEER = "tunelab compare", "Trainer + peft, in turn"
FIRST = f"{OURS}, the first study on a machine"


def cut(folder: Path, rows: int) -> None:
    """Write `rows` training rows and a quarter as many (or all) to validate and test, shuffled."""
    import pandas as pd

    for part, n in (("train", rows), ("validation", rows // 4), ("test", rows // 4)):
        frame = pd.read_parquet(shared_data() / f"{part}.parquet")
        frame.sample(n=min(n, len(frame)), random_state=0)[["text", "label"]].to_parquet(
            folder / f"{part}.parquet"
        )


def ours(data: Path, trials: int, out: Path) -> list[float]:
    """Run the study; give each trial's validation accuracy."""
    study = out.with_suffix(".yaml")
    study.write_text(
        f"data: {json.dumps(str(data))}\nmodel: minilm\nseeds: {trials}\ntuning: off\njobs: auto\n"
        "training: {num_train_epochs: 1, per_device_train_batch_size: 16, learning_rate: 5.0e-4}\n"
        "methods: [{name: lora, r: 8, lora_alpha: 16, lora_dropout: 0.1, "
        "target_modules: all-linear}]\n"
    )
    code = "from tunelab.cli import main; main()"
    run([sys.executable, "-c", code, "compare", str(study), "--output-dir", str(out), "--quiet"])
    from tunelab.core import study_folder

    return [float(r.scores["eval_accuracy"] or 0) for r in study_folder.read_study(out).results]


def peer(data: Path, trials: int) -> tuple[list[float], int]:
    """Run the peer once a seed; give validation accuracies and the largest peak memory (bytes)."""
    script = Path(__file__).with_name("peer.py")
    said: list[dict[str, Any]] = [
        json.loads(run([sys.executable, str(script), str(data), "--seed", str(k)]).splitlines()[-1])
        for k in range(trials)
    ]
    return [s["accuracies"][-1] for s in said], max(s["peak_bytes"] or 0 for s in said)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def forget(cache: Path) -> None:
    """Leave only what belongs to the machine."""
    for left in cache.glob("*"):
        if left.name != "machine":
            shutil.rmtree(left)


def difference(ours: list[float], peer: list[float]) -> str:
    """Mean difference over seeds with its 95% interval (Welch 1947: the two do not share seeds)."""
    from scipy import stats

    found = stats.ttest_ind(ours, peer, equal_var=False)
    low, high = found.confidence_interval(0.95)
    points = 100 * (statistics.mean(ours) - statistics.mean(peer))
    return f"{points:+.2f} points, 95% interval {100 * low:+.2f} to {100 * high:+.2f}"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.set_defaults(rounds=1)
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--trials", type=int, default=8)
    a = parser.parse_args()
    seconds: dict[str, list[float]] = {PEER: [], FIRST: [], OURS: []}
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        # No result of another run is taken from the cache, and nothing is downloaded.
        cache = root / "cache"
        os.environ["TUNELAB_CACHE"] = str(cache)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        data = root / "rows"
        data.mkdir()
        cut(data, a.rows)
        for i in range(a.rounds):
            shutil.rmtree(cache, ignore_errors=True)
            for who, took in seconds.items():
                forget(cache)
                started = time.perf_counter()
                if who == PEER:
                    scores[PEER], peak = peer(data, a.trials)
                else:
                    scores[OURS] = ours(data, a.trials, root / f"study{i}-{who == OURS}")
                took.append(time.perf_counter() - started)
                print(f"round {i + 1} of {a.rounds}: {who} {took[-1]:.1f} s", file=sys.stderr)
    results = [
        Result(who, tuple(60 * a.trials / s for s in took), (peak or None) if who == PEER else None)
        for who, took in seconds.items()
    ]
    report(
        f"Study: {a.trials} LoRA trials of {a.rows} rows, MiniLM, one epoch",
        results, unit="trials/min", baseline=PEER, as_json=a.as_json,
        seconds={k: [round(s, 1) for s in v] for k, v in seconds.items()},
        mean_validation_accuracy={k: round(statistics.mean(v), 4) for k, v in scores.items()},
        accuracy_difference=difference(scores[OURS], scores[PEER]),
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
        memory="the peer's: of its largest process; a trial's own is in tunelab's report",
    )  # fmt: skip


if __name__ == "__main__":
    main()
