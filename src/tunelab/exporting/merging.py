"""Merging an adapter into its base, refused unless the predictions hold.

The merged model is written aside, scored beside the adapter, and only then given its name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import data
from tunelab.core.artifact import CALIBRATION, open_artifact, seal_again, sha256
from tunelab.core.errors import ArtifactError
from tunelab.core.files import replacing_folder
from tunelab.core.values import Artifact, DataSpec
from tunelab.core.words import counted
from tunelab.exporting.listing import method_of
from tunelab.models import foreign, pretrained
from tunelab.models.classifier import TransformerClassifier, open_transformer
from tunelab.stats.calibration import kept_thresholds

__all__ = [
    "Change",
    "Floats",
    "Made",
    "cannot_merge",
    "change_of",
    "exact_scores",
    "in_float",
    "merge",
    "new_folder",
    "open_adapter",
    "origin",
    "refuse_prompts",
    "sample_texts",
    "scores_of",
    "thresholds_of",
]


Floats = NDArray[np.float64]
# Scores of a merged model differ from the adapter's by rounding alone: about 1e-6 in float32.
LIMIT = 1e-4


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the predictions: `largest` difference of any score (logits), `flips` counts
    the texts that now get another label, `limit` is what was allowed without asking.
    """

    texts: int
    largest: float
    flips: int
    limit: float = LIMIT

    @property
    def acceptable(self) -> bool:
        """No label flipped and no score moved by more than the limit (a NaN is not acceptable)."""
        return self.flips == 0 and self.largest <= self.limit

    @property
    def sentence(self) -> str:
        """The same in words."""
        flipped = f"{self.flips} of {counted(self.texts, 'prediction')} flipped"
        if self.largest == 0 and self.flips == 0:
            return f"no score of {counted(self.texts, 'text')} changes"
        return f"largest change of a score {self.largest:.1e}, {flipped}"


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact that was made, how its predictions compare, and what the user ought to know."""

    artifact: Artifact
    change: Change
    notes: tuple[str, ...] = ()


# --- merging --------------------------------------------------------------------------------


@cache
def sample_texts() -> tuple[str, ...]:
    """Texts to compare predictions on: reviews that come with tunelab, and a few odd ones."""
    reviews = data.load(DataSpec("demo")).validation.texts[:64]
    odd = ("", "?", "no", "Ünïcödé 日本語 🙂", "1 2 3 4 5", "very " * 600)
    return (*reviews, *odd)


def merge(
    folder: Path | str,
    out_dir: Path | str,
    texts: Sequence[str] | None = None,
    *,
    allow_changes: bool = False,
    trust_remote_code: bool = False,
    model: str | None = None,
) -> Made:
    """Write an adapter and its base (at `model`, where it moved) as one plain transformers model,
    in float32.

    Predictions on `texts` (sample_texts() when left out) are compared between what is there and
    what was written. Raises ArtifactError, and writes nothing, where a label flips or a score moves
    by more than 1e-4, unless `allow_changes`; also for a method that cannot be merged, and for a
    base with Python code of its own unless `trust_remote_code` allows it.
    """
    artifact = open_adapter(folder, "merge", model)
    sample = _texts(texts)
    with new_folder(out_dir, [artifact.directory]) as (staging, out):
        trusted = trust_remote_code
        before = exact_scores(open_transformer(artifact, trust_remote_code=trusted), sample)
        # Adding to quantised weights would round again: the update goes onto the float base.
        classifier = open_transformer(in_float(artifact), trust_remote_code=trusted)
        whole = replace(classifier, model=_merged_classifier(classifier.model, artifact))
        whole.save(staging)
        change = change_of(before, scores_of(staging, sample, trusted), thresholds_of(artifact))
        if not np.isfinite(change.largest):  # nor could it be noted in JSON
            raise ArtifactError(
                f"{artifact.directory}: its scores, or those of the merged model, are no finite "
                "numbers: its weights are too large for float32. Nothing was written."
            )
        if not (change.acceptable or allow_changes):
            raise ArtifactError(
                f"{artifact.directory}: merging would change its predictions: {change.sentence} "
                f"(expected none, and at most {change.limit:.0e}). Nothing was written; to merge "
                "all the same, give --allow-changes."
            )
        merged_from = {"method": method_of(artifact)["name"], **origin(artifact), **asdict(change)}
        # The scores stay as they are, and so does the temperature that was fitted to them.
        if (artifact.directory / CALIBRATION).is_file():
            shutil.copy2(artifact.directory / CALIBRATION, staging)
        seal_again(staging, {"merged_from": merged_from})
    return Made(open_artifact(out), change, tuple(artifact.manifest.get("notes", ())))


def scores_of(directory: Path, texts: Sequence[str], trusted: bool) -> Floats:
    """What a folder that was just written answers, read as anybody would."""
    written = open_artifact(directory)
    return exact_scores(open_transformer(written, trust_remote_code=trusted), texts)


def exact_scores(classifier: TransformerClassifier, texts: Sequence[str]) -> Floats:
    """Scores (texts, classes) in exact float32, an adapter beside its weights and not in a copy of
    them: a merged copy would be compared with what it is itself.
    """
    return replace(classifier, precision="float32", merge=False).scores(texts)


def in_float(artifact: Artifact) -> Artifact:
    """The same adapter on its base in float32, also where it was trained on a quantised one."""
    manifest = artifact.manifest.copy()
    manifest.pop("quantization", None)
    return replace(artifact, manifest=manifest)


def _merged_classifier(model: Any, artifact: Artifact) -> Any:
    """The base with the adapter's update added to its weights; `model` is used up."""
    refuse_prompts(model, artifact)
    try:
        with pretrained.quiet():
            return pretrained.merged(model)
    except (AttributeError, NotImplementedError, ValueError, RuntimeError) as e:
        raise ArtifactError(cannot_merge(artifact, str(e).strip().splitlines()[0])) from e


