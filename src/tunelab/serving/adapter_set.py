"""Several adapters on one base in memory, switched between without loading the base again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunelab.core.artifact import refuse_several_labels
from tunelab.core.errors import ArtifactError, suggest
from tunelab.exporting.combining import base_words
from tunelab.exporting.merging import Floats, cannot_merge, refuse_prompts
from tunelab.models import bases, classifier, foreign, pretrained
from tunelab.models.classifier import TransformerClassifier
from tunelab.models.names import without_peft
from tunelab.models.text_classifier import TextClassifier
from tunelab.stats import calibration

__all__ = [
    "AdapterSet",
    "share_weights",
]


# --- several at once ------------------------------------------------------------------------


class AdapterSet:
    """Several adapters on one base in one process: the base's weights are in memory once.

    Adapters may be of any methods and have different labels: each brings its own head. Every
    adapter must have been trained on exactly this base, wherever it lies now (its hash decides).
    """

    def __init__(
        self,
        base: str | Path,
        adapters: Mapping[str, Path | str],
        batch_size: int = 64,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        resolved = bases.resolve(str(base), trust_remote_code)
        if not adapters:
            raise ArtifactError("AdapterSet: expected one or more adapters, found none.")
        self.base = resolved.ref
        self._members: dict[str, TextClassifier] = {}
        self._merged: dict[str, dict[str, torch.Tensor]] = {}
        shared: dict[str, torch.Tensor] = {}
        for name, folder in adapters.items():
            member = _member(resolved, folder, batch_size)
            share_weights(_model_of(member), shared)
            self._members[name] = member
        self._active = next(iter(adapters))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, in the order in which they were given."""
        return tuple(self._members)

    @property
    def active(self) -> str:
        """Name of the adapter that labels texts for which none is named."""
        return self._active

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the active adapter's classes."""
        return self[self._active].label_names

    def __getitem__(self, name: str) -> TextClassifier:
        """The classifier of one adapter. Raises ArtifactError for an unknown name."""
        try:
            return self._members[name]
        except KeyError:
            raise ArtifactError(
                f"No adapter is called {name!r}.{suggest(name, self._members, what='Adapters')}"
            ) from None

    def use(self, name: str) -> AdapterSet:
        """Make an adapter the active one."""
        _ = self[name]
        self._active = name
        return self

    def predict(
        self, texts: Sequence[str] | str, adapters: Sequence[str] | None = None
    ) -> list[str]:
        """Label names of texts by the active adapter, or by the one that `adapters` names a row."""
        rows = self.predict_proba(texts, adapters)
        names = adapters if adapters is not None else [self._active] * len(rows)
        return [self[n].label_names[int(row.argmax())] for n, row in zip(names, rows, strict=True)]

    def predict_proba(
        self, texts: Sequence[str] | str, adapters: Sequence[str] | None = None
    ) -> list[Floats]:
        """Probabilities of each text, (n_classes of its adapter,): class counts may differ."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if adapters is None:
            return list(self[self._active].predict_proba(texts))
        if isinstance(adapters, str) or len(adapters) != len(texts):
            given = repr(adapters) if isinstance(adapters, str) else f"{len(adapters)} names"
            raise ArtifactError(
                f"adapters: expected the name of one for each of {len(texts)} texts, found {given}."
            )
        members = {name: self[name] for name in dict.fromkeys(adapters)}
        out: list[Floats] = [np.empty(0)] * len(texts)
        # Rows of one adapter go together: every adapter runs as if it were alone.
        for name, member in members.items():
            rows = [i for i, n in enumerate(adapters) if n == name]
            for i, p in zip(rows, member.predict_proba([texts[i] for i in rows]), strict=True):
                out[i] = p
        return out

    def merge(self, name: str) -> None:
        """Merge an adapter into a copy of the base's weights, in memory: faster, until unmerged."""
        member = self[name]
        if name in self._merged:
            return
        model = _model_of(member)
        refuse_prompts(model, member.artifact)
        if member.artifact.manifest.get("quantization"):
            reason = "its base is quantised, and would be rounded again; adapters.merge can"
            raise ArtifactError(cannot_merge(member.artifact, reason))
        kept = {n: p.data for n, p in model.named_parameters()}
        for p in model.parameters():
            p.data = p.data.clone()  # the others go on reading the shared weights
        try:
            with pretrained.quiet():
                model.merge_adapter(safe_merge=True)
        except (AttributeError, NotImplementedError, ValueError, RuntimeError) as e:
            _restore(model, kept)
            reason = str(e).strip().splitlines()[0]
            raise ArtifactError(cannot_merge(member.artifact, reason)) from e
        self._merged[name] = kept

    def unmerge(self, name: str) -> None:
        """Undo `merge`: the weights are those from before, bit for bit, and shared again."""
        member = self[name]
        if name not in self._merged:
            return
        model = _model_of(member)
        with pretrained.quiet():
            model.unmerge_adapter()
        _restore(model, self._merged.pop(name))


def _member(base: bases.Base, folder: Path | str, batch_size: int) -> TextClassifier:
    artifact = foreign.open_folder(folder, base)
    if artifact.manifest["kind"] != "adapter":
        raise ArtifactError(
            f"{artifact.directory}: of the kind {artifact.manifest['kind']}, expected an adapter. "
            "Load it by itself: tunelab.load"
        )
    if artifact.manifest["base"]["sha256"] != base.ref.sha256:
        raise ArtifactError(
            f"{artifact.directory}: trained on {base_words(artifact)}, but the base given is "
            f"{base.ref.name} ({base.ref.sha256[:12]}...). Give the base that it was trained on."
        )
    refuse_several_labels(artifact, "a set of adapters")
    loaded = classifier.load_on(base, artifact, batch_size)
    return TextClassifier(loaded, artifact, calibration.kept_temperature(artifact))


def _model_of(member: TextClassifier) -> Any:
    assert isinstance(member.classifier, TransformerClassifier)  # noqa: S101  an adapter's is one
    return member.classifier.model


def share_weights(model: Any, shared: dict[str, torch.Tensor]) -> None:
    """Let a model's weights be those in `shared` where they are equal, and add those it brings."""
    for name, p in model.named_parameters():
        if type(p) is not torch.nn.Parameter:  # quantised: its scales lie beside it
            continue
        there = shared.setdefault(without_peft(name), p.data)
        same_kind = there.shape == p.shape and there.dtype == p.dtype
        # Equal by content, not by name: some methods change the base's weights.
        if same_kind and torch.equal(there, p.data):
            p.data = there


def _restore(model: Any, kept: Mapping[str, torch.Tensor]) -> None:
    for name, p in model.named_parameters():
        p.data = kept[name]
