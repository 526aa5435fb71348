"""What rows a saved classifier was trained and chosen on, read again from where they came from."""

from __future__ import annotations

from pathlib import Path

from tunelab.core import study_folder
from tunelab.core.errors import InputError
from tunelab.core.values import Dataset
from tunelab.models import foreign
from tunelab.study import folding, trial

__all__ = [
    "rows_of_classifier",
]


def rows_of_classifier(folder: Path | str) -> Dataset | None:
    """The parts that a classifier's trial saw; None where no trial says so, or where its data
    cannot be read any more, or are others now.
    """
    spec = study_folder.spec_of(foreign.find_artifact(folder))
    try:
        known = folding.loaded_for(spec) if spec else None
    except InputError:
        return None
    if spec is None or known is None or known.fingerprint != spec.fingerprint:
        return None
    return trial.rows_for_trial(known, spec)
