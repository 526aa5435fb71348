"""What every trial says of every text of a part, as one table, and rows under their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunelab.core.study_folder import StudyRecord, StudyRows, read_rows
from tunelab.core.tasks import Labels, label_sets
from tunelab.core.values import Predictions
from tunelab.stats.calibration import at_temperature, fit_on_validation
from tunelab.stats.predictions import Floats, probabilities

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "names_of_rows",
    "predictions_frame",
]


def names_of_rows(record: StudyRecord, rows: StudyRows | None) -> dict[str, str]:
    """What rows are called in the data's own id column, by our ids; of those without, nothing."""
    column = record.data.get("id_column")
    if rows is None or column is None or column not in rows.columns:
        return {}
    known = zip(rows.ids, rows.columns[column], strict=True)
    return {i: str(name) for i, name in known if name is not None}


def predictions_frame(record: StudyRecord, part: str, *, raw: bool = False) -> pd.DataFrame:
    """One row a trial and text, as `api.Study.predictions` says."""
    import pandas as pd

    names, frames = record.data["label_names"], []
    rows = read_rows(record.directory, part)
    own = names_of_rows(record, rows)
    texts = {} if rows is None else dict(zip(rows.ids, rows.texts, strict=True))
    for r in record.done:
        predictions, fold = record.predictions(r.spec.trial_id), r.spec.fold
        p = predictions.get(part)
        if p is None:
            continue
        place = {"repetition": fold.repetition, "fold": fold.number} if fold else {}
        values: dict[str, object] = {
            "label": r.spec.method.label,
            "seed": r.spec.seed,
            **place,
            "id": [own.get(i, i) for i in p.ids],
            "row": p.ids,
            "text": [texts.get(i) for i in p.ids],
            "truth": _names_of_labels(p.labels, names),
            "predicted": _names_of_labels(p.predicted, names),
        }
        known = _probabilities_of_trial(p, predictions, raw)
        if p.task != "multilabel":
            values["probability"] = None if known is None else known.max(axis=1)
        for k, name in enumerate(names):
            values[f"probability_{name}"] = None if known is None else known[:, k]
        frames.append(pd.DataFrame(values))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _names_of_labels(
    labels: Labels, names: Sequence[str]
) -> list[str | None] | list[tuple[str, ...]]:
    """What each row's label is called, None where it has none; of several labels all of them."""
    if labels.ndim == 2:
        return label_sets(labels, names)
    return [names[k] if k >= 0 else None for k in labels]


def _probabilities_of_trial(
    p: Predictions, of_trial: Mapping[str, Predictions], raw: bool
) -> Floats | None:
    """Probabilities (n, n_classes), at the temperature of the trial's validation part."""
    if p.score_kind == "margin":
        return None
    validation = None if raw else of_trial.get("validation")
    temperature = None if validation is None else fit_on_validation(validation).temperature
    scaled = p if temperature is None else at_temperature(p, temperature)
    return probabilities(scaled.scores, scaled.score_kind)
