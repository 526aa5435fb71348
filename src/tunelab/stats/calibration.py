"""Whether probabilities mean what they say: reliability, ECE, Brier score, temperature scaling.

`calibrate` reads stored predictions of one method: bins of confidence and accuracy, the expected
calibration error and the Brier score with intervals over seeds and test rows; and the same after
temperature scaling (Guo, Pleiss, Sun and Weinberger 2017), one temperature a seed, fitted on the
validation part and applied to test. `write_calibration` puts a trial's temperature beside its
classifier, and `read_temperature` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import CALIBRATION, seal_again
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact, Estimate, Predictions, ScoreKind
from tunelab.core.words import counted, rows_word
from tunelab.stats.abstention import Abstention, abstention_from_json, abstention_of
from tunelab.stats.brent import lowest_between
from tunelab.stats.intervals import mean
from tunelab.stats.metrics import brier, log_loss
from tunelab.stats.predictions import UndefinedMetricError, check_predictions, probabilities
from tunelab.stats.reliability import (
    ReliabilityBin,
    consistency_band,
    miscalibration,
    reliability,
)
from tunelab.stats.resampling import Runs

__all__ = [
    "AS_IT_IS",
    "Calibration",
    "Quality",
    "TemperatureFit",
    "at_temperature",
    "at_temperatures",
    "calibrate",
    "calibrate_all",
    "calibration_sentence",
    "as_given",
    "calibrations_to_json",
    "fit_temperature",
    "fit_temperatures",
    "kept_temperature",
    "logits_at_temperature",
    "read_abstention",
    "read_temperature",
    "write_calibration",
]


Floats = NDArray[np.float64]

INTERVAL_SEED = 0  # the same study gives the same intervals
COLDEST, HOTTEST = 0.05, 20.0
# A temperature from fewer rows, or from fewer mistakes, is luck: with no mistake at all the best
# one is the coldest, and every text is certain.
LEAST_ROWS_TO_FIT, LEAST_MISTAKES = 50, 5
_TRAIN_ANEW = "Train it again with this version of tunelab, or leave --calibrated out."
SEVERAL_LABELS = "probabilities of several labels a text are neither scaled nor judged"
AS_IT_IS = 1.0  # the temperature that changes nothing


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the probabilities of one method are on the test part.

    `rows` were judged; `bins` hold those of all seeds together (`n` counts rows times seeds),
    `band` where the accuracy of each would lie if all were calibrated. `ece` in [0, 1] is the
    debiased error (`reliability.miscalibration`), root mean square over seeds; `off`: it is more
    than luck;
    `p_value` that it is none, and `too_few` why neither is known. `brier` in [0, 2] and `log_loss`
    in nats are means over seeds.
    """

    bins: tuple[ReliabilityBin, ...]
    band: tuple[tuple[float, float] | None, ...]
    ece: Estimate
    rows: int
    off: bool
    p_value: float | None
    too_few: str | None
    brier: Estimate
    log_loss: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """One method: as it is (`before`), and `after` its scores are divided by a temperature.

    `temperatures` by seed: above 1 the model was too sure, below 1 not sure enough. All None or
    empty, with `reason`, where there are no probabilities (an SVM's margins).
    """

    label: str
    before: Quality | None
    after: Quality | None
    temperatures: Mapping[int, float]
    reason: str | None = None


def calibrate_all(
    validation: Mapping[str, Runs], test: Mapping[str, Runs]
) -> tuple[Calibration, ...]:
    """`calibrate` for every method that has predictions on test."""
    return tuple(calibrate(validation.get(label), runs) for label, runs in test.items())


def calibrate(validation: Runs | None, test: Runs) -> Calibration:
    """Judge one method's probabilities on test, before and after temperature scaling."""
    if any(p.task == "multilabel" for p in test.by_seed.values()):
        return Calibration(test.label, None, None, {}, SEVERAL_LABELS)
    try:
        before = _quality(test)
    except UndefinedMetricError as error:
        return Calibration(test.label, None, None, {}, error.reason)
    known = validation.by_seed if validation is not None else {}
    if any(seed not in known for seed in test.by_seed):
        return Calibration(test.label, before, None, {}, "no validation predictions to fit on")
    few = next((f.reason for s in test.by_seed if (f := fit_on_validation(known[s])).reason), None)
    if few is not None:
        return Calibration(test.label, before, None, {}, few)
    temperatures = fit_temperatures(known, test.by_seed)
    after = at_temperatures(test, temperatures)
    return Calibration(test.label, before, _quality(after), temperatures)


