"""What is said about a study: one table, the verdicts, plain sentences, warnings.

The terminal, `study.table()`, comparison.json and the report all say what stands here, rounded by
the `format_*` functions here, so that they cannot disagree.

May import: types, errors, store, metrics, stats, gate. May not import: torch, plots, report, cli.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunelab.errors import ConfigError, suggest
from tunelab.metrics import METRICS
from tunelab.racing import race_from_json
from tunelab.store import StudyRecord
from tunelab.types import Comparison, Cost, Estimate, Predictions, TrialResult

if TYPE_CHECKING:
    import pandas as pd

    from tunelab.stats import Runs

__all__ = [
    "Column",
    "Row",
    "Summary",
    "best_trial",
    "broken_down",
    "column",
    "cost_names",
    "display",
    "format_bytes",
    "format_estimate",
    "format_latency",
    "format_parameters",
    "format_percent",
    "format_rate",
    "format_seconds",
    "format_value",
    "headline",
    "lead",
    "read_runs",
    "same_rows",
    "shown_columns",
    "summarise",
    "table",
    "to_json",
    "value_of",
]

# The same study folder must give the same intervals, whoever asks and however often.
BOOTSTRAP_SEED = 0
MISSING = "–"  # noqa: RUF001  an en dash is what a reader expects in an empty cell

Part = Literal["test", "eval"]


# --- rounding and units: the one place --------------------------------------------------------

Kind = Literal["percent", "number", "seconds", "latency", "bytes", "parameters", "rate", "count"]

# kind -> rows (below this value, multiply by, decimals, unit). The thresholds sit where rounding
# would carry into the next unit (999,950 bytes is 1.0 MB, not 1000.0 kB).
_SCALES: dict[Kind, list[tuple[float, float, int, str]]] = {
    "percent": [(math.inf, 100, 1, "")],
    "number": [(math.inf, 1, 3, "")],
    "seconds": [
        (0.995, 1, 2, " s"),
        (9.95, 1, 1, " s"),
        (119.5, 1, 0, " s"),
        (7197, 1 / 60, 1, " min"),
        (math.inf, 1 / 3600, 1, " h"),
    ],
    "latency": [(0.99995, 1e3, 1, " ms"), (math.inf, 1, 2, " s")],
    "bytes": [
        (999.5, 1, 0, " B"),
        (999_950, 1e-3, 1, " kB"),
        (99_950_000, 1e-6, 1, " MB"),
        (999_500_000, 1e-6, 0, " MB"),
        (math.inf, 1e-9, 2, " GB"),
    ],
    "parameters": [
        (9_999.5, 1, 0, ""),
        (995_000, 1e-6, 2, "M"),
        (999_950_000, 1e-6, 1, "M"),
        (math.inf, 1e-9, 1, "B"),
    ],
    "rate": [(9.95, 1, 1, ""), (math.inf, 1, 0, "")],
    "count": [(math.inf, 1, 0, "")],
}


def _scale(kind: Kind, value: float) -> tuple[float, int, str]:
    for below, factor, decimals, unit in _SCALES[kind]:
        if abs(value) < below:
            return factor, decimals, unit
    return _SCALES[kind][-1][1:]


def _fixed(value: float, decimals: int) -> str:
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def _format(kind: Kind, value: float | None) -> str:
    if value is None:
        return MISSING
    factor, decimals, unit = _scale(kind, value)
    return _fixed(value * factor, decimals) + unit


def format_percent(value: float | None) -> str:
    """A share in [0, 1] as percent with one decimal: 0.794 -> "79.4"."""
    return _format("percent", value)


def format_seconds(value: float | None) -> str:
    """A duration in seconds: "0.45 s", "4.4 s", "44 s", "2.1 min", "3.0 h"."""
    return _format("seconds", value)


def format_latency(value: float | None) -> str:
    """Seconds for one text: 0.006 -> "6.0 ms"."""
    return _format("latency", value)


def format_bytes(value: float | None) -> str:
    """Bytes in decimal units: 1_200_000 -> "1.2 MB"."""
    return _format("bytes", value)


def format_parameters(value: float | None) -> str:
    """A number of parameters: 770 -> "770", 300_000 -> "0.30M", 22_700_000 -> "22.7M"."""
    return _format("parameters", value)


def format_rate(value: float | None) -> str:
    """Texts a second: 840.2 -> "840"."""
    return _format("rate", value)


def format_estimate(estimate: Estimate | None, kind: Kind) -> str:
    """A value with its interval: "79.4 ± 1.8", "79.4 [77.1, 80.2]" where that is lopsided.

    An estimate without an interval (one seed), or with one of no width (the same for every seed),
    is the bare value.
    """
    if estimate is None:
        return MISSING
    value, low, high = estimate.value, estimate.low, estimate.high
    factor, decimals, unit = _scale(kind, value)
    text = _fixed(value * factor, decimals)
    if low is None or high is None or low == high:
        return text + unit
    up, down = high - value, value - low
    if math.isclose(up, down, rel_tol=0.02, abs_tol=0.05 / factor / 10**decimals):
        return f"{text} ± {_fixed((up + down) / 2 * factor, decimals)}{unit}"
    return f"{text} [{_fixed(low * factor, decimals)}, {_fixed(high * factor, decimals)}]{unit}"


def format_value(value: float | None, of: Column) -> str:
    """A value of a column without an interval: "79.4", "44 s", "1.2 MB"."""
    return _format(of.kind, value)


# --- columns ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its key in results.csv, what a reader sees, how it is written."""

    name: str
    heading: str
    kind: Kind
    about: str


