"""`compare --export`: a study's best classifier in other forms, judged, measured and kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunelab.analysis import summarise, summary
from tunelab.core import study_folder
from tunelab.core.errors import ArtifactError
from tunelab.core.files import folder_bytes, make_folder
from tunelab.core.forms import AS_TRAINED, StudyExports, WinnersForm, exports_from_json
from tunelab.core.tasks import relabelled
from tunelab.core.values import BaseRef
from tunelab.models import bases, foreign, text_classifier, weights
from tunelab.study import final
from tunelab.study.known_rows import rows_of_classifier

if TYPE_CHECKING:
    from tunelab.core.values import Artifact
    from tunelab.exporting.agreement import JudgedTexts

__all__ = [
    "export_winner",
    "texts_to_judge_on",
]

# Texts that speed is measured on, and how many of them one at a time.
_MANY, _ALONE = 512, 50


def texts_to_judge_on(folder: Path, more: tuple[str, ...], model: str | None) -> JudgedTexts:
    """The validation part of a classifier's trial, else the sample that comes along, and `more`."""
    from tunelab import exporting
    from tunelab.exporting.agreement import JudgedTexts

    rows = rows_of_classifier(folder)
    names = tuple(foreign.open_folder(folder, model=model).manifest["label_names"])
    if rows is None or set(rows.label_names) != set(names) or not len(rows.validation):
        kept = (*exporting.sample_texts(), *more)
        said = f"{len(kept)} texts, since its validation part cannot be read"
        return JudgedTexts(kept, np.full(len(kept), -1), kept, said)
    part = rows.validation
    labels = relabelled(part.labels, rows.label_names, names)
    unknown = np.full((len(more), *labels.shape[1:]), -1)
    said = f"{len(part)} texts of its validation part" + (f" and {len(more)} more" if more else "")
    return JudgedTexts(
        (*part.texts, *more),
        np.concatenate([labels, unknown]).astype(np.int64),
        rows.train.texts,
        said,
    )


def export_winner(
    folder: Path,
    forms: Sequence[str],
    tell: Callable[[str], None] = lambda _: None,
    trust_remote_code: bool = False,
) -> StudyExports | None:
    """Export a study's best classifier to each of `forms`, measure it, and keep both.

    A form whose predictions do not hold is measured too, and not kept. What an earlier run has made
    of the same trial is kept. None where there is nothing to ship yet.
    """
    try:
        record = study_folder.read_study(folder)
        said = summarise(record)
        best = summary.best_trial(record, said)
        winner = final.shipped(record, said, best)
    except ArtifactError as e:
        tell(f"Nothing is exported: {e}")
        return None
    trial = winner.directory.parent.name
    known = study_folder.known_extra(folder, "exports", exports_from_json)
    there = {f.form for f in known.forms if _is_there(folder, f)} if known else set()
    if known is not None and known.trial == trial and there == {AS_TRAINED, *forms}:
        return known
    # Of a cross-fitted study it is the one trained on all rows, by the method recommended.
    of_winner = study_folder.read_result(folder, trial)
    label = of_winner.spec.method.label if of_winner else ""
    judged = texts_to_judge_on(winner.directory, (), None)
    make = partial(_exported, folder, winner, judged, tell, trust_remote_code)
    rows = [_measured(AS_TRAINED, winner, judged.texts[:_MANY], trust_remote_code)]
    for form in forms:
        tell(f"exporting {label} to {form}")
        rows.append(make(form))
    made = StudyExports(trial, label, judged.described, tuple(rows))
    study_folder.write_extra(folder, "exports", made.to_json())
    return made


def _is_there(folder: Path, form: WinnersForm) -> bool:
    return form.folder is None or (folder / form.folder).is_dir()


def _exported(  # noqa: PLR0917  all but the form are given once
    study: Path,
    winner: Artifact,
    judged: JudgedTexts,
    tell: Callable[[str], None],
    trusted: bool,
    form: str,
) -> WinnersForm:
    from tunelab import exporting

    out = study / study_folder.EXPORTS / form
    make_folder(out.parent)
    shutil.rmtree(out, ignore_errors=True)  # of another winner, or of another run
    try:
        made = exporting.export_classifier(
            winner.directory, form, out, judged, allow=True, trust_remote_code=trusted, tell=tell
        )
    except ArtifactError as e:
        return WinnersForm(form, None, fault=str(e))
    row = _measured(form, made.artifact, judged.texts[:_MANY], trusted)
    if made.fault is not None:
        shutil.rmtree(out)
    return WinnersForm(
        form,
        None if made.fault else str(out.relative_to(study)),
        row.bytes,
        row.texts_per_second,
        row.milliseconds,
        len(made.agreement.changed),
        made.agreement.texts,
        made.sentence,
        made.fault,
    )


def _measured(form: str, artifact: Artifact, texts: Sequence[str], trusted: bool) -> WinnersForm:
    """Size, throughput and latency of a saved classifier, as `tunelab predict` loads it."""
    own = text_classifier.open_classifier(artifact.directory, trusted).classifier
    own.scores(texts[:32])  # what is prepared once
    started = time.perf_counter()
    own.scores(texts)
    many = time.perf_counter() - started
    alone = []
    for text in texts[:_ALONE]:
        started = time.perf_counter()
        own.scores([text])
        alone.append(time.perf_counter() - started)
    return WinnersForm(
        form,
        None,
        folder_bytes(artifact.directory) + _bytes_of_base(artifact, trusted),
        len(texts) / many,
        1000 * float(np.median(alone)),
    )


def _bytes_of_base(artifact: Artifact, trusted: bool) -> int:
    """Of the weights that an adapter, or a head on a base, needs beside its own folder."""
    manifest = artifact.manifest
    if not manifest.get("base") or not foreign.needs_base(artifact.directory):
        return 0
    base = bases.resolve_exactly(BaseRef(**manifest["base"]), artifact.directory, trusted)
    files = weights.weight_files(base.ref.name, base.path)
    # Those that lie in the folder itself are counted already.
    return sum(p.stat().st_size for p in files if not (artifact.directory / p.name).is_file())
