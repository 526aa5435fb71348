"""Behaviour tests: does a classifier do what its users take for granted?

In the manner of CheckList (Ribeiro, Wu, Guestrin and Singh 2020, "Beyond accuracy"): minimum
functionality ("not good" is negative), invariance (another name, a typo), direction (praise added
must not make it more negative). A suite is a YAML file of templates and words; the bundled one is
English sentiment. `data.behaviour.cases(suite)` fills the templates, the same on every machine;
`results` reads the predictions on their texts and gives failure rates with intervals over seeds and
cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Estimate, Predictions
from tunelab.core.words import counted
from tunelab.data.behaviour import Case, Role, Suite, TestKind, are_of_cases, roles, texts_of_cases
from tunelab.stats import Runs
from tunelab.stats.predictions import probabilities
from tunelab.stats.shares import share_of_values

__all__ = [
    "Failure",
    "Result",
    "results",
]

FALL = 0.1  # a direction test fails where the probability falls by more (Ribeiro et al.)
FAILURES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that failed, with the predicted class names."""

    text: str
    predicted: str
    other: str | None = None
    predicted_other: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How often one method failed one test: `failure` in [0, 1], mean over its seeds."""

    label: str
    test: str
    capability: str
    kind: TestKind
    cases: int
    failure: Estimate
    examples: tuple[Failure, ...]


def results(
    suite: Suite, some: Sequence[Case], runs: Sequence[Runs], label_names: Sequence[str]
) -> tuple[Result, ...]:
    """Failure rates of each method on each test, in the order of `runs`, then of the tests.

    `runs` are what `predict_cases` gave, by seed. Raises ValueError where they are of other texts.
    """
    means = roles(suite, label_names)
    out = []
    for r in runs:
        failed = np.stack([_failed(p, some, means) for p in r.by_seed.values()])
        first = next(iter(r.by_seed.values()))
        for test in dict.fromkeys(c.test for c in some):
            rows = np.array([i for i, c in enumerate(some) if c.test == test])
            worst = rows[np.argsort(-failed[:, rows].mean(axis=0), kind="stable")]
            shown = [_failure(some, int(i), first, label_names) for i in worst if failed[0, i]][
                :FAILURES_SHOWN
            ]
            case = some[int(rows[0])]
            out.append(
                Result(
                    label=r.label,
                    test=test,
                    capability=case.capability,
                    kind=case.kind,
                    cases=len(rows),
                    failure=share_of_values(failed[:, rows].astype(np.float64)).estimate(),
                    examples=tuple(shown),
                )
            )
    return tuple(out)


def _places(some: Sequence[Case]) -> NDArray[np.int64]:
    """Where each case's text stands among `texts_of_cases(some)`."""
    sizes = [1 + (c.other is not None) for c in some]
    return np.cumsum([0, *sizes[:-1]])


def _failed(
    p: Predictions, some: Sequence[Case], means: Sequence[Role | None]
) -> NDArray[np.bool_]:
    """Which cases one classifier fails, (n_cases,)."""
    if not are_of_cases(p, some):
        raise ValueError(
            f"{counted(len(p.scores), 'prediction')} for "
            f"{counted(len(texts_of_cases(some)), 'text')} of the suite: they "
            "are of another suite"
        )
    predicted = p.predicted
    chance = None if p.score_kind == "margin" else probabilities(p.scores, p.score_kind)
    out = np.zeros(len(some), dtype=np.bool_)
    for i, (case, at) in enumerate(zip(some, _places(some).tolist(), strict=True)):
        if case.kind == "minimum":
            out[i] = means[predicted[at]] != case.expect
        elif case.kind == "invariance":
            out[i] = predicted[at] != predicted[at + 1]
        elif chance is None:
            # Margins have no probability: it fails where the class leaves the expected role.
            before, after = means[predicted[at]], means[predicted[at + 1]]
            out[i] = before == case.expect != after
        else:
            of = [k for k, role in enumerate(means) if role == case.expect]
            out[i] = chance[at + 1, of].sum() < chance[at, of].sum() - FALL
    return out


def _failure(some: Sequence[Case], i: int, p: Predictions, label_names: Sequence[str]) -> Failure:
    at = int(_places(some)[i])
    case, predicted = some[i], p.predicted
    if case.other is None:
        return Failure(case.text, label_names[int(predicted[at])])
    return Failure(
        case.text,
        label_names[int(predicted[at])],
        case.other,
        label_names[int(predicted[at + 1])],
    )
