"""What is said about a study: one table, the verdicts, plain sentences, warnings.

The terminal, `study.table()`, comparison.json and the report all say what stands here, rounded by
the `format_*` functions of `numbers`, so that they cannot disagree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from tunelab.analysis.advice import advise, no_advice
from tunelab.analysis.caveats import warnings
from tunelab.analysis.collapse import collapses
from tunelab.analysis.costs import COSTS, cost_estimate
from tunelab.analysis.folds import cross_fitted
from tunelab.analysis.numbers import SCORED_PARTS, Column, Part, column, format_estimate
from tunelab.analysis.pairs import comparisons
from tunelab.analysis.reading import (
    BOOTSTRAP_SEED,
    comparable,
    means_of,
    paired_by_seed,
    read_runs,
    score_estimate,
    value_of,
)
from tunelab.analysis.verdict import Row, Summary
from tunelab.core.errors import ConfigError, suggest
from tunelab.core.results_table import costs_of
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison, Estimate, TrialResult
from tunelab.core.words import counted
from tunelab.stats import LEAST_SEEDS, Runs
from tunelab.stats.looks import levels_at, looks_from_json
from tunelab.stats.metrics import METRICS, metrics_of
from tunelab.stats.racing import race_from_json
from tunelab.stats.selection import chosen_score

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "best_trial",
    "summary_for_display",
    "shown_columns",
    "summarise",
    "table",
    "table_legend",
    "summary_to_json",
    "undecided_with_best",
]


def summarise(record: StudyRecord, metric: str | None = None) -> Summary:
    """Turn a study on disk into what is said about it.

    `metric` is a key of METRICS; None takes the study's own. Raises ConfigError for another name.
    """
    metric = metric or str(record.settings.get("metric", "accuracy"))
    if metric not in METRICS:
        raise ConfigError(f"Unknown metric {metric!r}.{suggest(metric, METRICS, what='Metrics')}")
    offered_of_task = metrics_of(record.task)
    if metric not in offered_of_task:
        offered = suggest(metric, offered_of_task, what="Metrics")
        raise ConfigError(
            f"{record.directory}: {metric} is no metric of its task, {record.task}.{offered}"
        )
    part: Part = "test" if _scored(record.done, f"test_{metric}") else "eval"
    runs = read_runs(record)
    known = _means_by_column(runs)
    rows = [_summary_row(record, label, known) for label in record.methods]
    rows.sort(key=lambda r: _rank(r, f"{part}_{metric}", metric))
    adjusted, dropped = _adjusted(record, f"eval_{metric}"), _dropped_methods(record, metric)
    ranked = sorted(
        rows,
        key=lambda r: (
            r.estimates.get(f"eval_{metric}") is None,
            r.label in dropped,
            _rank(r, f"eval_{metric}", metric, adjusted.get(r.label)),
        ),
    )
    best = ranked[0].label if ranked and ranked[0].estimates.get(f"eval_{metric}") else None
    broke = collapses(runs["validation"])
    of_part = runs[SCORED_PARTS[part]]
    looks = record.parsed("looks", looks_from_json)
    look = None if looks is None else levels_at(looks, math.comb(len(of_part), 2))
    pairs = comparisons(of_part, [r.label for r in ranked], metric, broke, look)
    draft = Summary(
        metric,
        part,
        tuple(rows),
        best,
        pairs,
        no_advice(metric, part),
        collapses=broke,
        cross_fitted=cross_fitted(
            record.data,
            len(record.settings.get("seeds", ())),
            whole=_is_whole(record, rows, best),
        ),
        dropped=dropped,
        score_of_best=_score_of_best(runs, best, broke, metric, part),
    )
    said = replace(draft, advice=advise(record, draft, runs[draft.split]))
    return replace(said, warnings=warnings(record, said, runs))


def _is_whole(record: StudyRecord, rows: Sequence[Row], best: str | None) -> bool:
    """Whether all trials have run; of a race, whether the best method has run every seed."""
    seeds = len(record.settings.get("seeds", ()))
    ran = all(r.n_seeds == seeds for r in rows if r.label == best)
    return ran and not record.missing and not record.failed


def _score_of_best(
    runs: Mapping[str, Mapping[str, Runs]],
    best: str | None,
    broke: Collection[str],
    metric: str,
    part: Part,
) -> Estimate | None:
    """The best method's test score without its luck; None where that cannot be told."""
    sound = {label: r for label, r in runs["test"].items() if label not in broke}
    if best is None or part != "test" or best not in sound or not paired_by_seed(sound):
        return None
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return chosen_score(best, runs["validation"], sound, metric, rng)


