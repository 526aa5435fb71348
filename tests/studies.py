"""Make study folders for tests: real files by the store's real functions, from synthetic scores.

A row has a hidden difficulty that all methods share; a method has a skill, and a seed its own
noise. So methods are correlated over rows as real ones are, and scores follow from predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tunelab.core import files, study_folder
from tunelab.core.details import Details, Hardware, Provenance, Trained
from tunelab.core.values import (
    BaseRef,
    Cost,
    DataSpec,
    MethodSpec,
    Predictions,
    ScoreKind,
    TrialResult,
    TrialSpec,
)
from tunelab.stats.metrics import evaluate, per_class
from tunelab.stats.predictions import confusion

BINARY = ("negative", "positive")
VERSIONS = {"python": "3.12.4", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0"}


@dataclass(frozen=True)
class FakeMethod:
    """How a method of the synthetic study behaves and what it costs."""

    name: str
    skill: float
    kind: ScoreKind
    cost: Cost
    settings: dict[str, Any]
    varies: bool = True
    label: str | None = None


def _svm_cost(**kwargs: Any) -> Cost:
    return Cost(adapter_parameters=0, trainable_parameters=kwargs["head_parameters"], **kwargs)


METHODS = (
    FakeMethod(
        "svm-tfidf",
        0.75,
        "margin",
        _svm_cost(
            train_seconds=2.4,
            peak_memory_bytes=180_000_000,
            head_parameters=84_211,
            total_parameters=84_211,
            artifact_bytes=4_100_000,
            texts_per_second=9_400.0,
            latency_p50_seconds=0.0006,
            latency_p95_seconds=0.0011,
        ),
        {"C": [0.1, 1.0, 10.0], "ngram_range": [1, 2]},
        varies=False,
    ),
    FakeMethod(
        "svm",
        0.55,
        "margin",
        _svm_cost(
            train_seconds=9.1,
            peak_memory_bytes=310_000_000,
            head_parameters=385,
            total_parameters=22_713_601,
            artifact_bytes=91_300_000,
            texts_per_second=540.0,
            latency_p50_seconds=0.0062,
            latency_p95_seconds=0.0091,
        ),
        {"pooling": "mean", "C": [0.1, 1.0, 10.0]},
        varies=False,
    ),
    FakeMethod(
        "full",
        0.93,
        "logit",
        Cost(
            train_seconds=66.0,
            peak_memory_bytes=1_430_000_000,
            adapter_parameters=0,
            head_parameters=770,
            trainable_parameters=22_713_986,
            total_parameters=22_713_986,
            artifact_bytes=91_600_000,
            texts_per_second=535.0,
            latency_p50_seconds=0.0060,
            latency_p95_seconds=0.0085,
        ),
        {"learning_rate": 5e-5, "num_train_epochs": 3},
    ),
    FakeMethod(
        "lora",
        0.95,
        "logit",
        Cost(
            train_seconds=44.0,
            peak_memory_bytes=1_210_000_000,
            adapter_parameters=299_520,
            head_parameters=148_610,
            trainable_parameters=448_130,
            total_parameters=23_162_116,
            artifact_bytes=1_800_000,
            texts_per_second=414.0,
            latency_p50_seconds=0.0078,
            latency_p95_seconds=0.0102,
        ),
        {"learning_rate": 5e-4, "num_train_epochs": 3, "r": 8, "lora_alpha": 16},
    ),
)


def _lora(label: str, r: int, skill: float, **changes: Any) -> FakeMethod:
    cost = replace(
        METHODS[3].cost,
        train_seconds=41.0 + 0.4 * r,
        adapter_parameters=37_440 * r,
        trainable_parameters=37_440 * r + 148_610,
        total_parameters=22_713_986 + 37_440 * r,
        artifact_bytes=600_000 + 150_000 * r,
    )
    settings = {"learning_rate": 5e-4, "num_train_epochs": 3, "r": r, "lora_alpha": 2 * r}
    made = FakeMethod("lora", skill, "logit", cost, settings, label=label)
    return replace(made, **changes)


def _probe() -> FakeMethod:
    cost = replace(METHODS[1].cost, train_seconds=11.2, head_parameters=770)
    return FakeMethod("probe", 0.62, "probability", cost, {"learning_rate": 1e-2})


MANY = (
    *METHODS[:3],
    _probe(),
    _lora("lora[r=4]", 4, 0.90),
    _lora("lora[r=8]", 8, 0.95),
    _lora("lora[r=16]", 16, 0.96),
    _lora("qlora-4bit", 8, 0.94, name="qlora-4bit"),
    _lora("dora", 8, 0.955, name="dora"),
    _lora("bitfit", 1, 0.86, name="bitfit"),
)
"""Ten methods: with five seeds, a study of 50 trials."""

GRID = (
    *METHODS[:2],
    _probe(),
    *(
        _lora(f"lora[r={r},lora_alpha={a}]", r, 0.9 + 0.003 * r - 0.002 * a)
        for r in (2, 4, 8)
        for a in (4, 8, 16)
    ),
)
"""Twelve methods, nine of them a grid: no two of one colour, and all near each other."""


def make_study(
    root: Path,
    *,
    n_classes: int = 2,
    seeds: int = 3,
    methods: Sequence[FakeMethod] = METHODS,
    label_names: Sequence[str] | None = None,
    source: str = "demo",
    rows: int = 288,
    fail: Sequence[tuple[str, int]] = (),
    missing: Sequence[tuple[str, int]] = (),
    data: dict[str, Any] | None = None,
    score_test: bool = True,
) -> Path:
    """Write a study below `root` and return its folder.

    `fail` and `missing` name trials by (method label, seed). `data` overrides the data card.
    `score_test=False`: as with an unlabelled test part, no test scores and no test predictions.
    """
    names = tuple(label_names or (BINARY if n_classes == 2 else map(str, range(1, n_classes + 1))))
    folder = root / "runs" / "study"
    (folder / "trials").mkdir(parents=True)
    spec = DataSpec(source=source)
    card = _data_card(names, rows, source) | (data or {})
    trials = []
    for method in methods:
        for seed in range(seeds):
            trial = _spec(spec, card["fingerprint"], method, seed)
            trials.append(trial.trial_id)
            label = trial.method.label
            if (label, seed) in missing:
                continue
            result, history, predictions = _run(
                trial, method, names, rows, fails=(label, seed) in fail, score_test=score_test
            )
            with study_folder.new_trial(folder, trial.trial_id) as directory:
                study_folder.write_trial(directory, result, history, predictions)
    study_folder.write_card(folder, card)
    settings = {
        "tunelab": "0.1.0",
        "command": f"tunelab compare {source} --seeds {seeds}",
        "data": asdict(spec),
        "model": "minilm",
        "trust_remote_code": False,
        "methods": [
            {"name": m.name, "label": m.label or m.name, "tune": False, **m.settings}
            for m in methods
        ],
        "seeds": list(range(seeds)),
        "metric": "accuracy",
        "output_dir": "runs/study",
        "report_to": [],
        "jobs": "auto",
        "stack": "auto",
        "tuning": {"budget": None, "seeds": [1_000_003], "prune": True},
        "vary_split": False,
        "train_sizes": None,
        "test_on": [],
        "race": False,
        "budget": None,
        "disagreement": None,
        "behaviour": False,
        "sources": {"data.source": "command line", "seeds": "command line"},
        "trials": trials,
        "curve": [],
    }
    files.write_text(folder / "study.yaml", yaml.safe_dump(settings, sort_keys=False))
    return folder


def _spec(data: DataSpec, fingerprint: str, method: FakeMethod, seed: int) -> TrialSpec:
    label = method.label or method.name
    safe = "".join(c if c.isalnum() else "-" for c in label)
    return TrialSpec(
        data=data,
        fingerprint=fingerprint,
        base=None if method.name == "svm-tfidf" else BaseRef("minilm", "53aa51172d142c89" * 4),
        method=MethodSpec(method.name, label, method.settings),
        seed=seed,
        trial_id=f"{safe}-{seed}-5f2c1e",
    )


def _run(
    trial: TrialSpec,
    method: FakeMethod,
    names: tuple[str, ...],
    rows: int,
    *,
    fails: bool,
    score_test: bool,
) -> tuple[TrialResult, list[dict[str, float]], dict[str, Predictions]]:
    provenance = Provenance(
        versions=VERSIONS,
        hardware=Hardware("AMD EPYC 9655", cores=2, memory_bytes=24_000_000_000),
        dataset=trial.fingerprint,
        base=trial.base,
        started="2026-11-21T01:38:00+00:00",
        seconds=(method.cost.train_seconds or 0) * 1.2,
    )
    if fails:
        error = "RuntimeError: the loss is not finite at step 40. Try a lower learning_rate."
        return TrialResult(trial, "failed", provenance=provenance, error=error), [], {}
    parts = ("validation", "test") if score_test else ("validation",)
    predictions = {p: _predict(p, method, trial.seed, len(names), rows) for p in parts}
    scores: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for part, p in predictions.items():
        prefix = {"validation": "eval", "test": "test"}[part]
        values, why = evaluate(p, names)
        scores |= {f"{prefix}_{k}": v for k, v in values.items()}
        reasons |= {f"{prefix}_{k}": v for k, v in why.items()}
    if not score_test:
        scores["test_accuracy"] = None
        reasons["test_accuracy"] = "its labels are all -1"
    wobble = np.random.default_rng(trial.seed).uniform(0.94, 1.06)
    cost = asdict(method.cost)
    cost["train_seconds"] = cost["train_seconds"] and cost["train_seconds"] * wobble
    details = Details(
        Trained(best_epoch=2 if method.varies else None),
        per_class={part: per_class(p, names) for part, p in predictions.items()},
        confusion={
            part: confusion(p.labels, p.predicted, len(names)).tolist()
            for part, p in predictions.items()
        },
    )
    result = TrialResult(
        trial, "done", scores, Cost(**cost), details, reasons, provenance, error=None
    )
    final = scores["eval_accuracy"] or 0.0
    return result, _history(final, trial.seed, method.skill) if method.varies else [], predictions


def _predict(part: str, method: FakeMethod, seed: int, k: int, rows: int) -> Predictions:
    shared = np.random.default_rng([len(part), k, rows])
    labels = shared.integers(0, k, rows)
    labels[:k] = np.arange(k)
    noise = shared.normal(size=(rows, k))
    own = np.random.default_rng([len(part), *method.name.encode(), k])
    scores = np.eye(k)[labels] * 1.7 * method.skill + 0.8 * noise + 0.5 * own.normal(size=(rows, k))
    if method.kind == "probability":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        return Predictions(
            ids=tuple(f"{part}:{i}" for i in range(rows)),
            labels=labels.astype(np.int64),
            scores=scores,
            score_kind=method.kind,
            seconds=rows / 500,
        )
    if method.varies:
        scores = scores + 0.35 * np.random.default_rng([seed, 7]).normal(size=(rows, k))
    return Predictions(
        ids=tuple(f"{part}:{i}" for i in range(rows)),
        labels=labels.astype(np.int64),
        scores=scores,
        score_kind=method.kind,
        seconds=rows / 500,
    )


NEGATIVE_TEXT = "A long evening, and <script>alert('not run')</script> was its best line."


def make_texts(rows: int = 288) -> dict[str, str]:
    """A text for every row of a study's parts, by its id; the first has markup in it."""
    from tunelab.data import load

    reviews = load(DataSpec("demo"))
    found = [*reviews.test.texts, *reviews.train.texts]
    texts = {
        f"{part}:{i}": found[i % len(found)] for part in ("validation", "test") for i in range(rows)
    }
    return texts | {"test:0": NEGATIVE_TEXT, "test:1": NEGATIVE_TEXT}


