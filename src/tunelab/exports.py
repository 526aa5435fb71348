"""A classifier in another form, for Python: `tunelab.export`.

import tunelab

made = tunelab.export("mood", to="onnx", output_dir="mood-onnx")
print(made.sentence)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tunelab import api, exporting
from tunelab.exporting.agreement import JudgedTexts
from tunelab.models import foreign
from tunelab.study.known_rows import rows_of_classifier

__all__ = ["export"]


def export(
    folder: str | Path,
    to: str,
    output_dir: str | Path,
    *,
    texts: Sequence[str] | None = None,
    allow: bool = False,
    keep_texts: bool = False,
    model: str | None = None,
    trust_remote_code: bool = False,
    on_note: Callable[[str], None] = lambda _: None,
) -> exporting.Exported:
    """Write a saved classifier (a study: its best) in another form, if its predictions hold.

    `to`: a row of `tunelab.exporting.TARGETS`. Predictions are compared with those of the unmerged
    classifier in exact float32, on its validation part where that can be read, else on texts that
    come with tunelab; `texts` are compared beside them. float32 forms: no label may change and no
    probability by more than 1e-4. int8: at most 1% of labels, by the upper 95% bound, and accuracy
    not shown to be worse. Raises ArtifactError, and writes nothing, where they do not hold;
    `allow` writes it all the same, and the artifact says so. What is written holds no text of the
    data, unless `keep_texts`: then those whose label changes. `model`: where its base lies now, if
    it moved. `on_note` hears what was tried.
    """
    source = api.classifier_folder(folder)
    return exporting.export_classifier(
        source,
        to,
        output_dir,
        _texts_to_judge_on(source, tuple(texts or ()), model),
        allow=allow,
        keep_texts=keep_texts,
        model=model,
        trust_remote_code=trust_remote_code,
        tell=on_note,
    )


def _texts_to_judge_on(folder: Path, more: tuple[str, ...], model: str | None) -> JudgedTexts:
    """The validation part of a classifier's trial, else the sample that comes along, and `more`."""
    rows = rows_of_classifier(folder)
    names = tuple(foreign.open_folder(folder, model=model).manifest["label_names"])
    if rows is None or set(rows.label_names) != set(names) or not len(rows.validation):
        kept = (*exporting.sample_texts(), *more)
        said = f"{len(kept)} texts, since its validation part cannot be read"
        return JudgedTexts(kept, np.full(len(kept), -1), kept, said)
    part = rows.validation
    order = np.asarray([names.index(n) for n in rows.label_names])
    labels = np.where(part.labels >= 0, order[part.labels], -1)
    said = f"{len(part)} texts of its validation part" + (f" and {len(more)} more" if more else "")
    return JudgedTexts(
        (*part.texts, *more),
        np.concatenate([labels, np.full(len(more), -1)]).astype(np.int64),
        rows.train.texts,
        said,
    )