def best_trial(
    record: StudyRecord, summary: Summary, label: str | None = None
) -> TrialResult | None:
    """The trial to deploy: of the best method (or the one called `label`), the seed with the best
    score on validation.
    """
    key, label = f"eval_{summary.metric}", label or summary.best
    scored = [
        (r, s)
        for r in record.done
        if r.spec.method.label == label and (s := r.scores.get(key)) is not None
    ]
    if not scored:
        return None
    sign = 1 if METRICS[summary.metric].higher_is_better else -1
    return max(scored, key=lambda pair: sign * pair[1])[0]


def _scored(results: Iterable[TrialResult], key: str) -> bool:
    return any(r.scores.get(key) is not None for r in results)


def _rank(row: Row, key: str, metric: str, adjusted: float | None = None) -> tuple[float, str]:
    """Best first, unmeasured last; equals by name, since measured times change from run to run."""
    score = row.estimates.get(key)
    value = score.value if score and adjusted is None else adjusted
    sign = -1 if METRICS[metric].higher_is_better else 1
    return (
        math.inf if value is None else sign * value,
        row.label,
    )


def _dropped_methods(record: StudyRecord, metric: str) -> frozenset[str]:
    """Methods that a race by this metric has dropped: not the best, whatever few seeds say."""
    stored = record.parsed("race", race_from_json)
    if stored is None or stored.metric != metric or not stored.race.alive:
        return frozenset()
    return frozenset(stored.race.labels) - frozenset(stored.race.alive)


def _adjusted(record: StudyRecord, key: str) -> dict[str, float]:
    """Mean scores by label where methods have not all run the same seeds; else none.

    Least squares of score = method + seed, each method's mean over all seeds: a method that ran
    only where every score was high is not ahead for that. None where that cannot be told.
    """
    values = {
        (r.spec.method.label, r.spec.seed): v
        for r in record.done
        if (v := r.scores.get(key)) is not None
    }
    labels = list(dict.fromkeys(label for label, _ in values))
    seeds = list(dict.fromkeys(seed for _, seed in values))
    if len(values) == len(labels) * len(seeds):
        return {}
    design = np.zeros((len(values), len(labels) + len(seeds)))
    for row, (label, seed) in zip(design, values, strict=True):
        row[labels.index(label)] = row[len(labels) + seeds.index(seed)] = 1
    solution, _, rank, _ = np.linalg.lstsq(design, np.array(list(values.values())), rcond=None)
    if rank < len(labels) + len(seeds) - 1:  # methods that no chain of shared seeds connects
        return {}
    of_seeds = float(solution[len(labels) :].mean())
    # Rounded, so that methods with equal scores stay equal.
    return {
        label: round(float(x) + of_seeds, 12) for label, x in zip(labels, solution, strict=False)
    }


def _means_by_column(runs: Mapping[str, Mapping[str, Runs]]) -> dict[tuple[str, str], Estimate]:
    """Means over seeds, with intervals for other seeds and rows, by (label, "test_accuracy")."""
    return {
        (label, f"{part}_{metric}"): estimate
        for part, name in SCORED_PARTS.items()
        for (label, metric), estimate in means_of(runs[name], list(METRICS)).items()
    }


