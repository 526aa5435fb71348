"""The classifier of an ensemble: its members' artifacts in one folder, and their weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunelab.analysis.ensembles import Ensemble
from tunelab.core import files, study_folder
from tunelab.core.artifact import open_artifact, seal
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Artifact
from tunelab.stats import calibration
from tunelab.study.final import check_output_dir

__all__ = [
    "write_ensemble",
]


def write_ensemble(
    record: StudyRecord, ensemble: Ensemble, out: Path, overwrite: bool = False
) -> Artifact:
    """Write what `tunelab predict` loads: the members of the best seed that have a weight.

    Raises ConfigError where the folder cannot be written, ArtifactError where a member was altered.
    """
    check_output_dir(out, overwrite)
    seed = ensemble.chosen_seed
    weights = dict(zip(ensemble.members, ensemble.weights[seed], strict=True))
    trials = {
        r.spec.method.label: r.spec.trial_id
        for r in record.done
        if r.spec.seed == seed and r.spec.purpose == "trial" and r.spec.train_rows is None
    }
    kept = [(m, w) for m, w in weights.items() if w > 0]
    sources = [
        open_artifact(study_folder.artifact_dir(record.directory, trials[m])) for m, _ in kept
    ]
    files.make_folder(out.absolute().parent)
    with files.replacing_folder(out) as draft:
        for i, source in enumerate(sources):
            shutil.copytree(source.directory, draft / "members" / str(i))
        facts = {
            "kind": "ensemble",
            "label_names": sources[0].manifest["label_names"],
            "score_kind": "probability",
            "weights": [w for _, w in kept],
            "members": [m for m, _ in kept],
            "base": None,
        }
        seal(draft, facts)
        calibration.write_calibration(draft, ensemble.validation[seed])
    return open_artifact(out)
