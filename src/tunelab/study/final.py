"""The classifier of a cross-fitted study that is handed over: trained on all rows.

Each trial of such a study has tested a part of the rows, which it was not trained on. The one to
deploy need not leave any out: it is trained once more, with the settings that all folds chose
together, and only validation held out, on which its best epoch is chosen. Nothing is left to test
it. What to expect of it is the cross-fitted score of its method, whose trials had fewer rows each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tunelab.analysis import Summary, summarise, tradeoff
from tunelab.analysis.folds import final_ids, final_trial
from tunelab.core import files, study_folder
from tunelab.core.artifact import MANIFEST, open_artifact, seal_again
from tunelab.core.errors import ArtifactError, ConfigError, TrialError, suggest
from tunelab.core.events import OnEvent
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Artifact, TrialResult, TrialSpec
from tunelab.study.executors import ENGINES, Worker
from tunelab.study.outputs import write_outputs
from tunelab.study.planning import Plan, check_place, plan, trial_of
from tunelab.study.progress import is_done, read_progress
from tunelab.study.resolve import resolve_study
from tunelab.study.schedule import OnStudyEvent
from tunelab.study.spec import checkpoints_of

__all__ = [
    "hand_over",
    "check_output_dir",
    "is_to_come",
    "shipped",
    "train_final",
    "train_on_all_rows",
]


def train_final(
    plan: Plan,
    label: str | None,
    on_event: OnEvent,
    on_result: Callable[[TrialResult], None] = lambda _: None,
    engine: str | None = None,
) -> TrialResult | None:
    """Train a method of a finished study (None: the recommended one) on all rows, and keep it.

    None where there is nothing to recommend, or where trials of the method are missing still and
    none was asked for by name; for one by name that raises ConfigError. What has been trained with
    the same settings before is kept. The study's folder has to be locked by the caller.
    """
    folder = plan.spec.output_dir
    record = study_folder.read_study(folder)
    said = summarise(record)
    spec = _spec_of_final(plan, record, said, label)
    if spec is None:
        return None
    known = study_folder.read_result(folder, spec.trial_id)
    result = known if known is not None and known.status == "done" else None
    if result is None:
        kept = checkpoints_of(plan.spec)
        with (
            Worker() as worker,
            ENGINES[engine or plan.spec.engine](plan.spec, worker, kept) as run_all,
        ):
            (result,) = list(run_all([(spec,)], folder, plan.spec.metric, on_event))
        on_result(result)
    if result.status == "done":
        _say_what_to_expect(folder, spec, said)
        before = [i for i in final_ids(record) if i != spec.trial_id]
        study_folder.write_extra(folder, "final", {"trials": [*before, spec.trial_id]})
    return result


def is_to_come(plan: Plan) -> bool:
    """Whether a cross-fitted study whose trials have run still has to train what it recommends."""
    folder = plan.spec.output_dir
    record = study_folder.read_study(folder)
    spec = _spec_of_final(plan, record, summarise(record), None)
    if spec is None:
        return False
    known = study_folder.read_result(folder, spec.trial_id)
    return known is None or known.status != "done"


def train_on_all_rows(
    directory: Path, method: str | None, on_event: OnStudyEvent, trust_remote_code: bool = False
) -> None:
    """Train a method of a study's folder on all rows, as `train_final`, and write its outputs.

    Raises TrialError where training failed, or where there is nothing to recommend.
    """
    flags: dict[str, object] = {"output_dir": str(directory)}
    flags |= {"trust_remote_code": True} if trust_remote_code else {}
    planned = plan(resolve_study(directory / "study.yaml", flags))
    with files.locked(directory):
        result = train_final(planned, method, on_event)
        write_outputs(directory)
    if result is None or result.status == "failed":
        again = f"trials are missing. Run them first: tunelab compare {directory / 'study.yaml'}"
        why = result.error if result else again
        raise TrialError(f"{directory}: {why}")


def _spec_of_final(
    plan: Plan, record: StudyRecord, said: Summary, label: str | None
) -> TrialSpec | None:
    """The training on all rows of a method; None where none is recommended, or not finished."""
    folder = plan.spec.output_dir
    if plan.spec.parts is None:
        raise ConfigError(
            f"{folder}: its methods were tested on one part of the data, so each of its trials is "
            "a classifier to use already; expected a study that tests all rows (--folds)."
        )
    progress = read_progress(plan)
    labels = [m.label for m in progress.methods]
    if label is not None and label not in labels:
        raise ConfigError(f"{folder}: no method {label!r}.{suggest(label, labels, what='Methods')}")
    chosen = label or tradeoff.recommend(record, summary=said).choice
    own = [t for t in progress.trials if t.method.label == chosen]
    done = all(is_done(plan, progress.results.get(t.trial_id), t) for t in own)
    tried = all(t.method.label != chosen for t in progress.tries)
    if chosen is None or not own or not (done and tried) or progress.proposals.get(chosen):
        if label is None:
            return None
        raise ConfigError(
            f"{folder}: trials of {label} are missing, so its score is not known yet. Run them "
            f"first: tunelab compare {folder / 'study.yaml'}"
        )
    method = next(m for m in progress.methods if m.label == chosen)
    return trial_of(plan, method, plan.spec.seeds[0], purpose="final")


def _say_what_to_expect(folder: Path, spec: TrialSpec, said: Summary) -> None:
    """Put into the manifest what the method scored when every row was tested."""
    estimate = said.row(spec.method.label).estimates.get(f"test_{said.metric}")
    if estimate is None:
        return
    expected = {
        "metric": said.metric,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "from": f"its method, cross-fitted ({said.cross_fitted}); this classifier is not tested",
    }
    seal_again(study_folder.artifact_dir(folder, spec.trial_id), {"expected": expected})


# --- what is handed over --------------------------------------------------------------------


def shipped(record: StudyRecord, said: Summary, best: TrialResult | None) -> Artifact:
    """A study's classifier to ship: `best` of its trials; of a cross-fitted study, the one that was
    last trained on all rows. Raises ArtifactError where there is none.
    """
    folder = record.directory
    trial = best
    if said.cross_fitted is not None:
        trial = final_trial(record)
        if trial is None and best is not None:
            again = f"tunelab train --from-study {folder}"
            if record.missing:
                again = f"tunelab compare {folder / 'study.yaml'}"
            raise ArtifactError(
                f"{folder}: none of its classifiers was trained on all rows yet, as each tested a "
                f"part of them. Train one: {again}"
            )
    if trial is None:
        raise ArtifactError(
            f"{folder}: no trial ended well, so there is no best model. "
            f"See what failed: tunelab runs show {folder}"
        )
    return open_artifact(study_folder.artifact_dir(folder, trial.spec.trial_id))


def check_output_dir(out: Path, overwrite: bool) -> None:
    """Raise ConfigError where a classifier cannot be written to a folder, or would replace what is
    there.
    """
    check_place(out)
    files.put_back(out)
    ours = (out / MANIFEST).is_file()
    if out.is_dir() and any(out.iterdir()) and not (ours and overwrite):
        how = "Give --overwrite to replace it, or" if ours else "It is not tunelab's:"
        raise ConfigError(f"{out}: not empty. {how} choose another --output-dir.")


def hand_over(study: Path, trial_id: str, out: Path) -> None:
    """Copy a trial's classifier out of its study, with the trial's record in its folder `trial`."""
    trial = study_folder.trial_dir(study, trial_id)
    files.make_folder(out.absolute().parent)
    with files.replacing_folder(out) as draft:
        shutil.copytree(trial / "artifact", draft, dirs_exist_ok=True)
        (draft / "trial").mkdir()
        for name in study_folder.TRIAL_FILES:
            if (trial / name).is_file():  # a trial of before has no digests
                shutil.copy(trial / name, draft / "trial" / name)
