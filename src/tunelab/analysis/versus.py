"""One study against another on the same data: the methods that both have, paired where they can
be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tunelab.analysis import numbers, summary
from tunelab.analysis.markdown import in_markdown, table_lines
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison, Estimate
from tunelab.stats import LEVEL, Runs, compare, decimals
from tunelab.stats.metrics import METRICS

__all__ = [
    "Shared",
    "Versus",
    "between",
    "markdown",
    "rows",
]


@dataclass(frozen=True, slots=True)
class Shared:
    """A method that both studies have: its score and training time in each, and the difference.

    `comparison` is here minus there, or None with `reason` (another data set, no common seed).
    """

    label: str
    here: Estimate | None
    there: Estimate | None
    seconds_here: Estimate | None
    seconds_there: Estimate | None
    comparison: Comparison | None
    reason: str


@dataclass(frozen=True, slots=True)
class Versus:
    """A study (`here`) against another (`there`), by name.

    `only_here` and `only_there` are the methods that one alone has; `notes` what differs beside
    the methods (data, base model, version).
    """

    here: str
    there: str
    metric: str
    part: str
    shared: tuple[Shared, ...]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    notes: tuple[str, ...]


def between(a: StudyRecord, b: StudyRecord, metric: str) -> Versus:
    """Compare two studies. Intervals are widened for the number of methods (Bonferroni).

    Raises InputError where they share no method.
    """
    labels = [m for m in a.methods if m in b.methods]
    if not labels:
        raise InputError(
            f"--compare {b.directory}: expected a method that {a.directory} has too "
            f"({', '.join(a.methods) or 'it has none'}), found {', '.join(b.methods) or 'none'}."
        )
    one, other = summary.summarise(a, metric), summary.summarise(b, metric)
    part: numbers.Part = "test" if one.part == other.part == "test" else "eval"
    same = a.data["fingerprint"] == b.data["fingerprint"]
    names = _study_names(a, b)
    shared = []
    for label in labels:
        key = f"{part}_{metric}"
        here, there = one.row(label).estimates, other.row(label).estimates
        comparison, reason = (
            _compared_method(
                a, b, label=label, metric=metric, part=part, names=names, count=len(labels)
            )
            if same
            else (None, "the two studies have different data")
        )
        shared.append(
            Shared(
                label,
                here.get(key),
                there.get(key),
                here.get("train_seconds"),
                there.get("train_seconds"),
                comparison,
                reason,
            )
        )
    return Versus(
        here=names[0],
        there=names[1],
        metric=metric,
        part=part,
        shared=tuple(shared),
        only_here=tuple(m for m in a.methods if m not in labels),
        only_there=tuple(m for m in b.methods if m not in labels),
        notes=tuple(_differences(a, b)),
    )


def _study_names(a: StudyRecord, b: StudyRecord) -> tuple[str, str]:
    one, other = a.directory.resolve(), b.directory.resolve()
    if one.name != other.name:
        return one.name, other.name
    return f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"


def _compared_method(
    a: StudyRecord,
    b: StudyRecord,
    *,
    label: str,
    metric: str,
    part: numbers.Part,
    names: tuple[str, str],
    count: int,
) -> tuple[Comparison | None, str]:
    split = numbers.SCORED_PARTS[part]
    runs = []
    for record, name in zip((a, b), names, strict=True):
        trials = [r for r in record.done if r.spec.method.label == label]
        found = {r.spec.seed: record.predictions(r.spec.trial_id).get(split) for r in trials}
        by_seed = {seed: p for seed, p in found.items() if p is not None}
        if not by_seed:
            return None, f"{name} has no finished trial of {label}"
        runs.append(Runs(f"{label} in {name}", by_seed))
    try:
        return (
            compare(
                runs[0],
                runs[1],
                metric,
                np.random.default_rng(summary.BOOTSTRAP_SEED),
                level=1 - (1 - LEVEL) / count,
            ),
            "",
        )
    except ValueError as e:
        return None, str(e)


def _differences(a: StudyRecord, b: StudyRecord) -> list[str]:
    notes = []
    for what, one, other in (
        ("data", a.data.get("fingerprint"), b.data.get("fingerprint")),
        ("base model", a.settings.get("model"), b.settings.get("model")),
        ("tunelab", a.settings.get("tunelab"), b.settings.get("tunelab")),
        ("seeds", a.settings.get("seeds"), b.settings.get("seeds")),
    ):
        if one != other:
            notes.append(f"{what}: {_shown_setting(one)} here, {_shown_setting(other)} there")
    mine = {r.spec.method.label: dict(r.spec.method.settings) for r in a.results}
    theirs = {r.spec.method.label: dict(r.spec.method.settings) for r in b.results}
    for label, own in mine.items():
        its = theirs.get(label, own)
        changed = sorted(k for k in own.keys() | its.keys() if own.get(k) != its.get(k))
        if changed:
            said = ", ".join(f"{k} {own.get(k)} here, {its.get(k)} there" for k in changed)
            notes.append(f"{label}: {said}")
    return notes


def _shown_setting(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def rows(v: Versus) -> tuple[list[str], list[list[str]], list[str]]:
    """The comparison as people read it: headings, cells, and a sentence for each method."""
    kind = numbers.column(f"{v.part}_{v.metric}").kind
    scale = 100 if METRICS[v.metric].percent else 1
    headings = ["Method", v.here, v.there, "Difference", f"Training, {v.here}", v.there, "Verdict"]
    cells, sentences = [], []
    for s in v.shared:
        difference, verdict = numbers.MISSING, numbers.MISSING
        if s.comparison is not None:
            d = s.comparison.difference
            digits = decimals(d, METRICS[v.metric])
            difference = f"{d.value * scale:+.{digits}f}"
            if d.low is not None and d.high is not None:
                ends = f"{d.low * scale:+.{digits}f} to {d.high * scale:+.{digits}f}"
                difference += f" ({ends})"
            verdict = s.comparison.verdict
            sentences.append(s.comparison.sentence)
        else:
            sentences.append(f"{s.label}: not paired, because {s.reason}")
        cells.append(
            [
                s.label,
                numbers.format_estimate(s.here, kind),
                numbers.format_estimate(s.there, kind),
                difference,
                numbers.format_estimate(_bare(s.seconds_here), "seconds"),
                numbers.format_estimate(_bare(s.seconds_there), "seconds"),
                verdict,
            ]
        )
    return headings, cells, sentences


def _bare(estimate: Estimate | None) -> Estimate | None:
    return replace(estimate, low=None, high=None) if estimate else None


def markdown(v: Versus) -> str:
    """A section of the lab report."""
    headings, cells, sentences = rows(v)
    lines = [f"## {in_markdown(v.here)} against {in_markdown(v.there)}", ""]
    lines += table_lines(headings, ["---"] * len(headings), cells)
    lines += ["", *(f"- {in_markdown(s).rstrip('.')}." for s in sentences)]
    lines += [f"- Differs: {in_markdown(n)}." for n in v.notes]
    return "\n".join(lines) + "\n"
