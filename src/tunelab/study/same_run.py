"""Trials that differ by their seed alone, of a method in which nothing depends on it: one run.

It is made once. The trials of other seeds are copies of it that say so (`Provenance.same_run_as`),
so that each seed is compared on the same rows as any other method's; what was measured while it
ran counts once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from pathlib import Path

from tunelab.core import study_folder
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.methods import METHODS

__all__ = [
    "copy_run",
    "copies_among",
]

_MEASURED = (
    "train_seconds",
    "peak_memory_bytes",
    "texts_per_second",
    "latency_p50_seconds",
    "latency_p95_seconds",
)


def copies_among(trials: Iterable[TrialSpec], done: Collection[str]) -> dict[str, TrialSpec]:
    """Which of these trials are the same run as another, which is done or comes before them, by id.

    `done`: ids of those that have ended well.
    """
    every = {t.trial_id: t for t in trials}
    first: dict[str, TrialSpec] = {}
    copies: dict[str, TrialSpec] = {}
    for t in sorted(every.values(), key=lambda t: t.trial_id not in done):
        key = _run_of(t)
        if key is None:
            continue
        known = first.setdefault(key, t)
        if known is not t and t.trial_id not in done:
            copies[t.trial_id] = known
    return copies


def _run_of(t: TrialSpec) -> str | None:
    """What a trial's run depends on, without its seed; None where the seed decides something: the
    method's own chance, or which rows are its own.
    """
    own_rows = t.vary_split or t.fold is not None or t.train_rows is not None
    if own_rows or METHODS[t.method.name].chance:
        return None
    method = [t.method.name, t.method.settings]
    return json.dumps([t.fingerprint, asdict(t.data), t.base and asdict(t.base), method, t.purpose])


def copy_run(study: Path, result: TrialResult, t: TrialSpec) -> TrialResult:
    """Keep a result as that of another seed, whose run is the same."""
    source = result.provenance.same_run_as or result.spec.trial_id
    why = f"the same run as seed {result.spec.seed}, measured there"
    copied = replace(
        result,
        spec=t,
        cost=replace(result.cost, **dict.fromkeys(_MEASURED)),
        reasons={**result.reasons, **dict.fromkeys(_MEASURED, why)},
        provenance=replace(
            result.provenance, seconds=None, jobs=None, measured_alone=None, same_run_as=source
        ),
    )
    there = study_folder.trial_dir(study, result.spec.trial_id)
    history = study_folder.read_history(study, result.spec.trial_id)
    predictions = study_folder.read_predictions(study, result.spec.trial_id)
    with study_folder.new_trial(study, t.trial_id) as folder:
        study_folder.write_trial(folder, copied, history, predictions)
        if (there / "artifact").is_dir():
            shutil.copytree(there / "artifact", folder / "artifact")
    return copied
