"""One study against another: the methods that both have, paired on the rows that both tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunelab.analysis import numbers, summary
from tunelab.analysis.common_rows import Keys, keys_of_rows, on_common_rows
from tunelab.analysis.markdown import in_markdown, table_lines
from tunelab.analysis.pairs import what_was_seen
from tunelab.analysis.reading import BOOTSTRAP_SEED, groups_of_rows
from tunelab.analysis.verdict import Standing, Summary, standing, with_chance
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison, Estimate
from tunelab.core.words import counted
from tunelab.stats import LEVEL, Runs, compare, holm

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
    `broke`: runs of it broke down in one of the studies, so that there is no verdict.
    """

    label: str
    here: Estimate | None
    there: Estimate | None
    seconds_here: Estimate | None
    seconds_there: Estimate | None
    comparison: Comparison | None
    reason: str
    broke: bool = False

    @property
    def standing(self) -> Standing | None:
        """Where the method stands here against there; None without a comparison."""
        if self.comparison is None:
            return None
        return "broke down" if self.broke else standing(self.comparison)


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
    """Compare two studies, method by method. Every interval is of its method alone; "better" and
    "worse" ask for p values that are corrected for the number of methods (Holm).

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
    names = _study_names(a, b)
    both = ((a, names[0], one), (b, names[1], other))
    notes = _differences(both)
    try:
        keys = keys_of_rows(a, b, numbers.SCORED_PARTS[part])
        compared = [_compared_method(both, label, metric, part, keys) for label in labels]
        pairs = _corrected([(c, reason) for c, reason, _ in compared])
        notes += dict.fromkeys(note for _, _, note in compared if note)
    except ValueError as e:
        pairs = [(None, str(e))] * len(labels)
    if all(comparison is None for comparison, _ in pairs):
        notes.append(
            f"To score both on the same rows: tunelab evaluate {a.directory} {b.directory} --data "
            "FILE, with labelled rows that neither was trained on"
        )
    shared = []
    for label, (comparison, reason) in zip(labels, pairs, strict=True):
        key = f"{part}_{metric}"
        here, there = one.row(label).estimates, other.row(label).estimates
        broke = label in one.collapses or label in other.collapses
        shared.append(
            Shared(
                label,
                here.get(key),
                there.get(key),
                here.get("train_seconds"),
                there.get("train_seconds"),
                comparison,
                reason,
                broke,
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
        notes=tuple(notes),
    )


def _study_names(a: StudyRecord, b: StudyRecord) -> tuple[str, str]:
    one, other = a.directory.resolve(), b.directory.resolve()
    if one.name != other.name:
        return one.name, other.name
    return f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"


_Pair = tuple[Comparison | None, str]
_Side = tuple[StudyRecord, str, Summary]  # a study, its name beside the other, what is said of it


def _compared_method(
    both: Sequence[_Side], label: str, metric: str, part: numbers.Part, keys: tuple[Keys, Keys]
) -> tuple[Comparison | None, str, str]:
    """A method of one study against itself in another, on its own; or why that cannot be; and a
    note on the rows that were paired.
    """
    runs, broke = [], {}
    for record, name, said in both:
        trials = [r for r in record.done if r.spec.method.label == label]
        split = numbers.SCORED_PARTS[part]
        predictions = {r.spec.seed: record.predictions(r.spec.trial_id).get(split) for r in trials}
        by_seed = {seed: p for seed, p in predictions.items() if p is not None}
        if not by_seed:
            return None, f"{name} has no finished trial of {label}", ""
        groups = groups_of_rows(record)
        runs.append(Runs(f"{label} in {name}", by_seed, groups))
        if label in said.collapses:
            broke[runs[-1].label] = replace(said.collapses[label], label=runs[-1].label)
    classes = (both[0][0].data["label_names"], both[1][0].data["label_names"])
    try:
        here, there, note = on_common_rows(runs[0], runs[1], keys, classes)
        if broke:
            seen = what_was_seen(here, there, metric, broke)
            return seen, "too few runs are left", note
        return compare(here, there, metric, np.random.default_rng(BOOTSTRAP_SEED)), "", note
    except ValueError as e:
        return None, str(e), ""


def _corrected(pairs: Sequence[_Pair]) -> list[_Pair]:
    """The comparisons with p values and verdicts that hold for all methods together (Holm)."""
    tested = [c for c, _ in pairs if c is not None and c.p_value is not None]
    adjusted = iter(holm([c.p_value for c in tested if c.p_value is not None]))
    return [
        (c, why)
        if c is None or c.p_value is None
        else (_read_anew(c, next(adjusted), len(tested)), why)
        for c, why in pairs
    ]


def _read_anew(c: Comparison, p: float, methods: int) -> Comparison:
    """A comparison whose p value is one of several: only a verdict that survives stays."""
    value = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    after = f"{value} after Holm's correction for {counted(methods, 'method')}"
    lost = c.verdict in {"better", "worse"} and p > 1 - LEVEL
    if lost:
        ahead = "ahead of" if c.verdict == "better" else "behind"
        size = numbers.format_difference(c.difference, c.metric)
        sentence = f"{c.a} is {ahead} {c.b}: {size}, but {after}"
        c = replace(c, verdict="undecided", reason=after, sentence=sentence)
    elif methods > 1 and c.verdict in {"better", "worse"}:
        c = replace(c, sentence=f"{c.sentence}; {after}")
    return replace(c, p_value=p, sentence=with_chance(c))


def _differences(both: Sequence[_Side]) -> list[str]:
    """What differs beside the methods, a line each."""
    (a, _, here), (b, _, there) = both
    notes = []
    tests = [s.cross_fitted or "one test part" for s in (here, there)]
    sizes = [f"{r.data['sizes'].get('train', 0):,}" for r in (a, b)]
    for what, one, other in (
        ("data", a.data.get("fingerprint"), b.data.get("fingerprint")),
        ("rows to train on", *sizes),
        ("tests", *tests),
        ("base model", a.settings.get("model"), b.settings.get("model")),
        ("tunelab", a.settings.get("tunelab"), b.settings.get("tunelab")),
        ("seeds", a.settings.get("seeds"), b.settings.get("seeds")),
    ):
        if one != other:
            notes.append(
                f"Differs: {what}: {_shown_setting(one)} here, {_shown_setting(other)} there"
            )
    mine = {r.spec.method.label: dict(r.spec.method.settings) for r in a.results}
    theirs = {r.spec.method.label: dict(r.spec.method.settings) for r in b.results}
    for label, own in mine.items():
        its = theirs.get(label, own)
        changed = sorted(k for k in own.keys() | its.keys() if own.get(k) != its.get(k))
        if changed:
            said = ", ".join(f"{k} {own.get(k)} here, {its.get(k)} there" for k in changed)
            notes.append(f"Differs: {label}: {said}")
    return notes


def _shown_setting(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def rows(v: Versus) -> tuple[list[str], list[list[str]], list[str]]:
    """The comparison as people read it: headings, cells, and a sentence for each method."""
    kind = numbers.column(f"{v.part}_{v.metric}").kind
    took = [f"Training, {v.here}", f"Training, {v.there}"]
    headings = ["Method", v.here, v.there, "Difference", *took, "Verdict"]
    cells, sentences = [], []
    for s in v.shared:
        difference, verdict = numbers.MISSING, numbers.MISSING
        if s.comparison is not None:
            difference = numbers.format_difference(s.comparison.difference, v.metric, cell=True)
            verdict = str(s.standing)
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
    lines += ["", *(f"- {in_markdown(s).rstrip('.')}." for s in (*sentences, *v.notes))]
    return "\n".join(lines) + "\n"
