"""A trial's classifier scored on other data than its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab import data
from tunelab.core import study_folder
from tunelab.core.details import DomainScores, Transfer
from tunelab.core.events import Stage
from tunelab.core.values import Classifier, DataSpec, Predictions, Split, TrialResult, TrialSpec
from tunelab.core.words import free_name
from tunelab.stats import metrics

__all__ = [
    "not_scored",
    "score",
    "score_elsewhere",
    "score_transfer",
    "scored_on",
]


def score_transfer(
    others: Sequence[tuple[DataSpec, data.OtherData]],
    classifier: Classifier,
    label_names: tuple[str, ...],
    taken: Sequence[str] = (),
    *,
    thresholds: NDArray[np.float64] | None = None,
) -> tuple[dict[str, Predictions], dict[str, Transfer]]:
    """Score other data once, after everything: predictions by name, and what they say.

    `thresholds`: those of its labels, of several a text.
    """
    predictions: dict[str, Predictions] = {}
    facts: dict[str, Transfer] = {}
    for spec, other in others:
        name = free_name(other.name, (*taken, *facts))
        predictions[f"{study_folder.TEST_ON}{name}"] = p = score(
            classifier, other.split, thresholds
        )
        values, why = metrics.evaluate(p, label_names)
        facts[name] = Transfer(
            source=spec.source,
            rows=len(other.split),
            fingerprint=other.fingerprint,
            scores=values,
            reasons=why,
            domains=_by_domain(p, other.domains, label_names),
        )
    return predictions, facts


def _by_domain(
    p: Predictions, domains: tuple[str, ...] | None, label_names: tuple[str, ...]
) -> dict[str, DomainScores]:
    out: dict[str, DomainScores] = {}
    of = np.asarray(domains if domains is not None else (), dtype=object)
    for domain in dict.fromkeys(domains or ()):
        rows = np.flatnonzero(of == domain)
        values, _ = metrics.evaluate(p.of_rows(rows), label_names)
        out[domain] = DomainScores(len(rows), values)
    return out


def score_elsewhere(
    before: TrialResult, spec: TrialSpec, study: Path, on_event: Callable[[Stage], None]
) -> TrialResult:
    """Add predictions on other data to a trial that is done, from its artifact: no training."""
    from tunelab.models import text_classifier

    if not spec.test_on:
        return before
    kept = study_folder.trial_dir(study, spec.trial_id)
    on_event(Stage("scoring other data"))
    try:
        opened = text_classifier.open_classifier(kept / "artifact")
        names, task = opened.label_names, before.spec.data.task or opened.task
        others = ((d, data.load_other(d, names, task=task)) for d in spec.test_on)
        missing = [(d, o) for d, o in others if not scored_on(before, d, o.fingerprint)]
        if not missing:
            return before
        # What it was scored on before under this source, with other rows, goes.
        sources = {d.source for d, _ in missing}
        known = {
            name: facts
            for name, facts in before.details.transfer.items()
            if facts.source not in sources
        }
        new, facts = score_transfer(
            missing, opened.classifier, names, tuple(known), thresholds=opened.thresholds
        )
        earlier = tuple(d for d in before.spec.test_on if d.source not in sources)
        result = replace(
            before,
            spec=replace(before.spec, test_on=(*earlier, *(d for d, _ in missing))),
            details=replace(before.details, transfer={**known, **facts}),
        )
        predictions = {
            name: p
            for name, p in study_folder.read_predictions(study, spec.trial_id).items()
            if not name.startswith(study_folder.TEST_ON)
            or name.removeprefix(study_folder.TEST_ON) in known
        } | new
        history = study_folder.read_history(study, spec.trial_id)
        with study_folder.new_trial(study, spec.trial_id) as folder:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            study_folder.write_trial(folder, result, history, predictions)
    except Exception as e:
        return not_scored(before, str(e))
    return result


def scored_on(result: TrialResult, other: DataSpec, fingerprint: str) -> bool:
    """Whether a trial was scored on this other data, as its rows are now."""
    return other in result.spec.test_on and any(
        facts.source == other.source and facts.fingerprint == fingerprint
        for facts in result.details.transfer.values()
    )


def not_scored(before: TrialResult, why: str) -> TrialResult:
    """A trial that is done, and could not be scored on other data: it is good, and stays on disk as
    it is; the next run scores it.
    """
    return replace(before, error=f"Not scored on other data: {' '.join(why.split())}")


def score(
    classifier: Classifier, split: Split, thresholds: NDArray[np.float64] | None = None
) -> Predictions:
    """Scores of a part, timed after a first call that pays for what is set up once."""
    classifier.scores(split.texts[:8])  # the first call pays for what is set up once
    started = time.perf_counter()
    scores = classifier.scores(split.texts)
    seconds = time.perf_counter() - started
    kind = classifier.score_kind
    return Predictions(split.ids, split.labels, scores, kind, seconds, thresholds, split.ordered)
