"""`tunelab export`: a classifier in another form, judged in a fresh process before it is kept."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import (
    CALIBRATION,
    open_artifact,
    seal,
    seal_again,
    sha256,
)
from tunelab.core.errors import ArtifactError
from tunelab.core.forms import FORMS, form_fault, lacking_packages
from tunelab.core.values import Artifact, Classifier, Manifest
from tunelab.exporting import graphs, ladder, openvino, rounding
from tunelab.exporting.agreement import (
    EXACT,
    ROUNDED,
    Agreement,
    JudgedTexts,
    Rule,
    agreement_of,
)
from tunelab.exporting.ladder import Rung
from tunelab.exporting.listing import method_of
from tunelab.exporting.merging import (
    exact_scores,
    merge,
    new_folder,
    open_adapter,
    scores_of,
    thresholds_of,
)
from tunelab.exporting.with_base import pipeline_scores, write_with_base
from tunelab.models import exported, foreign, text_classifier
from tunelab.models.classifier import TransformerClassifier

__all__ = [
    "TARGETS",
    "Exported",
    "Target",
    "export_classifier",
]

Scores = NDArray[np.float64]
_CALIBRATION_TEXTS = 128


@dataclass(frozen=True, slots=True)
class Exported:
    """An artifact in another form, how its predictions compare, and what was tried for it.

    `fault`: why its predictions do not hold, where it was written all the same (`allow`).
    """

    artifact: Artifact
    target: str
    agreement: Agreement
    rungs: tuple[Rung, ...] = ()
    rung: str | None = None
    fault: str | None = None

    @property
    def sentence(self) -> str:
        """What was made, in words."""
        how = f" ({self.rung})" if self.rung else ""
        return f"{self.target}{how}: {self.agreement.sentence}"


@dataclass(frozen=True, slots=True)
class _Export:
    """What is exported, on what it is judged, and into which folder, not yet of its name."""

    original: Artifact
    judged: JudgedTexts
    before: Scores
    staging: Path
    model: str | None
    trusted: bool
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Target:
    """A form to export to: `write` fills and seals a folder, and gives the rungs that it tried and
    the one that it took. `rule` is what its predictions are held to.
    """

    write: Callable[[_Export, Classifier], tuple[tuple[Rung, ...], str | None]]
    rule: Rule


def export_classifier(
    folder: Path | str,
    to: str,
    out_dir: Path | str,
    judged: JudgedTexts,
    *,
    allow: bool = False,
    keep_texts: bool = False,
    trust_remote_code: bool = False,
    model: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a saved classifier in another form (TARGETS), if its predictions hold on `judged`.

    The reference is the classifier itself, in exact float32 and unmerged; what was written is read
    and scored in a fresh process. Raises ArtifactError, and writes nothing, where predictions do
    not hold, unless `allow`; the artifact then says so. `keep_texts`: its manifest names the texts
    whose label changes, not only how many there are. `model`: where its base lies now, if it moved.
    `tell` hears what was tried.
    """
    target = _target(to)
    original = foreign.open_folder(folder, model=model)
    _refuse_exported(original)
    if to in _OF_ADAPTERS:
        open_adapter(folder, _OF_ADAPTERS[to], model)
    if to == "with-base":
        judged = judged.without_empty()  # a pipeline cannot take a text without tokens
    with new_folder(out_dir, [original.directory]) as (staging, out):
        loaded = text_classifier.open_classifier(folder, trust_remote_code, model).classifier
        before = _reference(loaded, judged.texts)
        job = _Export(original, judged, before, staging, model, trust_remote_code, tell)
        rungs, rung = target.write(job, loaded)
        if (original.directory / CALIBRATION).is_file():
            shutil.copy2(original.directory / CALIBRATION, staging)
        seal_again(staging, {})
        agreement = _agreement_with(job, _scores_afresh(job, to))
        fault = target.rule.fault(agreement)
        if fault is not None and (not allow or not np.isfinite(agreement.largest)):
            raise ArtifactError(
                f"{original.directory}: as {to} its predictions would not hold: {fault}, on "
                f"{judged.described}. Nothing was written"
                + (
                    "; to export all the same, give --allow."
                    if np.isfinite(agreement.largest)
                    else "."
                )
            )
        made = Exported(original, to, agreement, rungs, rung, fault)
        notes = [f"Exported in spite of this: {fault}."] if fault else []
        kept = _kept_of(made, original, keep_texts)
        seal_again(staging, {"exported_from": kept, "notes": notes})
    return replace(made, artifact=open_artifact(out))