def fit_temperatures(
    validation: Mapping[int, Predictions], seeds: Iterable[int]
) -> dict[int, float]:
    """The temperature of each seed; 1 where validation has too few rows or mistakes to fit on."""
    fits = {s: fit_on_validation(validation[s]).temperature for s in seeds}
    return {s: AS_IT_IS if t is None else t for s, t in fits.items()}


def at_temperatures(runs: Runs, temperatures: Mapping[int, float]) -> Runs:
    """The seeds that have a temperature, with their logits divided by it."""
    by_seed = {s: at_temperature(runs.by_seed[s], t) for s, t in temperatures.items()}
    return replace(runs, by_seed=by_seed)


def fit_temperature(predictions: Predictions) -> float:
    """The T > 0 whose softmax(logits / T) has the smallest log loss, within 0.05 and 20.

    Probabilities are taken by their logarithm. Raises UndefinedMetricError for margins.
    """
    check_predictions(predictions)
    logits = logits_at_temperature(predictions.scores, predictions.score_kind, 1.0)
    rows = np.arange(len(logits))

    def loss(log_t: float) -> float:
        z = logits / math.exp(log_t)
        top = z.max(axis=1)
        total = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        return float((total - z[rows, predictions.labels]).mean())

    # The loss is convex in 1 / T, so it has one minimum over log T.
    return math.exp(lowest_between(math.log(COLDEST), math.log(HOTTEST), loss))


def at_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions with logits divided by a temperature; no class changes."""
    logits = logits_at_temperature(predictions.scores, predictions.score_kind, temperature)
    return replace(predictions, scores=logits, score_kind="logit")


def logits_at_temperature(scores: Floats, score_kind: ScoreKind, temperature: float) -> Floats:
    """Logits over a temperature, (n, n_classes). Raises UndefinedMetricError for margins."""
    if score_kind == "logit":
        return np.asarray(scores, dtype=np.float64) / temperature
    if score_kind == "label_logit":
        raise UndefinedMetricError("no temperature is fitted to labels that stand by themselves")
    p = probabilities(scores, score_kind)
    return np.asarray(np.log(np.clip(p, np.finfo(np.float64).tiny, 1.0)) / temperature)


# --- beside a classifier --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """What calibration.json holds: a temperature, or None with the `reason`.

    It was fitted on `rows` rows of the `part`; `log_loss` is what it was there before and after.
    """

    temperature: float | None
    part: str
    rows: int
    log_loss: tuple[float, float] | None = None
    reason: str | None = None


def temperature_to_json(fit: TemperatureFit) -> dict[str, object]:
    """The content of calibration.json."""
    value: dict[str, object] = {"temperature": fit.temperature, "part": fit.part, "rows": fit.rows}
    if fit.reason is not None:
        value["reason"] = fit.reason
    if fit.log_loss is not None:
        value["log_loss"] = dict(zip(("before", "after"), fit.log_loss, strict=True))
    return value


def fit_on_validation(validation: Predictions) -> TemperatureFit:
    """Fit a temperature on a trial's validation part, where it has rows and mistakes enough."""
    rows = len(validation.ids)
    if validation.task == "multilabel":
        return TemperatureFit(None, "validation", rows, reason=SEVERAL_LABELS)
    mistakes = int((~validation.right).sum())
    if rows < LEAST_ROWS_TO_FIT or mistakes < LEAST_MISTAKES:
        reason = (
            f"{counted(rows, 'validation row')} with {counted(mistakes, 'mistake')}: "
            f"at least {LEAST_ROWS_TO_FIT} and {LEAST_MISTAKES} are needed"
        )
        return TemperatureFit(None, "validation", rows, reason=reason)
    try:
        temperature = fit_temperature(validation)
        after = log_loss(at_temperature(validation, temperature))
        losses = log_loss(validation), after
    except UndefinedMetricError as error:
        return TemperatureFit(None, "validation", rows, reason=error.reason)
    return TemperatureFit(temperature, "validation", rows, losses)