_COST_COLUMNS = {
    c.name: c
    for c in (
        Column("train_seconds", "Training", "seconds", "training time, evaluation excluded"),
        Column(
            "peak_memory_bytes",
            "Peak memory",
            "bytes",
            "peak of a fresh process while training, less what it held before",
        ),
        Column("adapter_parameters", "Adapter params", "parameters", "trained adapter parameters"),
        Column("head_parameters", "Head params", "parameters", "trained parameters of the head"),
        Column("trainable_parameters", "Trained params", "parameters", "all trained parameters"),
        Column("total_parameters", "Total params", "parameters", "all parameters of the model"),
        Column("artifact_bytes", "On disk", "bytes", "size of the saved classifier"),
        Column("texts_per_second", "Texts/s", "rate", "texts a second, tokenization included"),
        Column("latency_p50_seconds", "Latency", "latency", "median time for one text"),
        Column("latency_p95_seconds", "Latency p95", "latency", "95th percentile for one text"),
    )
}
_PARTS = {"test": "test", "eval": "validation"}


def cost_names() -> tuple[str, ...]:
    """The costs of a trial, as results.csv names them."""
    return tuple(_COST_COLUMNS)


def column(name: str) -> Column:
    """The column of a key of results.csv, as "test_accuracy" or "train_seconds"."""
    if name in _COST_COLUMNS:
        return _COST_COLUMNS[name]
    part, _, metric = name.partition("_")
    known = METRICS.get(metric)
    label = known.label if known else metric.replace("_", " ")
    kind: Kind = "percent" if known and known.percent else "number"
    where = _PARTS.get(part, part)
    unit = ", %" if kind == "percent" else ""
    return Column(
        name, f"{where[:1].upper()}{where[1:]} {label}{unit}", kind, f"{label} on {where}"
    )