def _target(to: str) -> Target:
    fault = form_fault(to) or lacking_packages(to)
    if fault is not None:
        raise ArtifactError(fault)
    return TARGETS[to]


def _refuse_exported(original: Artifact) -> None:
    if original.manifest["kind"] in exported.RUNTIMES:
        raise ArtifactError(
            f"{original.directory}: is an export already ({original.manifest['kind']}). Export the "
            "classifier that it was made from."
        )


def _reference(classifier: Classifier, texts: Sequence[str]) -> Scores:
    if isinstance(classifier, TransformerClassifier):
        return exact_scores(classifier, texts)
    return classifier.scores(texts)


def _agreement_with(job: _Export, after: Scores) -> Agreement:
    names = job.original.manifest["label_names"]
    return agreement_of(job.before, after, job.judged, names, thresholds_of(job.original))


def _kept_of(made: Exported, original: Artifact, keep_texts: bool) -> dict[str, object]:
    """What the manifest keeps: by content, since folders move, and whether it was let pass.

    It goes where the classifier goes: texts of the data are in it only where that was asked for.
    """
    weights = sorted(original.directory.glob("*.safetensors"))
    return {
        "target": made.target,
        "method": method_of(original)["name"],
        "name": original.directory.name,
        "sha256": sha256(weights[0]) if weights else None,
        **made.agreement.to_json(),
        **({"changed_texts": made.agreement.changed_texts()} if keep_texts else {}),
        "rung": made.rung,
        "rungs": [r.to_json() for r in made.rungs],
        "allowed_in_spite_of": made.fault,
    }


# --- in a fresh process ---------------------------------------------------------------------


def _scores_afresh(job: _Export, to: str) -> Scores:
    """What the written folder answers to somebody who has it and its runtime alone."""
    if to == "merged":
        return scores_of(job.staging, job.judged.texts, job.trusted)
    if to == "with-base":
        return pipeline_scores(job.staging, job.judged.texts, job.original)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", "-m", "tunelab.models.exported", str(job.staging)],
        input=json.dumps(job.judged.texts).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": _import_path()},
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ArtifactError(
            f"{job.original.directory}: what was written cannot be read in a fresh process "
            f"({said[-1] if said else f'exit code {done.returncode}'}). Nothing was written."
        )
    return np.asarray(np.load(io.BytesIO(done.stdout)), dtype=np.float64)


def _import_path() -> str:
    """Where this process finds packages, in its order, so that another finds the same ones; less
    the current folder, of which no file is taken for a package, unless tunelab itself lies there.
    """
    own, here = str(Path(__file__).parents[2]), str(Path.cwd())
    return os.pathsep.join(p for p in sys.path if p == own or p not in {"", here})


# --- the targets ----------------------------------------------------------------------------


def _write_merged(job: _Export, _: Classifier) -> tuple[tuple[Rung, ...], None]:
    made = merge(
        job.original.directory,
        job.staging / "merged",
        job.judged.texts,
        allow_changes=True,  # judged here, by probabilities
        trust_remote_code=job.trusted,
        model=job.model,
    )
    for file in made.artifact.directory.iterdir():
        file.replace(job.staging / file.name)
    made.artifact.directory.rmdir()
    return (), None


def _write_with_base(job: _Export, _: Classifier) -> tuple[tuple[Rung, ...], None]:
    write_with_base(job.original, job.staging, job.trusted)
    return (), None


def _write_onnx(job: _Export, classifier: Classifier) -> tuple[tuple[Rung, ...], None]:
    facts = graphs.write_float_graph(job.original, classifier, job.staging, job.trusted)
    seal(job.staging, _facts(facts))
    return (), None


def _facts(manifest: Manifest) -> dict[str, object]:
    return {k: v for k, v in manifest.items() if k != "files"}


