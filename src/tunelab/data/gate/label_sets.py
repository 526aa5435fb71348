"""Checks of several labels a text: labels of nearly all or hardly any rows, rows without one."""

from __future__ import annotations

import numpy as np

from tunelab.core.values import Dataset
from tunelab.core.words import agreeing, counted, listed, rows_word
from tunelab.data.gate.values import Finding

__all__ = ["find_rare_labels"]

# Of a label with fewer rows, F1 on test is known to 20 points at best, and training sees too few.
FEW_TEST_ROWS, FEW_TRAIN_ROWS = 20, 10
NEARLY_ALL = 0.95


def find_rare_labels(dataset: Dataset) -> list[Finding]:
    """What is odd about how often labels stand, in train and in test."""
    train, test = dataset.train.labels, dataset.test.labels
    names = dataset.label_names
    out = []
    share = train.mean(axis=0)
    common = np.flatnonzero(share >= NEARLY_ALL)
    if len(common):
        out.append(
            Finding(
                check="labels",
                where="train",
                level="warning",
                count=len(common),
                of=len(names),
                says=f"{listed([names[k] for k in common])} "
                f"{agreeing(len(common), 'stand')} on {share[common].min():.0%} or more of the "
                "training rows",
                advice="There is little to learn of it: --drop-classes leaves a label out.",
                numbers={"share": float(share[common].max())},
            )
        )
    few = np.flatnonzero((train.sum(axis=0) < FEW_TRAIN_ROWS) | (test.sum(axis=0) < FEW_TEST_ROWS))
    if len(few):
        shown = [
            f"{names[k]!r} ({train[:, k].sum():,} in train, {test[:, k].sum():,} in test)"
            for k in few[np.argsort(test.sum(axis=0)[few], kind="stable")][:5]
        ]
        more = f" and {len(few) - 5:,} more" if len(few) > 5 else ""
        out.append(
            Finding(
                check="labels",
                where="all",
                level="warning",
                count=len(few),
                of=len(names),
                says=f"{counted(len(few), 'label')} {agreeing(len(few), 'have')} fewer than "
                f"{FEW_TRAIN_ROWS} rows in train or {FEW_TEST_ROWS} in test: "
                f"{', '.join(shown)}{more}",
                advice="Macro F1 weighs each as much as a common one; judge by f1_micro, or leave "
                "rare labels out with --min-rows-per-class.",
            )
        )
    none = int((train.sum(axis=1) == 0).sum())
    if none:
        out.append(
            Finding(
                check="labels",
                where="train",
                level="warning" if none > len(train) / 2 else "note",
                count=none,
                of=len(train),
                says=f"{none:,} of {rows_word(len(train))} of train have none of the labels",
                advice="They teach what has no label; if theirs is not known, leave them out.",
            )
        )
    return out