# --- the summary ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One method (by its label in the study): means over its finished seeds, and their intervals.

    The interval of a score is for other seeds and other rows; that of a cost for other seeds.

    `settings` are those that differ between the rows of the same method. `estimates` has a key for
    every score and cost; where a value is None, `reasons` has the same key.
    """

    label: str
    method: str
    settings: Mapping[str, Any]
    n_seeds: int
    n_failed: int
    estimates: Mapping[str, Estimate | None]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a study says.

    `rows` best first by the mean of `metric` on `part` ("test"; "eval", the validation part, only
    where no trial could be scored on test). `best` is the label with the best mean on validation:
    test chooses nothing. Where seeds are missing (failed trials, a race), means are compared as if
    every method had run every seed; one that a race by this metric dropped is not `best`.
    `comparisons` holds every pair, those of `best` first and from its side. `broken`: methods with
    seeds that broke down (`broken_down`), whose wide intervals put them within any noise.
    """

    metric: str
    part: Part
    rows: tuple[Row, ...]
    best: str | None
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    broken: tuple[str, ...] = ()

    def row(self, label: str) -> Row:
        """The row of a label."""
        return next(r for r in self.rows if r.label == label)

    def against_best(self) -> tuple[Comparison, ...]:
        """`best` against every other method, in the order of the rows."""
        place = {r.label: i for i, r in enumerate(self.rows)}
        found = [c for c in self.comparisons if c.a == self.best]
        return tuple(sorted(found, key=lambda c: place[c.b]))


def summarise(record: StudyRecord, metric: str | None = None) -> Summary:
    """Turn a study on disk into what is said about it.

    `metric` is a key of METRICS; None takes the study's own. Raises ConfigError for another name.
    """
    metric = metric or str(record.settings.get("metric", "accuracy"))
    if metric not in METRICS:
        raise ConfigError(f"Unknown metric {metric!r}.{suggest(metric, METRICS, what='Metrics')}")
    part: Part = "test" if _scored(record.done, f"test_{metric}") else "eval"
    runs = read_runs(record)
    known = _means(runs)
    rows = [_row(record, label, known) for label in record.methods]
    rows.sort(key=lambda r: _rank(r, f"{part}_{metric}", metric))
    adjusted, dropped = _adjusted(record, f"eval_{metric}"), _dropped(record, metric)
    ranked = sorted(
        rows,
        key=lambda r: (
            r.estimates.get(f"eval_{metric}") is None,
            r.label in dropped,
            _rank(r, f"eval_{metric}", metric, adjusted.get(r.label)),
        ),
    )
    best = ranked[0].label if ranked and ranked[0].estimates.get(f"eval_{metric}") else None
    comparisons = _comparisons(runs[_PARTS[part]], [r.label for r in ranked], metric)
    broken = tuple(k for k, own in runs.get("validation", {}).items() if broken_down(own))
    summary = Summary(metric, part, tuple(rows), best, comparisons, (), (), broken)
    return replace(
        summary, sentences=_sentences(summary), warnings=_warnings(record, summary, runs)
    )


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


def _rank(row: Row, key: str, metric: str, adjusted: float | None = None) -> tuple[float, float]:
    """Best first, unmeasured last; among equals the one that trains faster."""
    score, seconds = row.estimates.get(key), row.estimates.get("train_seconds")
    value = score.value if score and adjusted is None else adjusted
    sign = -1 if METRICS[metric].higher_is_better else 1
    return (
        math.inf if value is None else sign * value,
        seconds.value if seconds else math.inf,
    )


def _dropped(record: StudyRecord, metric: str) -> frozenset[str]:
    """Methods that a race by this metric has dropped: not the best, whatever few seeds say."""
    stored = race_from_json(record.race) if record.race else None
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
    found, _, rank, _ = np.linalg.lstsq(design, np.array(list(values.values())), rcond=None)
    if rank < len(labels) + len(seeds) - 1:  # methods that no chain of shared seeds connects
        return {}
    of_seeds = float(found[len(labels) :].mean())
    # Rounded, so that methods with equal scores stay equal.
    return {label: round(float(x) + of_seeds, 12) for label, x in zip(labels, found, strict=False)}


def read_runs(record: StudyRecord) -> dict[str, dict[str, Runs]]:
    """The predictions of a study's finished trials: by part ("validation", "test"), then by label.

    Reads every trial once. A method without predictions on a part is not in it.
    """
    from tunelab.stats import Runs

    found: dict[str, dict[str, dict[int, Predictions]]] = {p: {} for p in _PARTS.values()}
    for r in record.done:
        for part, p in record.predictions(r.spec.trial_id).items():
            if part in found:
                found[part].setdefault(r.spec.method.label, {})[r.spec.seed] = p
    return {
        part: {label: Runs(label, by_seed) for label, by_seed in labels.items()}
        for part, labels in found.items()
    }


