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

__all__ = [
    "CHECKS",
    "inspect",
]


def inspect(dataset: Dataset, checks: Sequence[str] | None = None) -> Gate:
    """Run all checks (or those named) on a dataset. Raises KeyError for an unknown check."""
    look = view_of(dataset)
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    for name in checks if checks is not None else CHECKS:
        started = time.perf_counter()
        findings += CHECKS[name](look)
        seconds[name] = round(time.perf_counter() - started, 3)
    levels = ("fault", "warning", "note")
    findings.sort(key=lambda f: (levels.index(f.level), list(CHECKS).index(f.check)))
    return Gate(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        sizes={part: len(split) for part, split in dataset.parts.items()},
        findings=tuple(findings),
        seconds=seconds,
        notes=tuple(look.notes),
    )


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
