"""One method trained with one seed, into a folder that is the classifier."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tunelab import analysis, study
from tunelab.analysis import text_limits
from tunelab.core import files, study_folder
from tunelab.core.checkpoints import CHECKPOINTS, Checkpoints
from tunelab.core.errors import ConfigError, TrialError
from tunelab.core.events import Note
from tunelab.core.values import TrialResult
from tunelab.data.gate import values as gate_values
from tunelab.report import cards
from tunelab.study import final, trackers
from tunelab.study.planning import trial_of
from tunelab.study.schedule import OnStudyEvent
from tunelab.study.space import Tuning
from tunelab.study.spec import StudySpec
from tunelab.study.trial import run_and_store

__all__ = ["remove_others", "train_on_every_row", "train_one"]


def train_one(
    spec: StudySpec, *, overwrite: bool = False, on_event: OnStudyEvent = lambda _: None
) -> TrialResult:
    """Train one method with one seed; `spec.output_dir` becomes the artifact.

    The trial's record (result.json, history, predictions) lies in its folder `trial`. Raises
    TrialError where training failed; then nothing is left behind.
    """
    if len(spec.methods) != 1 or len(spec.seeds) != 1:
        names = ", ".join(m.label for m in spec.methods)
        raise ConfigError(
            f"train: expected one method and one seed, found the methods {names} and the seeds "
            f"{', '.join(map(str, spec.seeds))}. Use `tunelab compare` for more."
        )
    spec = replace(spec, tuning=Tuning(), train_sizes=(), race=False, budget=None, folds=None)
    out = spec.output_dir
    final.check_output_dir(out, overwrite)
    # Planned in a folder that is never made: what is wrong is said before anything is written.
    with ExitStack() as inside:
        worker = inside.enter_context(study.worker(spec))
        planned = study.plan(replace(spec, output_dir=out / ".study"))
        files.make_folder(out.absolute().parent)
        scratch = inside.enter_context(files.scratch_folder(f".{out.name}.training-", out.parent))
        folder = scratch / out.name
        for line in _said_of_texts(planned):
            on_event(Note(line))
        spec = replace(planned.spec, output_dir=folder)
        schedule = study.scheduled(replace(planned, spec=spec))
        study.write(schedule.progress, "tunelab train")
        kept = out.absolute().with_name(f".{out.name}.{CHECKPOINTS}")
        remove_others(kept, {t.trial_id for t in schedule.progress.trials}, on_event)
        (result,) = study.run(schedule, on_event, worker=worker, checkpoints=kept)
        if result.status == "failed":
            raise TrialError(str(result.error))
        record = study_folder.read_study(folder)
        cards.write_cards(record, analysis.summarise(record))
        trial = study_folder.trial_dir(folder, result.spec.trial_id)
        artifact = trial / "artifact"
        (artifact / "trial").mkdir()
        for name in study_folder.TRIAL_FILES:
            shutil.move(trial / name, artifact / "trial" / name)
        tracked = folder / trackers.TRACKING_FOLDER
        if tracked.is_dir():
            shutil.move(tracked, artifact / "trial" / trackers.TRACKING_FOLDER)
        files.put_in_place(artifact, out)
    return result


def remove_others(kept: Path, ids: Collection[str], on_event: OnStudyEvent) -> None:
    """Remove what is left of a training with other settings that was to have this place."""
    checkpoints = Checkpoints(str(kept))
    for place in kept.glob("[!.]*") if kept.is_dir() else ():
        if place.name not in ids:
            checkpoints.remove(place.name)
            on_event(
                Note(
                    f"{kept.name}: holds a checkpoint of other data or settings; it is removed, "
                    "and training starts anew"
                )
            )


def train_on_every_row(spec: StudySpec) -> TrialResult:
    """Train one method with one seed in this process on all rows but those of validation, which
    are chosen from them; none is tested. `spec.output_dir`, new, becomes the artifact.

    Raises TrialError where training failed.
    """
    out = spec.output_dir
    spec = replace(spec, tuning=Tuning(), folds=None, output_dir=out.with_name("study"))
    planned = study.plan(spec)
    trial = trial_of(planned, planned.spec.methods[0], spec.seeds[0], purpose="final")
    (result,) = run_and_store([trial], spec.output_dir, spec.metric, lambda _: None)
    if result.status == "failed":
        raise TrialError(str(result.error))
    study_folder.artifact_dir(spec.output_dir, trial.trial_id).replace(out)
    shutil.rmtree(spec.output_dir)
    return result


def _said_of_texts(planned: study.Plan) -> list[str]:
    """What was decided on reading the data, what the gate finds in it, and what limits cut."""
    by_limit = text_limits.labels_by_limit(planned.spec.methods)
    return [
        *planned.dataset.notes,
        *map(gate_values.line, planned.gate.findings),
        *text_limits.lines_of_limits(planned.lengths, by_limit),
    ]