def _means(runs: Mapping[str, Mapping[str, Runs]]) -> dict[tuple[str, str], Estimate]:
    """Means over seeds, with intervals for other seeds and rows, by (label, "test_accuracy")."""
    from tunelab.stats import means

    return {
        (label, f"{part}_{metric}"): estimate
        for part, name in _PARTS.items()
        if same_rows(runs[name])
        for (label, metric), estimate in means(
            list(runs[name].values()), list(METRICS), np.random.default_rng(BOOTSTRAP_SEED)
        ).items()
    }


def same_rows(runs: Mapping[str, Runs]) -> bool:
    """Whether all seeds were scored on the same rows; not so for the validation parts of a study
    that divides train and validation anew by each seed.
    """
    return len({p.ids for r in runs.values() for p in r.by_seed.values()}) <= 1


def _row(record: StudyRecord, label: str, means: Mapping[tuple[str, str], Estimate]) -> Row:
    trials = [r for r in record.results if r.spec.method.label == label]
    done = [r for r in trials if r.status == "done"]
    scores = dict.fromkeys(k for r in record.done for k in r.scores)
    estimates: dict[str, Estimate | None] = {}
    reasons: dict[str, str] = {}
    for key in (*scores, *(f.name for f in fields(Cost))):
        values = [value_of(r, key) for r in done]
        known = [v for v in values if v is not None]
        estimates[key] = _estimate(known, means.get((label, key)))
        if not known:
            found = [r.reasons[key] for r in trials if key in r.reasons]
            reasons[key] = found[0] if found else _why_missing(done)
    method = trials[0].spec.method
    return Row(
        label=label,
        method=method.name,
        settings=_own_settings(record, label),
        n_seeds=len(done),
        n_failed=len(trials) - len(done),
        estimates=estimates,
        reasons=reasons,
    )


def _estimate(known: Sequence[float], of_predictions: Estimate | None) -> Estimate | None:
    """From the predictions, for seeds and rows; costs, and scores without them, over seeds."""
    from tunelab.stats import mean_interval

    if not known:
        return None
    over_seeds = mean_interval(known)
    if of_predictions is None or not math.isclose(of_predictions.value, over_seeds.value):
        return over_seeds
    return of_predictions


def _why_missing(done: Sequence[TrialResult]) -> str:
    return "not measured" if done else "no trial of this method finished"


def value_of(result: TrialResult, key: str) -> float | None:
    """A score ("test_accuracy") or a cost ("train_seconds") of a trial; None where it has none."""
    value = getattr(result.cost, key) if hasattr(result.cost, key) else result.scores.get(key)
    return None if value is None else float(value)


def _own_settings(record: StudyRecord, label: str) -> dict[str, Any]:
    specs = {r.spec.method.label: r.spec.method for r in record.results}
    mine = specs[label]
    siblings = [m.settings for m in specs.values() if m.name == mine.name]
    return {k: v for k, v in mine.settings.items() if any(s.get(k, _ABSENT) != v for s in siblings)}


_ABSENT = object()


def _comparisons(
    runs: Mapping[str, Runs], labels: Sequence[str], metric: str
) -> tuple[Comparison, ...]:
    from tunelab.stats import compare_all

    if not same_rows(runs):
        return ()
    known = [runs[label] for label in labels if label in runs]
    return tuple(compare_all(known, metric, np.random.default_rng(BOOTSTRAP_SEED)))


