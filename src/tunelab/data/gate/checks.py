"""The data gate: what is wrong with labelled texts, before anything is trained on them.

`inspect(dataset)` runs the rows of CHECKS and gives a `Gate` of findings: counts, examples, advice;
`leaks.against(dataset, other)` looks for one dataset's held-out rows in another's training rows;
`analysis.effects` says what the affected test rows do to the conclusion, once predictions exist.

100,000 reviews take under a minute on one core, and memory is bounded: texts are read into sketches
(`duplicates`), a bag of at most WORDS words, and nothing else.

Whoever adds a check writes a function `DatasetView -> findings` and a row in CHECKS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tunelab.core.values import Dataset
from tunelab.data.gate.giveaways import find_giveaways, find_leaking_columns
from tunelab.data.gate.label_sets import find_rare_labels
from tunelab.data.gate.labels import find_imbalance, find_label_errors
from tunelab.data.gate.leaks import find_conflicts, find_leaks, find_repeats
from tunelab.data.gate.surface import find_surface_giveaways
from tunelab.data.gate.texts import (
    find_html,
    find_mojibake,
    find_other_languages,
    find_unusual_lengths,
    find_wordless_texts,
)
from tunelab.data.gate.values import DatasetView, Finding, Gate, view_of
from tunelab.data.several import combinations_as_classes

__all__ = [
    "CHECKS",
    "inspect",
]


def inspect(dataset: Dataset, checks: Sequence[str] | None = None) -> Gate:
    """Run all checks (or those named) on a dataset. Raises KeyError for an unknown check.

    Of several labels a text each set of labels is one class to the checks, those of `_OF_ONE_CLASS`
    are left out and the labels have a check of their own.
    """
    look = view_of(combinations_as_classes(dataset))
    asked = list(checks if checks is not None else CHECKS)
    findings: list[Finding] = []
    if dataset.task == "multilabel":
        asked = [name for name in asked if name not in _OF_ONE_CLASS]
        if checks is None:
            findings += find_rare_labels(dataset)
            look.notes.append(
                "wrong labels, and columns or words that give labels away, are looked for with one "
                "class a text alone"
            )
    seconds: dict[str, float] = {}
    for name in asked:
        started = time.perf_counter()
        findings += CHECKS[name](look)
        seconds[name] = round(time.perf_counter() - started, 3)
    levels = ("fault", "warning", "note")
    order = ["labels", *CHECKS]
    findings.sort(key=lambda f: (levels.index(f.level), order.index(f.check)))
    return Gate(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        sizes={part: len(split) for part, split in dataset.parts.items()},
        findings=tuple(findings),
        seconds=seconds,
        notes=tuple(look.notes),
    )


_OF_ONE_CLASS = {"label-errors", "leaking-column", "giveaway", "surface", "imbalance"}

CHECKS: dict[str, Callable[[DatasetView], list[Finding]]] = {
    "leak": find_leaks,
    "duplicates": find_repeats,
    "conflicts": find_conflicts,
    "label-errors": find_label_errors,
    "leaking-column": find_leaking_columns,
    "giveaway": find_giveaways,
    "surface": find_surface_giveaways,
    "imbalance": find_imbalance,
    "short": find_wordless_texts,
    "mojibake": find_mojibake,
    "html": find_html,
    "language": find_other_languages,
    "length": find_unusual_lengths,
}
