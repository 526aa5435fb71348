"""`zero-shot`: the label whose name or description is nearest to the text, as the base reads both.

No training row is used (Yin et al. 2019, with sentence embeddings in place of entailment). What
it knows of a label is what is written of it, so that a description helps more than a name as
`class 3`. Validation fits the temperature of its probabilities, as of any method; no decision.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from tunelab.core.details import Details
from tunelab.core.errors import ConfigError, suggest
from tunelab.methods.embedded import EmbeddingSettings, class_counts
from tunelab.methods.method import Costs, Method, Outcome, Task

__all__ = [
    "METHODS",
    "ZeroShotSettings",
]

# Of cosines, so that a softmax tells classes apart (as in sentence-transformers); the temperature
# that is fitted on validation divides it.
_SCALE = 20.0


class ZeroShotSettings(EmbeddingSettings):
    """Settings of `zero-shot`."""

    template: str = Field(
        "This text is about {}.",
        description="what is said of a label without a description; {} stands for its name",
    )
    label_descriptions: dict[str, list[str]] = Field(
        default_factory=dict,
        description="what stands for a label in place of its name: a YAML file of label: text, or "
        "of several texts, whose vectors are averaged",
    )

    @field_validator("template")
    @classmethod
    def _names_the_label(cls, value: str) -> str:
        if value.count("{}") != 1 or value.replace("{}", "").count("{"):
            raise ValueError("a text with {} once, which stands for the label")
        return value

    @field_validator("label_descriptions", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            value = _read_descriptions(Path(value))
        if not isinstance(value, Mapping):
            return value
        return {str(k): [v] if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("label_descriptions")
    @classmethod
    def _none_is_empty(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for label, texts in value.items():
            if not texts or not all(t.strip() for t in texts):
                raise ValueError(f"a text for each label; {label!r} has none")
        return value


def _read_descriptions(path: Path) -> object:
    import yaml

    from tunelab.core.bounded_yaml import BoundedLoader

    try:
        text = path.expanduser().read_text(encoding="utf-8")
        return yaml.load(text, Loader=BoundedLoader)  # noqa: S506  it is a safe loader
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise ValueError(f"a YAML file of label: text ({' '.join(str(e).split())})") from e


def refuse_unknown_labels(settings: ZeroShotSettings, label_names: Sequence[str]) -> None:
    """Raise ConfigError for a description of a label that the data do not have."""
    for label in settings.label_descriptions:
        if label not in label_names:
            raise ConfigError(
                f"label_descriptions: {label!r} is no label of the data."
                f"{suggest(label, label_names, what='Labels')}"
            )


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
    texts = [
        s.label_descriptions.get(name) or [s.template.replace("{}", name)]
        for name in task.label_names
    ]
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
        reasons={"adapter_parameters": "nothing is trained, so there is no adapter"},
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
)