def lead(summary: Summary) -> str:
    """The answer without numbers, as "lora comes first of 4 methods, within noise of full"."""
    best = summary.best
    if best is None:
        return "No trial finished, so there is nothing to compare"
    against = summary.against_best()
    if not against:
        return f"{best} was trained; there is nothing to compare it with"
    if all(c.verdict == "better" for c in against):
        return f"{best} is better than {_and([c.b for c in against])}"
    near = [c.b for c in against if _within_noise(c) and c.b not in summary.broken]
    noise = f", within noise of {_and(near)}" if near else ""
    return f"{best} was best of {len(against) + 1} methods on validation{noise}"


def headline(summary: Summary) -> str:
    """The answer in one line: `lead`, and what the best method reached with its interval."""
    if summary.best is None:
        return lead(summary)
    shown = column(f"{summary.part}_{summary.metric}")
    estimate = summary.row(summary.best).estimates.get(shown.name)
    percent = " percent" if shown.kind == "percent" else ""
    return f"{lead(summary)}: {format_estimate(estimate, shown.kind)}{percent} {shown.about}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _within_noise(comparison: Comparison) -> bool:
    d = comparison.difference
    if comparison.verdict == "equivalent":
        return True
    return d.low is not None and d.high is not None and d.low <= 0 <= d.high


def _sentences(summary: Summary) -> tuple[str, ...]:
    against = summary.against_best()
    sentences = [c.sentence for c in against]
    cheaper = [c.b for c in against if _within_noise(c) and c.b not in summary.broken]
    cost = {r.label: r.estimates.get("train_seconds") for r in summary.rows}
    own = cost.get(summary.best or "")
    priced = [(e.value, label) for label in cheaper if (e := cost[label]) is not None]
    if own is not None and priced and min(priced)[0] < own.value:
        seconds, label = min(priced)
        costs, against_ = format_seconds(seconds), format_seconds(own.value)
        if costs != against_:
            sentences.append(
                f"{label} is the cheapest within noise of {summary.best}: {costs} of training "
                f"against {against_}"
            )
    return tuple(sentences)


