"""How sure a classifier says it is beside how often it is right: raw, and at its temperature.

The mean of the highest probability against accuracy: two numbers that anybody can read. Whether
every probability means what it says is asked by `stats.calibration`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunelab.analysis.numbers import format_percent
from tunelab.core.values import Predictions
from tunelab.stats import Runs
from tunelab.stats.calibration import at_temperature, fit_on_validation
from tunelab.stats.predictions import probabilities

__all__ = [
    "Confidence",
    "confidence_of",
    "raw_is_off",
    "warnings_of_raw",
]

_LEAST_GAP = 0.1  # of raw confidence and accuracy: what is nearer is not warned of


@dataclass(frozen=True, slots=True)
class Confidence:
    """Shares of 1 over `rows` texts: how often `right`, how sure `raw` and `scaled` probabilities
    say to be on average. `scaled` and `temperature` are None where none could be fitted.
    """

    rows: int
    right: float
    raw: float
    scaled: float | None
    temperature: float | None


def confidence_of(validation: Predictions | None, scored: Predictions) -> Confidence | None:
    """Judge one trial's probabilities on a part; None for margins, which have none, and no rows.

    The temperature is the one that its classifier keeps, fitted on `validation`.
    """
    if not scored.of_one_class or not len(scored.labels) or (scored.labels < 0).any():
        return None
    fitted = None if validation is None else fit_on_validation(validation).temperature
    scaled = None if fitted is None else _mean_top(at_temperature(scored, fitted))
    right = float(scored.right.mean())
    return Confidence(len(scored.labels), right, _mean_top(scored), scaled, fitted)


def raw_is_off(c: Confidence) -> bool:
    """Whether raw probabilities lie by more than 10 points beside accuracy, and by more than luck
    (two standard errors of accuracy).
    """
    luck = 2 * math.sqrt(max(c.right * (1 - c.right), 1 / c.rows) / c.rows)
    return abs(c.raw - c.right) > max(_LEAST_GAP, luck)


def warnings_of_raw(runs: Mapping[str, Mapping[str, Runs]]) -> list[str]:
    """What a reader must know who takes scores as they are: the methods whose confidence is off."""
    validation = runs["validation"]
    by_label = {
        label: c
        for label, own in runs["test"].items()
        if (c := _mean_of(validation.get(label), own)) is not None and raw_is_off(c)
    }
    if not by_label:
        return []
    said = "; ".join(_in_words(label, c) for label, c in by_label.items())
    with_one = any(c.scaled is not None for c in by_label.values())
    timid = any(c.raw < c.right for c in by_label.values())
    parts = (f"Raw probabilities are off: {said}.", _WHO_SCALES * with_one, _MORE_STEPS * timid)
    return [" ".join(filter(None, parts))]


# 120 to 360 steps on six classes: docs/guide/train-and-predict.md.
_MORE_STEPS = (
    "Whoever is right far more often than it says was stopped while its scores were still growing: "
    "more epochs or a higher learning rate usually make it right more often too."
)
_WHO_SCALES = (
    "tunelab's predict and load divide scores by the temperature fitted on validation; other "
    "tools that load a classifier (peft, transformers, ONNX) do not."
)


def _in_words(label: str, c: Confidence) -> str:
    then = (
        "and no temperature could be fitted"
        if c.scaled is None
        else f"{format_percent(c.scaled)}% with its temperature"
    )
    return (
        f"{label} says {format_percent(c.raw)}% on average where it is right on "
        f"{format_percent(c.right)}% of the test rows, {then}"
    )


def _mean_of(validation: Runs | None, test: Runs) -> Confidence | None:
    """The mean over seeds, each with the temperature of its own validation part."""
    known = validation.by_seed if validation is not None else {}
    each = [confidence_of(known.get(seed), p) for seed, p in test.by_seed.items()]
    some = [c for c in each if c is not None]
    if not some:
        return None
    scaled = _mean([c.scaled for c in some])
    temperature = None if scaled is None else _mean([c.temperature for c in some])
    return Confidence(
        sum(c.rows for c in some) // len(some),
        float(np.mean([c.right for c in some])),
        float(np.mean([c.raw for c in some])),
        scaled,
        temperature,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where any is."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _mean_top(p: Predictions) -> float:
    return float(probabilities(p.scores, p.score_kind).max(axis=1).mean())
