"""A classifier in another form, for Python: `tunelab.export`.

import tunelab

made = tunelab.export("mood", to="onnx", output_dir="mood-onnx")
print(made.sentence)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tunelab import api, exporting
from tunelab.models import foreign
from tunelab.models.exported import RUNTIMES
from tunelab.study.shipping import texts_to_judge_on

__all__ = ["export", "export_to_docker"]


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
        texts_to_judge_on(source, tuple(texts or ()), model),
        allow=allow,
        keep_texts=keep_texts,
        model=model,
        trust_remote_code=trust_remote_code,
        tell=on_note,
    )


def export_to_docker(
    folder: str | Path,
    output_dir: str | Path,
    *,
    texts: Sequence[str] | None = None,
    allow: bool = False,
    keep_texts: bool = False,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> exporting.DockerFolder:
    """Write a folder that docker makes an image of: a saved classifier (a study: its best) as ONNX,
    served by `tunelab serve`, with every version locked.

    What is no export yet is exported first, as `export` does and refuses; an export is taken as it
    is.
    """
    source = api.classifier_folder(folder)
    ready = foreign.open_folder(source, model=model).manifest["kind"] in RUNTIMES
    return exporting.write_docker_folder(
        source,
        output_dir,
        None if ready else texts_to_judge_on(source, tuple(texts or ()), model),
        allow=allow,
        keep_texts=keep_texts,
        model=model,
        trust_remote_code=trust_remote_code,
    )