def write_calibration(directory: Path, validation: Predictions) -> None:
    """Fit a trial's temperature, and when it had better abstain, on its validation part, and put
    both into its artifact; of several labels a text, the thresholds that were chosen there.

    calibration.json keeps them (`TemperatureFit`, `Abstention`); the manifest is written anew.
    """
    fit = fit_on_validation(validation)
    facts = temperature_to_json(fit)
    if validation.thresholds is not None:
        facts["thresholds"] = validation.thresholds.tolist()
    else:
        with suppress(UndefinedMetricError):  # of margins, which are no confidences
            p = as_given(validation.scores, validation.score_kind, fit.temperature)
            facts["abstention"] = asdict(abstention_of(p, validation.labels))
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (directory / CALIBRATION).write_text(text, encoding="utf-8")
    seal_again(directory, {})


def as_given(scores: Floats, score_kind: ScoreKind, temperature: float | None) -> Floats:
    """Probabilities as they are given unasked: at the temperature, where there is one."""
    if temperature is None:
        return probabilities(scores, score_kind)
    return probabilities(logits_at_temperature(scores, score_kind, temperature), "logit")


def read_temperature(artifact: Artifact) -> float:
    """The temperature in an opened artifact. Raises ArtifactError where there is none."""
    temperature, why_none = _read_fit(artifact)
    if temperature is None:
        raise ArtifactError(why_none)
    return temperature


def kept_temperature(artifact: Artifact) -> float | None:
    """The temperature in an opened artifact, None where none was fitted.

    Raises ArtifactError for a calibration.json that holds something else.
    """
    return _read_fit(artifact)[0]


def kept_thresholds(artifact: Artifact) -> Floats | None:
    """The threshold of each label in an opened artifact, (n_labels,); None where it has none.

    Raises ArtifactError for a calibration.json that holds something else.
    """
    said, path = _kept_file(artifact), artifact.directory / CALIBRATION
    if said is None or said.get("thresholds") is None:
        return None
    values, names = said["thresholds"], artifact.manifest["label_names"]
    numbers = values if isinstance(values, list) else []
    known = [t for t in numbers if isinstance(t, int | float) and 0 < t < 1]
    if len(known) != len(names) or len(numbers) != len(names):
        raise ArtifactError(
            f"{path}: thresholds: expected {len(names)} numbers between 0 and 1. {_TRAIN_ANEW}"
        )
    return np.asarray(known, dtype=np.float64)


def read_abstention(artifact: Artifact) -> Abstention:
    """When an opened artifact's classifier had better abstain. Raises ArtifactError where that is
    not known. Confidences are those of probabilities as they are given unasked.
    """
    said, path = _kept_file(artifact), artifact.directory / CALIBRATION
    if said is None or "abstention" not in said:
        raise ArtifactError(
            f"{artifact.directory}: when it had better abstain is not known. "
            "Train it again with this version of tunelab."
        )
    exported = artifact.manifest.get("exported_from")
    if isinstance(exported, Mapping) and exported.get("rung") is not None:
        raise ArtifactError(
            f"{artifact.directory}: its numbers are rounded, which moves confidences; when the "
            "original abstains says nothing of it. Use a float export."
        )
    try:
        return abstention_from_json(said["abstention"])
    except ValueError as e:
        raise ArtifactError(f"{path}: abstention: {e}. Train or copy the artifact again.") from e


def _kept_file(artifact: Artifact) -> Mapping[str, object] | None:
    """What calibration.json holds; None where there is none."""
    path = artifact.directory / CALIBRATION
    # Only what the manifest lists was checked when the artifact was opened.
    if CALIBRATION not in artifact.manifest["files"] or not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ArtifactError(
            f"{path}: expected a temperature, found none ({e}). {_TRAIN_ANEW}"
        ) from e
    if not isinstance(said, dict) or "temperature" not in said:
        raise ArtifactError(f"{path}: expected a temperature, found none. {_TRAIN_ANEW}")
    return said


