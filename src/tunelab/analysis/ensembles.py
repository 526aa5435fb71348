"""Methods of a study, averaged: what their mixture scores on test, against each of them.

Nothing is trained. The probabilities that the study keeps are taken at each trial's temperature and
averaged seed by seed, with weights chosen on validation; test is read once they are chosen. In a
cross-fitted study each seed's members saw the same rows, so that this holds there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.numbers import column, format_estimate, format_percent
from tunelab.analysis.reading import BOOTSTRAP_SEED, means_of, read_runs
from tunelab.analysis.verdict import joined_by_and
from tunelab.core.errors import InputError, suggest
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison, Estimate, Predictions
from tunelab.core.words import counted
from tunelab.stats import Runs, compare_all
from tunelab.stats.calibration import at_temperature, fit_temperatures
from tunelab.stats.metrics import METRICS
from tunelab.stats.mixing import mixed, mixing_weights
from tunelab.stats.predictions import probabilities

__all__ = [
    "ENSEMBLE",
    "Ensemble",
    "ensemble_of",
    "ensemble_to_json",
]

ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ensemble:
    """`members` averaged with `weights` by seed. `scores` on test, by label, its own beside theirs.

    `comparisons`: it against each member; their p values hold for all of these methods' pairs.
    `validation`: its predictions by seed, in which `chosen_seed` is the one to ship.
    """

    members: tuple[str, ...]
    metric: str
    weights: Mapping[int, tuple[float, ...]]
    scores: Mapping[str, Estimate]
    comparisons: tuple[Comparison, ...]
    validation: Mapping[int, Predictions]
    chosen_seed: int

    def sentences(self) -> tuple[str, ...]:
        """How it stands against each member, and what it rests on."""
        costs = "labelling a text costs what all members with a weight cost together"
        return (
            *(c.sentence for c in self.comparisons),
            f"No training was needed; weights were chosen on validation, seed by seed; {costs}",
            "These verdicts stand beside the study's own, which do not count them",
        )

    def for_display(self) -> tuple[list[str], list[list[str]]]:
        """The table as a reader sees it."""
        of = column(f"test_{self.metric}")
        shares = np.asarray(list(self.weights.values()))
        rows = [[ENSEMBLE, format_estimate(self.scores[ENSEMBLE], of.kind), "", ""]]
        for i, label in enumerate(self.members):
            mean, least, most = (format_percent(float(f(shares[:, i])))
                                 for f in (np.mean, np.min, np.max))  # fmt: skip
            score = format_estimate(self.scores[label], of.kind)
            rows.append([label, score, mean, f"{least} to {most}"])
        return ["Method", of.heading, "Weight, %", "by seed"], rows

    def __repr__(self) -> str:
        """Members and score, in one line."""
        value = self.scores[ENSEMBLE].value
        return f"Ensemble({', '.join(self.members)}: {self.metric} {value:.4f})"


def ensemble_of(record: StudyRecord, labels: Sequence[str] | None, metric: str) -> Ensemble:
    """Average methods of a study (None: all that give probabilities).

    Raises InputError where there are not two, or a seed or a part is missing.
    """
    if record.task == "multilabel":
        raise InputError(
            f"{record.directory}: its texts have several labels, and methods are averaged with one "
            "class a text alone."
        )
    runs = read_runs(record)
    members = _members(record, runs, labels)
    seeds = sorted(
        set.intersection(
            *(set(runs[part][m].by_seed) for part in ("validation", "test") for m in members)
        )
    )
    if not seeds:
        raise InputError(
            f"{record.directory}: {joined_by_and(list(members))} have no seed in common that has "
            "ended. Run the same command again to finish the study."
        )
    weights: dict[int, tuple[float, ...]] = {}
    validation: dict[int, Predictions] = {}
    test: dict[int, Predictions] = {}
    for seed in seeds:
        chosen_on = [runs["validation"][m].by_seed[seed] for m in members]
        hot = [fit_temperatures({seed: p}, [seed])[seed] for p in chosen_on]
        of_validation = _probabilities(chosen_on, hot)
        weights[seed] = mixing_weights(of_validation, chosen_on[0].labels)
        validation[seed] = _averaged(chosen_on[0], of_validation, weights[seed])
        tested = [runs["test"][m].by_seed[seed] for m in members]
        test[seed] = _averaged(tested[0], _probabilities(tested, hot), weights[seed])
    groups = runs["test"][members[0]].groups
    every = [Runs(ENSEMBLE, test, groups), *(_only(runs["test"][m], seeds) for m in members)]
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    comparisons = compare_all(every, metric, rng)
    estimates = means_of({r.label: r for r in every}, [metric])
    row = METRICS[metric]
    sign = 1 if row.higher_is_better else -1
    return Ensemble(
        members,
        metric,
        weights,
        {r.label: estimates[r.label, metric] for r in every},
        tuple(c for c in comparisons if c.a == ENSEMBLE),
        validation,
        max(seeds, key=lambda s: sign * row.function(validation[s])),
    )


def _members(
    record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The labels to average. Raises InputError for one that cannot be."""
    there = [m for m in record.methods if m in runs["validation"] and m in runs["test"]]
    able = [m for m in there if _gives_probabilities(runs["test"][m])]
    asked = list(dict.fromkeys(able if labels is None else labels))
    for label in asked:
        if label not in able:
            why = "gives margins, no probabilities" if label in there else "has no test predictions"
            why = why if label in record.methods else "is no method of this study"
            raise InputError(
                f"{record.directory}: {label!r} {why}.{suggest(label, able, what='Methods')}"
            )
    if len(asked) < 2:
        raise InputError(
            f"{record.directory}: expected two methods or more to average, found "
            f"{counted(len(asked), 'method')} ({', '.join(asked) or 'none'})."
        )
    return tuple(asked)


def _gives_probabilities(runs: Runs) -> bool:
    return all(p.of_one_class for p in runs.by_seed.values())


def _probabilities(
    of_members: Sequence[Predictions], hot: Sequence[float]
) -> list[NDArray[np.float64]]:
    scaled = [at_temperature(p, t) for p, t in zip(of_members, hot, strict=True)]
    return [probabilities(p.scores, p.score_kind) for p in scaled]


def _averaged(
    rows: Predictions, of_members: Sequence[NDArray[np.float64]], weights: Sequence[float]
) -> Predictions:
    mean = mixed(of_members, weights)
    return Predictions(rows.ids, rows.labels, mean, "probability", ordered=rows.ordered)


def _only(runs: Runs, seeds: Sequence[int]) -> Runs:
    return replace(runs, by_seed={s: runs.by_seed[s] for s in seeds})


def ensemble_to_json(ensemble: Ensemble) -> dict[str, object]:
    """For --json."""
    from dataclasses import asdict

    return {
        "members": list(ensemble.members),
        "metric": ensemble.metric,
        "weights": {str(s): list(w) for s, w in ensemble.weights.items()},
        "scores": {label: asdict(e) for label, e in ensemble.scores.items()},
        "comparisons": [asdict(c) for c in ensemble.comparisons],
        "chosen_seed": ensemble.chosen_seed,
    }
