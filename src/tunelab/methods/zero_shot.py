"""`zero-shot`: the label whose name or description is nearest to the text, as the base reads both;
`zero-shot-nli`: the label whose sentence the text entails, by a base that was trained on that.

No training row is used (Yin et al. 2019, with sentence embeddings in place of entailment). What
it knows of a label is what is written of it, so that a description helps more than a name as
`class 3`. Validation fits the temperature of its probabilities, as of any method; no decision.
"""

from __future__ import annotations

import time

import numpy as np

from tunelab.core.details import Details
from tunelab.core.errors import ModelError
from tunelab.methods.embedded import EmbeddingSettings, class_counts
from tunelab.methods.label_texts import LabelTemplate, refuse_unknown_labels
from tunelab.methods.method import Costs, Method, Outcome, Task
from tunelab.methods.settings import EncoderSettings
from tunelab.models.bases import Base

__all__ = [
    "METHODS",
    "ZeroShotNliSettings",
    "ZeroShotSettings",
]

# Of cosines, so that a softmax tells classes apart (as in sentence-transformers); the temperature
# that is fitted on validation divides it.
_SCALE = 20.0
_NOTHING_TRAINED = "nothing is trained, so there is no adapter"


class ZeroShotSettings(LabelTemplate, EmbeddingSettings):
    """Settings of `zero-shot`."""


def fit_zero_shot(task: Task) -> Outcome:
    """Vectors of what stands for each label; nothing is fitted."""
    from tunelab.models import bases, embeddings, lengths
    from tunelab.models.embedded import EmbeddedClassifier
    from tunelab.models.vector_heads import Hyperplanes, LinearHead, Standard, unit_length

    assert task.base is not None  # noqa: S101  the row says needs_base
    s: ZeroShotSettings = task.settings
    refuse_unknown_labels(s, task.label_names)
    limit = lengths.limit_of(s.max_length, task.base, task.train.texts)
    embedder = embeddings.Embedder(task.base, s.pooling, limit, s.per_device_eval_batch_size)
    started = time.perf_counter()
    texts = s.texts_of(task.label_names)
    vectors = [unit_length(embedder(t).astype(np.float64)).mean(axis=0) for t in texts]
    weights = unit_length(np.stack(vectors))
    seconds = time.perf_counter() - started
    planes = Hyperplanes(weights, np.zeros(len(weights)), temperature=_SCALE)
    head = LinearHead(planes, Standard.plain(weights.shape[1]), unit=True)
    return Outcome(
        classifier=EmbeddedClassifier(
            "zero-shot", embedder, head, task.label_names, task.base.ref, s.pooling, limit
        ),
        train_seconds=seconds,
        counts=class_counts(0, weights.size + bases.count_parameters(task.base)),
        details=Details(
            own={"label_texts": dict(zip(task.label_names, texts, strict=True))},
            training_rows=0,
            notes=bases.notes_of_base(task.base, task.label_names, head=False),
        ),
        reasons={"adapter_parameters": _NOTHING_TRAINED},
    )


# --- by entailment ----------------------------------------------------------------------------


class ZeroShotNliSettings(LabelTemplate, EncoderSettings):
    """Settings of `zero-shot-nli`."""


def refuse_no_entailment(base: Base, settings: ZeroShotNliSettings) -> None:
    """Refuse a base whose head does not tell entailment."""
    from tunelab.models import heads
    from tunelab.models.entailment import entailment_row

    if entailment_row(base.config) is None:
        names = heads.labels_in(base.config)
        has = f"the classes {', '.join(names[:6])}" if names else "no named classes"
        raise ModelError(
            f"zero-shot-nli cannot run on {base.ref.name}: its head has {has}, expected one called "
            "entailment. Use a base that was trained on natural language inference, or zero-shot."
        )


def fit_entailment(task: Task) -> Outcome:
    """The base with its own head and a sentence for each label; nothing is fitted."""
    from tunelab.models import bases, lengths
    from tunelab.models.entailment import EntailmentClassifier

    assert task.base is not None  # noqa: S101  the row says needs_base
    s: ZeroShotNliSettings = task.settings
    refuse_unknown_labels(s, task.label_names)
    limit = lengths.limit_of(s.max_length, task.base, task.train.texts)
    started = time.perf_counter()
    texts = s.texts_of(task.label_names)
    classifier = EntailmentClassifier.of(
        task.base, texts, task.label_names, limit, s.per_device_eval_batch_size
    )
    return Outcome(
        classifier=classifier,
        train_seconds=time.perf_counter() - started,
        counts=class_counts(0, bases.count_parameters(task.base)),
        details=Details(
            own={"label_texts": dict(zip(task.label_names, texts, strict=True))},
            training_rows=0,
        ),
        reasons={"adapter_parameters": _NOTHING_TRAINED},
    )


METHODS = (
    Method(
        "zero-shot",
        "the label whose name or description the base finds nearest; no training rows are used",
        ZeroShotSettings,
        fit_zero_shot,
        check_labels=refuse_unknown_labels,
        chance=False,
        costs=Costs(work=0.0, once=True),
    ),
    Method(
        "zero-shot-nli",
        "the label whose sentence the text entails, by a base trained to tell; no training rows",
        ZeroShotNliSettings,
        fit_entailment,
        check=refuse_no_entailment,
        check_labels=refuse_unknown_labels,
        chance=False,
        costs=Costs(work=0.0),
    ),
)
