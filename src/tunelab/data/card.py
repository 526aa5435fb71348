"""The data card: what a data set is, in figures and examples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tunelab.core.cards import DataCard, DuplicateExample, LengthFigures, RepeatedRow
from tunelab.core.values import Dataset, Duplicates, Split
from tunelab.core.words import short
from tunelab.data.groups import group_numbers

__all__ = [
    "DataCard",
    "DuplicateExample",
    "LengthFigures",
    "count_duplicates",
    "describe",
    "fingerprint_of",
]


# --- what is known of the content -----------------------------------------------------------


def fingerprint_of(
    label_names: Sequence[str], parts: Mapping[str, Split], group_column: str | None = None
) -> str:
    """SHA-256 (hex) of label names, all rows and, where there are, their groups.

    Each string goes in with its length before it.
    """
    digest = hashlib.sha256()

    def add(strings: Sequence[str]) -> None:
        digest.update(len(strings).to_bytes(8, "big"))
        for start in range(0, len(strings), 10_000):  # in pieces: memory stays small
            encoded = [s.encode("utf-8") for s in strings[start : start + 10_000]]
            digest.update(b"".join(len(b).to_bytes(8, "big") + b for b in encoded))

    add(label_names)
    for part in ("train", "validation", "test"):
        split = parts[part]
        add((part,))
        add(split.ids)
        add(split.texts)
        digest.update(split.labels.astype(">i8").tobytes())
        if split.before is not None:  # rows that are divided otherwise are other data
            digest.update(split.before.astype(">i8").tobytes())
        if group_column is not None:  # what else would divide rows in folds goes in with the trial
            digest.update(group_numbers(split, group_column).astype(">i8").tobytes())
    return digest.hexdigest()


def count_duplicates(parts: Mapping[str, Split]) -> Duplicates:
    """Count texts that are equal character for character."""
    texts = {part: set(split.texts) for part, split in parts.items()}
    within = {part: len(split) - len(texts[part]) for part, split in parts.items()}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    across = {f"{a}/{b}": sum(t in texts[a] for t in parts[b].texts) for a, b in pairs}
    label_of: dict[str, int] = {}
    conflicting = set()
    for split in parts.values():
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            if label_of.setdefault(text, label) != label:
                conflicting.add(text)
    return Duplicates(within=within, across=across, conflicting=len(conflicting))


def describe(dataset: Dataset) -> DataCard:
    """The data card: facts for `inspect data`, the report and data.json."""
    names = dataset.label_names
    duplicates = dataset.duplicates
    card: DataCard = {
        "name": dataset.name,
        "revision": dataset.revision,
        "fingerprint": dataset.fingerprint,
        "text_column": dataset.text_column,
        "label_column": dataset.label_column,
        "label_names": list(names),
        "sizes": {part: len(split) for part, split in dataset.parts.items()},
        "label_counts": {
            part: dict(
                zip(names, np.bincount(split.labels, minlength=len(names)).tolist(), strict=True)
            )
            for part, split in dataset.parts.items()
        },
        "words": {
            p: _length_figures([len(t.split()) for t in s.texts]) for p, s in dataset.parts.items()
        },
        "characters": {
            p: _length_figures([len(t) for t in s.texts]) for p, s in dataset.parts.items()
        },
        "duplicates": {
            "within": dict(duplicates.within),
            "across": dict(duplicates.across),
            "conflicting": duplicates.conflicting,
            "total": duplicates.total,
            "examples": _duplicate_examples(dataset),
        },
        "samples": {name: _sample_texts(dataset.train, i) for i, name in enumerate(names)},
        "notes": list(dataset.notes),
    }
    if dataset.id_column is not None:
        card["id_column"] = dataset.id_column
    if dataset.corrected is not None:
        by_part = dict(dataset.corrected.by_part)
        card["corrected"] = {"study": dataset.corrected.study, "by_part": by_part}
    if dataset.group_column is not None:
        card["group_column"] = dataset.group_column
    return card


def _length_figures(lengths: Sequence[int]) -> LengthFigures:
    values = np.asarray(lengths, dtype=np.float64)
    p5, p50, p95 = (float(v) for v in np.percentile(values, [5, 50, 95]))
    return {
        "min": int(values.min()),
        "p5": p5,
        "p50": p50,
        "p95": p95,
        "max": int(values.max()),
        "mean": float(values.mean()),
    }


def _duplicate_examples(dataset: Dataset) -> list[DuplicateExample]:
    counts = Counter(t for split in dataset.parts.values() for t in split.texts)
    # Shortest first: they are read at a glance. Ties by text, so that the card is always the same.
    repeated = sorted((t for t, n in counts.items() if n > 1), key=lambda t: (len(t), t))[:5]
    rows: dict[str, list[RepeatedRow]] = {t: [] for t in repeated}
    for part, split in dataset.parts.items():
        for i, text in enumerate(split.texts):
            if text in rows and len(rows[text]) < 5:
                label = dataset.label_names[int(split.labels[i])]
                rows[text].append({"part": part, "id": split.ids[i], "label": label})
    return [{"text": short(text), "rows": some} for text, some in rows.items()]


def _sample_texts(split: Split, label: int) -> list[str]:
    return [short(split.texts[i]) for i in np.flatnonzero(split.labels == label)[:3]]
