"""The mistakes of a study's best classifier, each with the words that moved it (words.json)."""

from __future__ import annotations

from dataclasses import replace

from tunelab.analysis import Summary, summary
from tunelab.analysis.explanations import ExplainedMistakes, rows_to_explain
from tunelab.core import study_folder
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.models.text_classifier import open_classifier

__all__ = ["explain_best"]

MARKED_WORDS = 6  # of a text: more marks say less


def explain_best(
    record: StudyRecord, said: Summary, trust_remote_code: bool = False
) -> StudyRecord:
    """Explain what the trial to deploy got wrong, keep that in words.json, and give the record with
    it. Raises InputError where no classifier or no text was kept.
    """
    if record.task == "multilabel":
        raise InputError(
            f"--explain: {record.directory} gives several labels a text, and which words moved "
            "them is told for one class a text alone. Leave --explain out."
        )
    trial = summary.best_trial(record, said)
    rows = study_folder.read_rows(record.directory, said.split)
    if trial is None or rows is None:
        lacks = "classifier" if trial is None else "texts"
        raise InputError(
            f"--explain: {record.directory} has no {lacks} to explain mistakes with. Run it again "
            f"to its end: tunelab compare {record.directory / 'study.yaml'}"
        )
    text_of = dict(zip(rows.ids, rows.texts, strict=True))
    ids = [i for i in rows_to_explain(record, trial.spec.trial_id, said.split) if i in text_of]
    folder = study_folder.artifact_dir(record.directory, trial.spec.trial_id)
    own = open_classifier(folder, trust_remote_code, scores_only=True)
    explained = own.explain([text_of[i] for i in ids])
    words = {
        i: tuple(
            (w.start, w.stop, round(w.moved, 3))
            for w in sorted(e.words, key=lambda w: -abs(w.moved))[:MARKED_WORDS]
        )
        for i, e in zip(ids, explained, strict=True)
    }
    made = ExplainedMistakes(
        trial.spec.trial_id, trial.spec.method.label, trial.spec.seed, words
    ).to_json()
    study_folder.write_extra(record.directory, "words", made)
    return replace(record, words=made)