def refuse_prompts(model: Any, artifact: Artifact) -> None:
    """Refuse an adapter that adds tokens: there is nothing to merge."""
    if model.active_peft_config.is_prompt_learning:
        raise ArtifactError(cannot_merge(artifact, "it adds tokens, not weights"))


def cannot_merge(artifact: Artifact, reason: str) -> str:
    """The line that says why an adapter cannot be merged."""
    return (
        f"{artifact.directory}: {method_of(artifact)['name']} cannot be merged ({reason}). "
        "Use the adapter as it is."
    )


def change_of(before: Floats, after: Floats, thresholds: Floats | None = None) -> Change:
    """How far scores moved, and how many predictions with them. `thresholds`: of several labels a
    text.
    """
    if thresholds is None:
        flips = int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
    else:
        cuts = np.log(thresholds / (1 - thresholds))
        flips = int(((before >= cuts) != (after >= cuts)).any(axis=1).sum())
    return Change(len(before), float(np.abs(before - after).max()), flips)


def thresholds_of(artifact: Artifact) -> Floats | None:
    """Those of its labels, of a classifier of several a text; None of one class a text."""
    if artifact.manifest.get("score_kind") != "label_logit":
        return None
    kept = kept_thresholds(artifact)
    return np.full(len(artifact.manifest["label_names"]), 0.5) if kept is None else kept


def origin(artifact: Artifact) -> dict[str, str]:
    """What an artifact was made from, by content: folders move."""
    weights = artifact.directory / foreign.WEIGHTS
    return {"name": artifact.directory.name, "sha256": sha256(weights)}


def _texts(texts: Sequence[str] | None) -> tuple[str, ...]:
    asked = sample_texts() if texts is None else tuple(texts)
    if not asked:
        raise ArtifactError("No texts to compare predictions on: give some, or leave them out.")
    return asked


def open_adapter(folder: Path | str, verb: str, model: str | None = None) -> Artifact:
    """An adapter's artifact, on its base at `model` where that moved.

    Raises ArtifactError where the folder holds something else.
    """
    artifact = foreign.open_folder(folder, model=model)
    kind, made = artifact.manifest["kind"], artifact.manifest.get("merged_from")
    if kind == "adapter":
        return artifact
    if made:
        what = f"is merged already (from {made['method']}, {made['name']})"
    elif kind == "model":
        what = "is a whole model already"
    else:
        what = f"is of the kind {kind}"
    raise ArtifactError(
        f"{artifact.directory}: {what}, expected an adapter: there is nothing to {verb}. "
        "Use it as it is."
    )


@contextmanager
def new_folder(out_dir: Path | str, sources: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Give an empty folder to fill, and the one that it becomes; on any error nothing is left."""
    out = Path(out_dir).expanduser()
    for source in (s.resolve() for s in sources):
        if out.resolve() == source or source in out.resolve().parents:
            raise ArtifactError(
                f"{out}: is, or lies in, the folder of the original, which stays as it is. "
                f"Choose another folder, such as {source.parent / (source.name + '-made')}."
            )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "not empty" if out.is_dir() else "a file"
        raise ArtifactError(f"{out}: {what}, expected a new or empty folder. Choose another one.")
    # Beside what there is already, so that not even an empty parent is left behind.
    near = next(p for p in out.resolve().parents if p.is_dir())
    with ExitStack() as inside:
        try:
            draft = inside.enter_context(replacing_folder(out, near))
        except OSError as e:
            raise ArtifactError(f"{out}: cannot be written ({e.strerror}). Choose another.") from e
        yield draft, out