def _write_int8(job: _Export, classifier: Classifier) -> tuple[tuple[Rung, ...], str]:
    """The fastest way to round for onnxruntime that passes."""
    _refuse_sparse(job)
    facts = graphs.write_float_graph(job.original, classifier, job.staging, job.trusted)
    plain = seal(job.staging, _facts(facts))
    graph = job.staging / graphs.GRAPH
    with tempfile.TemporaryDirectory(prefix="tunelab-int8-") as scratch:
        try:
            source = rounding.Rounding.of(graph, _calibration_inputs(job, plain), Path(scratch))
        except Exception as e:  # onnxruntime's tools raise what they like
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
            raise ArtifactError(
                f"{job.original.directory}: its graph cannot be rounded ({reason}). Export it to "
                "onnx, in float32."
            ) from e
        ways = {n: partial(way, source) for n, way in rounding.ONNX_WAYS.items()}
        rungs, taken, path = ladder.walk(ways, ".onnx", Path(scratch), _scorer(job, plain))
        graph.unlink()
        shutil.move(path, job.staging / rounding.QUANTISED)
    seal(job.staging, _facts(facts) | {"graph": rounding.QUANTISED})
    return rungs, taken


def _write_openvino(job: _Export, classifier: Classifier) -> tuple[tuple[Rung, ...], None]:
    facts = graphs.write_float_graph(job.original, classifier, job.staging, job.trusted)
    openvino.write_float(job.staging / graphs.GRAPH, job.staging / openvino.OPENVINO_MODEL)
    shutil.rmtree((job.staging / graphs.GRAPH).parent)
    seal(job.staging, _facts(facts) | {"kind": "openvino", "graph": openvino.OPENVINO_MODEL})
    return (), None


def _write_openvino_int8(job: _Export, classifier: Classifier) -> tuple[tuple[Rung, ...], str]:
    """The fastest way to round for OpenVINO that passes."""
    _refuse_sparse(job)
    facts = graphs.write_float_graph(job.original, classifier, job.staging, job.trusted)
    plain = seal(job.staging, _facts(facts))
    graph = job.staging / graphs.GRAPH
    with tempfile.TemporaryDirectory(prefix="tunelab-int8-") as scratch:
        batches = _calibration_inputs(job, plain)
        ways = {n: partial(way, graph, batches) for n, way in openvino.OPENVINO_WAYS.items()}
        rungs, taken, path = ladder.walk(ways, ".xml", Path(scratch), _scorer(job, plain))
        shutil.rmtree(graph.parent)
        for suffix in (".xml", ".bin"):
            shutil.move(
                path.with_suffix(suffix),
                (job.staging / openvino.OPENVINO_MODEL).with_suffix(suffix),
            )
    seal(job.staging, _facts(facts) | {"kind": "openvino", "graph": openvino.OPENVINO_MODEL})
    return rungs, taken


def _refuse_sparse(job: _Export) -> None:
    if job.original.manifest["kind"] == "svm-tfidf":
        raise ArtifactError(
            f"{job.original.directory}: a svm-tfidf has one sparse product, which int8 would not "
            "make faster. Use --to onnx."
        )


def _calibration_inputs(job: _Export, plain: Artifact) -> list[exported.Inputs]:
    """Inputs of so many calibration texts, evenly of all."""
    texts = job.judged.calibration
    some = texts[:: -(-len(texts) // _CALIBRATION_TEXTS) or 1]
    return [inputs for _, inputs in exported.input_batches(plain)(some)]


def _scorer(job: _Export, plain: Artifact) -> ladder.Scorer:
    return ladder.Scorer(
        plain, job.staging / graphs.GRAPH, job.judged.texts, partial(_agreement_with, job), job.tell
    )


# What is made of adapters alone, and what is done to them.
_OF_ADAPTERS = {"merged": "merge", "with-base": "put a base beside"}

TARGETS: dict[str, Target] = {
    "merged": Target(_write_merged, EXACT),
    "with-base": Target(_write_with_base, EXACT),
    "onnx": Target(_write_onnx, EXACT),
    "int8": Target(_write_int8, ROUNDED),
    "openvino": Target(_write_openvino, EXACT),
    "openvino-int8": Target(_write_openvino_int8, ROUNDED),
}
assert set(TARGETS) == set(FORMS)  # noqa: S101  names and needs are known without loading this