def _plural(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _warnings(
    record: StudyRecord, summary: Summary, runs: Mapping[str, Mapping[str, Runs]]
) -> tuple[str, ...]:
    return (
        *_unfinished(record),
        *_caveats_of_data(record),
        *_caveats_of_gate(record, summary, runs),
        *_caveats_of_seeds(summary),
        *(_caveat_of_breakdown(runs["validation"][label]) for label in summary.broken),
        *_caveats_of_choice(record, summary),
        *_caveats_of_cost(record),
        *_caveats_of_mixture(record),
    )


def _unfinished(record: StudyRecord) -> list[str]:
    failed = [
        f"{r.spec.method.label} (seed {r.spec.seed}) failed: {r.error or 'no message was kept'}"
        for r in record.failed
    ]
    total = len(record.results) + len(record.missing)
    if record.missing:
        failed.append(
            f"{len(record.missing)} of {_plural(total, 'trial')} have not been run: run the same "
            "command again to finish them."
        )
    return failed


def _caveats_of_data(record: StudyRecord) -> list[str]:
    found = []
    source = str(record.settings.get("data", {}).get("source", ""))
    if source.partition(":")[0] == "demo":
        found.append("The demo reviews show how tunelab works; they are not a benchmark.")
    notes = [n for n in record.data.get("notes", ()) if "unlabelled" in n or "not scored" in n]
    found += [f"{n[:1].upper()}{n[1:].rstrip('.')}." for n in notes]
    duplicates = record.data.get("duplicates", {})
    # The gate says it better: near ones too, and what they change.
    across = {} if record.gate else duplicates.get("across", {})
    for pair, n in across.items():
        first, _, second = pair.partition("/")
        if n and second:
            stand = "also stands" if n == 1 else "also stand"
            found.append(
                f"{_plural(n, f'{second} text')} {stand} in {first}: scores on them flatter every "
                "method."
            )
    found += [
        f"{o['in_train']:,} of {o['rows']:,} rows of {o['name']} stand, or nearly, in train: "
        "scores on them are partly memory."
        for o in record.data.get("test_on", ())
        if o["in_train"]
    ]
    if (n := duplicates.get("conflicting", 0)) and not record.gate:
        carry = "text carries" if n == 1 else "texts carry"
        found.append(f"{n:,} {carry} more than one label.")
    return found


def _caveats_of_gate(
    record: StudyRecord, summary: Summary, runs: Mapping[str, Mapping[str, Runs]]
) -> list[str]:
    """What the data gate's findings do to the conclusion."""
    from tunelab import gate

    if record.gate is None:
        return []
    found = gate.gate_from_json(record.gate)
    said = [f"{f.says}." for f in found.of("conflicts")]
    said += [f"{f.says}." for f in found.of("leak") if not f.where.endswith("/test")]
    if summary.part == "test":
        scored = list(runs["test"].values())
        some = gate.effects(found, scored, summary.metric, ("leak", "conflicts"))
        said += [f"{e.sentence}." for e in some]
    return said


def _caveats_of_seeds(summary: Summary) -> list[str]:
    from tunelab.stats import least_seeds

    counts = sorted({r.n_seeds for r in summary.rows if r.n_seeds})
    least = least_seeds()
    undecided = any(c.verdict == "undecided" for c in summary.comparisons)
    if not undecided or counts[0] >= least:
        return []
    many = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else _plural(counts[0], "seed")
    return [
        f"{many} a method: at least {least} are needed before tunelab calls one of these better "
        "or worse."
    ]


def broken_down(runs: Runs) -> dict[int, float]:
    """Validation accuracy of the seeds with which training broke down; empty where that is unclear.

    Those that learnt less than half of what the method's best seed did, counted from the share of
    the largest class, and by more than noise. A method's runs then are of two kinds, as Mosbach et
    al. 2021 ("On the Stability of Fine-tuning BERT") found, who count as failed what ends there.
    """
    found = _accuracies(runs)
    if not found:
        return {}
    # Divided anew for each seed, parts still have nearly the same share.
    labels = next(iter(runs.by_seed.values())).labels
    share = np.unique(labels, return_counts=True)[1].max() / len(labels)
    noise = 5 * math.sqrt(share * (1 - share) / len(labels))
    best = max(found.values())
    return {
        s: a
        for s, a in found.items()
        if best - share > noise and best - a > max(noise, (best - share) / 2)
    }


def _accuracies(runs: Runs) -> dict[int, float]:
    return {s: float((p.predicted == p.labels).mean()) for s, p in runs.by_seed.items()}


def _caveat_of_breakdown(runs: Runs) -> str:
    broken, best = broken_down(runs), max(_accuracies(runs).values())
    which = ", ".join(f"{100 * a:.1f} with seed {s}" for s, a in sorted(broken.items()))
    return (
        f"{runs.label} broke down with {len(broken)} of {_plural(len(runs.by_seed), 'seed')} "
        f"({which}, {100 * best:.1f} with its best, percent accuracy on validation): its means "
        "are of two kinds of runs. A lower learning rate usually mends it."
    )


def _caveats_of_choice(record: StudyRecord, summary: Summary) -> list[str]:
    found = []
    if summary.part == "eval" and summary.best is not None:
        key = f"test_{summary.metric}"
        reason = next((r.reasons[key] for r in record.done if key in r.reasons), "no reason kept")
        found.append(
            f"The test part was not scored ({reason}). The numbers are from validation, on which "
            "the methods were also chosen, and so they flatter."
        )
    elif summary.best is not None and _ahead_on_test(summary):
        found.append(
            f"{summary.rows[0].label} has the best mean on test, but {summary.best} was best "
            "on validation, and test chooses nothing."
        )
    return found


def _ahead_on_test(summary: Summary) -> bool:
    """Whether another method than the chosen one has the best mean on test, not only as good."""
    key = f"{summary.part}_{summary.metric}"
    first, own = (r.estimates.get(key) for r in (summary.rows[0], summary.row(str(summary.best))))
    return first is not None and own is not None and first.value != own.value


def _caveats_of_cost(record: StudyRecord) -> list[str]:
    """Times that were shared, or measured while other trials ran, are marked in every table."""
    stacked = [r for r in record.done if r.provenance.get("stack")]
    found = []
    if stacked:
        which = (
            "All trials" if len(stacked) == len(record.done) else f"{len(stacked)} of the trials"
        )
        most = max(int(r.provenance["stack"]) for r in stacked)
        found.append(
            f"{which} were trained in stacks, up to {most} in one pass: their training time is "
            "their share of it, their peak memory that of the whole stack (--stack off)."
        )
    beside = [r for r in record.done if not r.provenance.get("measured_alone", True)]
    if not beside:
        return found
    most = max(int(r.provenance["jobs"]) for r in beside)
    which = "All trials" if len(beside) == len(record.done) else f"{len(beside)} of the trials"
    return [
        *found,
        f"{which} ran beside others, {most} at a time: their times and rates compare with each "
        "other, not with those of trials that ran alone (--jobs 1).",
    ]


def _caveats_of_mixture(record: StudyRecord) -> list[str]:
    """Trials of one study that were not computed alike: other machines, other number formats."""
    found = []
    hardware = [h for r in record.done if (h := r.provenance.get("hardware"))]
    machines = dict.fromkeys(f"{h.get('processor')}, {h.get('cores')} cores" for h in hardware)
    if len(machines) > 1:
        found.append(
            f"Trials ran on different machines ({'; '.join(machines)}): times, rates and memory "
            "compare only within one."
        )
    for label in record.methods:
        own = (r.details.get("precision") for r in record.done if r.spec.method.label == label)
        formats = sorted({p for p in own if p})
        if len(formats) > 1:
            found.append(
                f"{label} was trained in {_and(formats)}: its seeds differ by that too. Set "
                "precision to have one."
            )
    return found


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
    ]
    return tuple(column(n) for n in names if any(r.estimates.get(n) for r in summary.rows))


