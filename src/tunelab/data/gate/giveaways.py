"""Checks of what gives the label away: words, columns or positions that stand for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tunelab.data.gate.values import DatasetView, Finding, Ints

__all__ = [
    "find_giveaways",
    "find_leaking_columns",
]


# --- what gives the label away --------------------------------------------------------------

_WORD_OF_COLUMN = re.compile(r"[^\W\d_]{2,}")


def find_leaking_columns(look: DatasetView) -> list[Finding]:
    """Further columns that predict the label alone: by value, by range, or by a word in it."""
    out = []
    k = len(look.label_names)
    base = float(np.bincount(look.labels, minlength=k).max() / len(look.labels))
    for name, values in look.columns.items():
        best, how = 0.0, ""
        for reading, codes in _readings(values):
            right = _by_value(codes, look.labels, k)
            if right > best + 0.005:
                best, how = right, reading
        lift = (best - base) / max(1e-9, 1 - base)
        if lift < 0.5:
            continue
        sure = lift >= 0.9
        shown = [i for i, v in enumerate(values) if v is not None]
        out.append(
            Finding(
                check="leaking-column",
                where=name,
                level="warning" if sure else "note",
                count=len(values),
                of=len(values),
                says=f"column {name!r} alone ({how}) tells the label of {best:.1%} of rows "
                f"(always the largest class: {base:.1%})",
                advice="tunelab trains on the text alone; never put this column into the text.",
                numbers={"accuracy": best, "majority": base, "lift": lift},
                examples=look.examples(shown, lambda i, v=values, c=name: f"{c} = {v[i]}"),  # type: ignore[misc]
            )
        )
    return out


def _readings(values: Sequence[Any]) -> Iterable[tuple[str, Ints]]:
    """Ways to read a column as classes: (name, codes (n,))."""
    numeric = all(v is None or isinstance(v, int | float) for v in values)
    distinct = {v for v in values if v is not None}
    if len(distinct) <= max(20, len(values) // 10):
        yield "its value", _codes(values)
    if numeric and len(distinct) > 20:
        x = np.array([np.nan if v is None else float(v) for v in values])
        edges = np.nanquantile(x, np.linspace(0, 1, 21)[1:-1])
        yield "its range", np.where(np.isnan(x), -1, np.searchsorted(edges, x)).astype(np.int64)
    if not numeric:
        words = [_WORD_OF_COLUMN.findall(str(v).lower()) if v is not None else [] for v in values]
        yield "its first word", _codes([w[0] if w else None for w in words])
        yield "its words", _codes([" ".join(w[:4]) if w else None for w in words])
        yield "its last word", _codes([w[-1] if w else None for w in words])


def _codes(values: Sequence[Any]) -> Ints:
    number: dict[Any, int] = {}
    return np.array([number.setdefault(v, len(number)) for v in values], dtype=np.int64)


def _by_value(codes: Ints, labels: Ints, k: int) -> float:
    """Share of rows whose label is what most rows of the same code in the other half have."""
    codes = codes - codes.min()
    half = np.random.default_rng(0).permutation(len(codes)) % 2
    right = 0
    for h in (0, 1):
        known, asked = half != h, half == h
        table = np.zeros((int(codes.max()) + 1, k))
        np.add.at(table, (codes[known], labels[known]), 1)
        # Codes that the other half has not: the largest class.
        table += 1e-6 * np.bincount(labels[known], minlength=k)
        right += int((table[codes[asked]].argmax(axis=1) == labels[asked]).sum())
    return right / len(codes)


def _elsewhere(texts: int) -> str:
    return "no other text" if not texts else f"only {texts:,} other{'s' if texts > 1 else ''}"


def find_giveaways(look: DatasetView) -> list[Finding]:
    """Words that a fifth of a class's texts have and hardly any other: a label within the text."""
    k, n = len(look.label_names), len(look.labels)
    if n < 50:
        return []
    present = look.bag.matrix(look.bag.flat, len(look.bag.number))
    present.data[:] = 1
    from scipy.sparse import csr_array

    by_group = csr_array(
        (np.ones(n, dtype=np.float32), (look.labels, look.twins.group)),
        shape=(k, len(look.twins.first)),
    )
    table = np.asarray((by_group @ present).todense())  # (k, vocabulary)
    sizes = np.bincount(look.labels, minlength=k)[:, None]
    total = table.sum(axis=0, keepdims=True)
    strong = (table / np.maximum(1, sizes) >= 0.2) & (table >= 0.98 * total) & (table >= 10)
    strong &= sizes < 0.9 * n
    words = list(look.bag.number)
    out = []
    for c, w in sorted(np.argwhere(strong).tolist(), key=lambda cw: -table[cw[0], cw[1]])[:3]:
        groups = np.flatnonzero(np.asarray(present[:, [w]].todense()).ravel() > 0)
        rows = np.flatnonzero(np.isin(look.twins.group, groups))
        label = look.label_names[c]
        out.append(
            Finding(
                check="giveaway",
                where=words[w],
                level="warning",
                count=len(rows),
                of=n,
                says=f"the word {words[w]!r} is in {table[c, w] / sizes[c, 0]:.0%} of the texts of "
                f"{label!r} and in {_elsewhere(int(total[0, w] - table[c, w]))}",
                advice="If a text would not have it in use, remove it: models will read it alone.",
                numbers={"share": float(table[c, w] / sizes[c, 0])},
                examples=look.examples(rows),
                test_ids=look.test_ids(rows),
            )
        )
    return out
