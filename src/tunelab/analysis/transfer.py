"""Transfer: scores on data that a classifier was not trained on (`--test-on`), by domain too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunelab.analysis.numbers import column, format_estimate
from tunelab.core.details import DomainScores, Transfer
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.stats import mean_interval
from tunelab.stats.metrics import METRICS

__all__ = [
    "Elsewhere",
    "transfer_for_display",
    "transfer",
]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One set of other data, or one `domain` of it (None: all its rows).

    `here` and `there` map a method's label to its mean score over seeds on the study's own test
    part and on this data, with Student's t intervals.
    """

    name: str
    domain: str | None
    rows: int
    here: Mapping[str, Estimate]
    there: Mapping[str, Estimate]


def transfer(record: StudyRecord, metric: str | None = None) -> tuple[Elsewhere, ...]:
    """What the study's trials scored elsewhere; empty where nothing else was scored."""
    metric = metric or record.settings["metric"]
    # (name, domain) -> rows, and the values by label
    scores: dict[tuple[str, str | None], tuple[int, dict[str, list[float]]]] = {}
    own: dict[str, list[float]] = {}
    for r in record.done:
        label = r.spec.method.label
        _add(own, label, r.scores.get(f"test_{metric}"))
        for name, facts in r.details.transfer.items():
            parts: list[tuple[str | None, Transfer | DomainScores]] = [(None, facts)]
            for domain, part in (*parts, *facts.domains.items()):
                _, values = scores.setdefault((name, domain), (part.rows, {}))
                _add(values, label, part.scores.get(metric))
    here = _means_by_domain(own, metric)
    return tuple(
        Elsewhere(name, domain, rows, here, _means_by_domain(values, metric))
        for (name, domain), (rows, values) in scores.items()
    )


def _add(values: dict[str, list[float]], label: str, value: float | None) -> None:
    if value is not None:
        values.setdefault(label, []).append(value)


def _means_by_domain(values: Mapping[str, list[float]], metric: str) -> dict[str, Estimate]:
    cut = METRICS[metric].percent
    means = {label: mean_interval(v) for label, v in values.items()}
    return {
        label: replace(e, low=max(0.0, e.low), high=min(1.0, e.high))
        if cut and e.low is not None and e.high is not None
        else e
        for label, e in means.items()
    }


def transfer_for_display(
    record: StudyRecord, metric: str
) -> tuple[list[str], list[list[str]]] | None:
    """The table that people read: a row a method, a column for each set and domain."""
    sets = transfer(record, metric)
    if not sets:
        return None
    kind = column(f"test_{metric}").kind
    headings = ["Tested on", "own test", *(_heading(s) for s in sets)]
    rows = [
        [
            label,
            format_estimate(sets[0].here.get(label), kind),
            *(format_estimate(s.there.get(label), kind) for s in sets),
        ]
        for label in record.methods
    ]
    return headings, rows


def _heading(s: Elsewhere) -> str:
    name = s.name if s.domain is None else f"{s.name}: {s.domain}"
    return f"{name} ({s.rows:,})"