def _read_fit(artifact: Artifact) -> tuple[float | None, str]:
    """The temperature, or None and why there is none."""
    said, path = _kept_file(artifact), artifact.directory / CALIBRATION
    if said is None:
        return None, f"{artifact.directory}: expected {path.name}, found none. {_TRAIN_ANEW}"
    temperature = said["temperature"]
    if temperature is None:
        return None, (
            f"{artifact.directory}: it has no temperature ({said.get('reason')}). "
            "Train with more validation rows; until then its probabilities are used as they are."
        )
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise ArtifactError(
            f"{path}: expected a number above 0, found {temperature!r}. {_TRAIN_ANEW}"
        )
    return float(temperature), ""


def _quality(runs: Runs) -> Quality:
    parts = list(runs.by_seed.values())
    together = Predictions(
        (),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([probabilities(p.scores, p.score_kind) for p in parts]),
        "probability",
    )
    judged = miscalibration(parts)
    return Quality(
        bins=reliability(together),
        band=consistency_band(parts),
        ece=judged.error,
        rows=judged.rows,
        off=judged.shown,
        p_value=judged.p_value,
        too_few=judged.reason,
        brier=_brier(runs),
        log_loss=float(np.mean([log_loss(p) for p in parts])),
    )


def _brier(runs: Runs) -> Estimate:
    """Mean over seeds and rows; without an interval where seeds have other rows, as folds do."""
    parts = list(runs.by_seed.values())
    if all(p.ids == parts[0].ids for p in parts):
        return mean(runs, "brier", np.random.default_rng(INTERVAL_SEED))
    value = float(np.mean([brier(p) for p in parts]))
    return Estimate(value, None, None, len(parts), "mean over parts of other rows: no interval")


def calibration_sentence(c: Calibration) -> str:
    """A method's calibration in plain words."""
    if c.before is None:
        return f"{c.label}: no probabilities to judge ({c.reason})"
    said = f"{c.label}: {_error_in_words(c.before)}"
    if c.after is None or c.before.too_few is not None:
        return said
    hot = float(np.mean(list(c.temperatures.values())))
    return f"{said}; with a temperature of {hot:.2f}, {_short_error_in_words(c.after)}"


def _error_in_words(q: Quality) -> str:
    if q.too_few is not None:
        return f"whether its confidence is right cannot be told: {q.too_few}"
    points = [f"{100 * (x or 0.0):.1f}" for x in (q.ece.value, q.ece.low, q.ece.high)]
    if not q.off:
        return (
            f"no sign that its confidence is off at {rows_word(q.rows)} "
            f"(an error above {points[2]} points is ruled out)"
        )
    lean = _lean(q)
    word = "too sure" if lean > 0 else "not sure enough"
    on_average = f", on average {word} by {100 * abs(lean):.1f}" if abs(lean) >= 0.0005 else ""
    interval = f"95% interval {points[1]} to {points[2]}"
    return f"its confidence is off by {points[0]} points ({interval}){on_average}"


def _lean(q: Quality) -> float:
    """Mean confidence less accuracy, over the rows of all seeds."""
    known = [b for b in q.bins if b.n]
    over = sum(b.n * ((b.confidence or 0) - (b.accuracy or 0)) for b in known)
    return over / sum(b.n for b in known)


def _short_error_in_words(q: Quality) -> str:
    if not q.off:
        return "no sign of it"
    return f"off by {100 * q.ece.value:.1f}"


def calibrations_to_json(calibrations: Sequence[Calibration]) -> dict[str, object]:
    """Calibrations as plain JSON values, with a sentence each."""
    rows = []
    for c in calibrations:
        value = asdict(c)
        value["temperatures"] = {str(k): v for k, v in c.temperatures.items()}
        for key in ("before", "after"):
            quality = getattr(c, key)
            if quality is not None:
                value[key]["bins"] = [b._asdict() for b in quality.bins]
        rows.append({**value, "sentence": calibration_sentence(c)})
    return {"methods": rows}