def _summary_row(record: StudyRecord, label: str, means: Mapping[tuple[str, str], Estimate]) -> Row:
    trials = [r for r in record.results if r.spec.method.label == label]
    done = [r for r in trials if r.status == "done"]
    scores = dict.fromkeys(k for r in record.done for k in r.scores)
    estimates: dict[str, Estimate | None] = {}
    reasons: dict[str, str] = {}
    for key in (*scores, *costs_of(record.results)):
        own = (r for r in comparable(record, key) if r.spec.method.label == label)
        values = [value_of(r, key) for r in own]
        known = [v for v in values if v is not None]
        estimates[key] = _estimate(key, known, means.get((label, key)))
        if not known:
            given = [r.reasons[key] for r in trials if key in r.reasons]
            elsewhere = any(value_of(r, key) is not None for r in done)
            why = "measured on other machines alone" if elsewhere else _why_missing(done)
            reasons[key] = given[0] if given else why
    method = trials[0].spec.method
    return Row(
        label=label,
        method=method.name,
        settings=_own_settings(record, label),
        n_seeds=len(done),
        n_runs=sum(r.provenance.same_run_as is None for r in done),
        n_failed=len(trials) - len(done),
        estimates=estimates,
        reasons=reasons,
    )


def _estimate(key: str, known: Sequence[float], of_predictions: Estimate | None) -> Estimate | None:
    """From the predictions, for seeds and rows; costs, and scores without them, over seeds."""
    if not known:
        return None
    if key in COSTS:
        return cost_estimate(known)
    return score_estimate(key, known, of_predictions)


def _why_missing(done: Sequence[TrialResult]) -> str:
    return "not measured" if done else "no trial of this method finished"


def _own_settings(record: StudyRecord, label: str) -> dict[str, object]:
    """The settings that tell a method from others of its name; not what its folds chose each."""
    specs = {r.spec.method.label: r.spec.method for r in record.results}
    mine = specs[label]
    siblings = [m.settings for m in specs.values() if m.name == mine.name]
    own = [r.spec.method.settings for r in record.results if r.spec.method.label == label]
    return {
        k: v
        for k, v in mine.settings.items()
        if any(s.get(k, _ABSENT) != v for s in siblings) and all(s[k] == v for s in own)
    }


_ABSENT = object()


def undecided_with_best(summary: Summary) -> tuple[Comparison, ...]:
    """Pairs of the best method that are not told apart and not equivalent, but for methods that a
    race has dropped, which get no more seeds, and those with runs that broke down, which get no
    verdict.
    """
    return tuple(
        c
        for c in summary.comparisons
        if summary.best in (c.a, c.b)
        and c.verdict == "undecided"
        and summary.standing(c) != "broke down"
        and not {c.a, c.b} & summary.dropped
    )


# --- tables -----------------------------------------------------------------------------------


def shown_columns(summary: Summary) -> tuple[Column, ...]:
    """The columns of the table that people read; those that no row has are left out."""
    metric = summary.metric
    names = [
        f"test_{metric}",
        f"eval_{metric}",
        "train_seconds",
        "peak_memory_bytes",
        "adapter_parameters",
        "head_parameters",
        "artifact_bytes",
        "texts_per_second",
        "latency_p50_seconds",
        "price_per_1000_texts",
    ]
    return tuple(column(n) for n in names if any(r.estimates.get(n) for r in summary.rows))