def display(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The table as a reader sees it: headings, and a list of cells a row, best first."""
    shown = shown_columns(summary)
    failures = any(r.n_failed for r in summary.rows)
    headings = ["Method", *(c.heading for c in shown), "Seeds", *(["Failed"] if failures else [])]
    cells = [
        [
            r.label,
            *(format_estimate(r.estimates.get(c.name), c.kind) for c in shown),
            str(r.n_seeds),
            *([str(r.n_failed)] if failures else []),
        ]
        for r in summary.rows
    ]
    return headings, cells


def table(summary: Summary) -> pd.DataFrame:
    """The table as numbers, one row a method, best first.

    `label`, `method`, the settings that differ, `seeds`, `failed`; then for each score (0 to 1) and
    cost (seconds, bytes, counts) its mean under its name, and its 95% interval (of a score: over
    seeds and rows; of a cost: over seeds) under
    `<name>_low` and `<name>_high`; NaN where there is none. `attrs["headings"]` holds readable
    names of these columns.
    """
    import pandas as pd

    settings = list(dict.fromkeys(k for r in summary.rows for k in r.settings))
    every = dict.fromkeys(k for r in summary.rows for k in r.estimates)
    names = [n for n in every if any(r.estimates.get(n) for r in summary.rows)]
    records = []
    for r in summary.rows:
        record: dict[str, Any] = {"label": r.label, "method": r.method}
        record |= {k: _scalar(r.settings.get(k)) for k in settings}
        record |= {"seeds": r.n_seeds, "failed": r.n_failed}
        for name in names:
            e = r.estimates.get(name)
            record[name] = _number(e.value if e else None)
            record[f"{name}_low"] = _number(e.low if e else None)
            record[f"{name}_high"] = _number(e.high if e else None)
        records.append(record)
    frame = pd.DataFrame.from_records(records)
    frame.attrs["headings"] = {n: column(n).heading for n in names}
    return frame


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain JSON values: the content of comparison.json."""
    return {
        "metric": summary.metric,
        "part": _PARTS[summary.part],
        "best": summary.best,
        "headline": headline(summary),
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
        "comparisons": [asdict(c) for c in summary.comparisons],
    }