def _history(
    final: float, seed: int, skill: float, epochs: int = 3, steps: int = 84
) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    for step in range(1, epochs * steps + 1):
        epoch = step / steps
        if step % 4 == 0:
            loss = 1.2 - skill + 0.45 * np.exp(-epoch * skill**4) + 0.03 * rng.normal()
            rate = 5e-4 * (1 - epoch / epochs)
            rows.append({"step": step, "epoch": epoch, "loss": float(loss), "learning_rate": rate})
        if step % steps == 0:
            score = final - 0.03 * (epochs - epoch)
            rows.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "eval_loss": 0.5 - 0.02 * epoch,
                    "eval_accuracy": score,
                    "eval_f1_macro": score - 0.004,
                }
            )
    return rows


def _data_card(names: tuple[str, ...], rows: int, source: str) -> dict[str, Any]:
    sizes = {"train": 1344, "validation": rows, "test": rows}
    words = {"min": 3, "p5": 12, "p50": 41, "p95": 96, "max": 187, "mean": 45.3}
    characters = {k: v * 5.6 for k, v in words.items()}
    return {
        "name": source,
        "revision": None,
        "fingerprint": "9f3c" * 16,
        "text_column": "text",
        "label_column": "stars",
        "label_names": list(names),
        "sizes": sizes,
        "label_counts": {
            part: {name: n // len(names) for name in names} for part, n in sizes.items()
        },
        "words": dict.fromkeys(sizes, words),
        "characters": dict.fromkeys(sizes, characters),
        "duplicates": {
            "within": {"train": 4, "validation": 0, "test": 0},
            "across": {"train/validation": 0, "train/test": 3, "validation/test": 0},
            "conflicting": 1,
            "total": 7,
            "examples": [
                {
                    "text": "Never again.",
                    "rows": [
                        {"part": "train", "id": "films:3", "label": names[0]},
                        {"part": "test", "id": "films:90", "label": names[1]},
                    ],
                }
            ],
        },
        "samples": {name: [f"A sample of {name}."] for name in names},
        "notes": ["text column: 'text' (guessed); label column: 'stars' (guessed)."],
        "test_on": [],
    }