def summary_for_display(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The table as a reader sees it: headings, and a list of cells a row, best first."""
    shown = shown_columns(summary)
    failures = any(r.n_failed for r in summary.rows)
    headings = ["Method", *(c.heading for c in shown), "Seeds", *(["Failed"] if failures else [])]
    cells = [
        [
            r.label,
            *(format_estimate(r.estimates.get(c.name), c.kind) for c in shown),
            r.seeds_in_words,
            *([str(r.n_failed)] if failures else []),
        ]
        for r in summary.rows
    ]
    return headings, cells


def table_legend(summary: Summary) -> str:
    """What the table's figures are, in one sentence: only what stands in this one."""
    estimates = [
        e for r in summary.rows for c in shown_columns(summary) if (e := r.estimates.get(c.name))
    ]
    seeds = sorted({r.n_seeds for r in summary.rows if r.n_seeds})
    many = "no seed" if not seeds else counted(seeds[-1], "seed")
    over = f"{seeds[0]} to {many}" if len(seeds) > 1 else many
    said = [f"means over {over}"]
    spread = [e for e in estimates if e.low is not None and e.low != e.high]
    if any(not e.is_range for e in spread):
        tests = "rows" if summary.part == "test" else "validation rows"
        said.append(
            "± half of a 95% interval for the mean, or the interval in square brackets: of a score "
            f"for other seeds and other {tests}, of a cost for other seeds"
        )
    if any(e.is_range for e in spread):
        said.append(f"in round brackets the smallest and largest cost of fewer than {LEAST_SEEDS}")
        said[-1] += " runs"
    if spread and len(spread) < len(estimates):
        said.append("a bare number has one seed or is the same for every seed")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def table(summary: Summary, *, all_columns: bool = True) -> pd.DataFrame:
    """The table as numbers, one row a method, best first; without `all_columns` those of the table
    that people read, and the interval of its first score alone.

    `label`, `method`, the settings that differ, `seeds`, `failed`; then for each score (0 to 1) and
    cost (seconds, bytes, counts) its mean under its name, and its 95% interval (of a score: over
    seeds and rows; of a cost: over seeds, and of fewer than six runs the smallest and the largest)
    under `<name>_low` and `<name>_high`; NaN where there is none. `attrs["headings"]` holds
    readable names of these columns.
    """
    import pandas as pd

    settings = list(dict.fromkeys(k for r in summary.rows for k in r.settings))
    every = dict.fromkeys(k for r in summary.rows for k in r.estimates)
    names = [n for n in every if any(r.estimates.get(n) for r in summary.rows)]
    if not all_columns:
        names = [c.name for c in shown_columns(summary)]
    with_ends = names if all_columns else names[:1]
    records = []
    for r in summary.rows:
        record: dict[str, object] = {"label": r.label, "method": r.method}
        record |= {k: _scalar(r.settings.get(k)) for k in settings}
        record |= {"seeds": r.n_seeds, "failed": r.n_failed}
        for name in names:
            e = r.estimates.get(name)
            record[name] = _number(e.value if e else None)
            if name in with_ends:
                record[f"{name}_low"] = _number(e.low if e else None)
                record[f"{name}_high"] = _number(e.high if e else None)
        records.append(record)
    frame = pd.DataFrame.from_records(records)
    frame.attrs["headings"] = {n: column(n).heading for n in names}
    return frame


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _scalar(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def summary_to_json(summary: Summary) -> dict[str, object]:
    """The summary as plain JSON values: the content of comparison.json."""
    return {
        "metric": summary.metric,
        "part": summary.split,
        "best": summary.best,
        "headline": summary.answer.sentence,
        "answer": asdict(summary.answer),
        "score_of_best": asdict(summary.score_of_best) if summary.score_of_best else None,
        **({"cross_fitted": summary.cross_fitted} if summary.cross_fitted else {}),
        "sentences": list(summary.sentences),
        "warnings": list(summary.warnings),
        "rows": [
            {
                "label": r.label,
                "method": r.method,
                "settings": dict(r.settings),
                "seeds": r.n_seeds,
                "failed": r.n_failed,
                "estimates": {k: asdict(e) if e else None for k, e in r.estimates.items()},
                "reasons": dict(r.reasons),
            }
            for r in summary.rows
        ],
        "comparisons": [
            {**asdict(c), "standing": summary.standing(c)} for c in summary.comparisons
        ],
    }
