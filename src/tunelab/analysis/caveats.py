"""What a reader must know before believing a study: warnings, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tunelab.analysis import text_limits
from tunelab.analysis.collapse import Collapse
from tunelab.analysis.confidence import warnings_of_raw
from tunelab.analysis.corrected import caveats_of_corrections
from tunelab.analysis.effects import effects
from tunelab.analysis.numbers import format_seconds
from tunelab.analysis.reading import comparable, machine_of, on_every_row
from tunelab.analysis.verdict import Summary, joined_by_and
from tunelab.core.study_folder import StudyRecord
from tunelab.core.text_lengths import text_lengths_from_json
from tunelab.core.words import agreeing, counted, rows_word
from tunelab.data.gate import values
from tunelab.stats import least_seeds
from tunelab.stats.looks import looks_from_json, looks_in_words
from tunelab.stats.metrics import METRICS

if TYPE_CHECKING:
    from tunelab.stats import Runs

__all__ = [
    "warnings",
]


def warnings(
    record: StudyRecord, summary: Summary, runs: Mapping[str, Mapping[str, Runs]]
) -> tuple[str, ...]:
    """What a reader must know before believing the study, the gravest first."""
    return (
        *_unfinished(record),
        *caveats_of_corrections(record, summary),
        *_caveats_of_data(record),
        *_caveats_of_gate(record, summary, runs),
        *_caveats_of_limits(record),
        *_caveats_of_untrained(record),
        *_caveats_of_students(record),
        *_caveats_of_endpoints(record),
        *_caveats_of_seeds(summary),
        *_caveats_of_rare_classes(record, summary, runs),
        *_caveats_of_looks(record),
        *(_caveat_of_collapse(c) for c in summary.collapses.values()),
        *_caveats_of_choice(record, summary),
        *warnings_of_raw(runs),
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
            f"{len(record.missing)} of {counted(total, 'trial')} "
            f"{agreeing(len(record.missing), 'have')} not been run: run the same "
            "command again to finish them."
        )
    return failed


def _caveats_of_data(record: StudyRecord) -> list[str]:
    caveats = []
    source = str(record.settings.get("data", {}).get("source", ""))
    if source.partition(":")[0] == "demo":
        caveats.append("The demo reviews show how tunelab works; they are not a benchmark.")
    if (column := record.data.get("group_column")) is not None:
        caveats.append(
            f"Rows come in groups by {column!r}: intervals and tests of scores resample groups. "
            "What is said of calibration takes rows as independent, and is surer than it should be."
        )
    notes = [n for n in record.data.get("notes", ()) if "unlabelled" in n or "not scored" in n]
    caveats += [f"{n[:1].upper()}{n[1:].rstrip('.')}." for n in notes]
    duplicates = record.data.get("duplicates", {})
    # The gate says it better: near ones too, and what they change.
    across = {} if record.gate else duplicates.get("across", {})
    for pair, n in across.items():
        first, _, second = pair.partition("/")
        if n and second:
            caveats.append(
                f"{counted(n, f'{second} text')} also {agreeing(n, 'stand')} in {first}: scores on "
                "them flatter every method."
            )
    caveats += [
        f"{o['in_train']:,} of {rows_word(o['rows'])} of {o['name']} "
        f"{agreeing(o['in_train'], 'stand')}, or nearly, in train: "
        "scores on them are partly memory."
        for o in record.data.get("test_on", ())
        if o["in_train"]
    ]
    if (n := duplicates.get("conflicting", 0)) and not record.gate:
        caveats.append(f"{counted(n, 'text')} {agreeing(n, 'carry')} more than one label.")
    return caveats


def _caveats_of_gate(
    record: StudyRecord, summary: Summary, runs: Mapping[str, Mapping[str, Runs]]
) -> list[str]:
    """What the data gate's findings do to the conclusion."""
    gate = record.parsed("gate", values.gate_from_json)
    if gate is None:
        return []
    said = [f"{f.says}." for f in gate.of("conflicts")]
    said += [f"{f.says}." for f in gate.of("leak") if not f.where.endswith("/test")]
    if summary.part == "test":
        scored = list(runs["test"].values())
        some = effects(gate, scored, summary.metric, ("leak", "conflicts"))
        said += [f"{e.sentence}." for e in some]
    return said


def _caveats_of_limits(record: StudyRecord) -> list[str]:
    """Texts of which most methods read a part alone."""
    methods = {r.spec.method.label: r.spec.method for r in record.results}
    lengths = record.parsed("lengths", text_lengths_from_json)
    return text_limits.warnings_of_limits(lengths, text_limits.labels_by_limit(methods.values()))


def _caveats_of_untrained(record: StudyRecord) -> list[str]:
    """Methods that the training part taught nothing: what they are compared on is another thing."""
    labels = [r.spec.method.label for r in record.done if r.details.training_rows == 0]
    if not labels:
        return []
    which = joined_by_and(list(dict.fromkeys(labels)))
    return [
        f"{which} used no training rows: labels' names and descriptions are all there is to go by, "
        "whatever the number of rows. Validation rows fit the temperature of probabilities alone."
    ]


def _caveats_of_students(record: StudyRecord) -> list[str]:
    """Methods that another one taught: whose costs their training has in it."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for r in record.done:
        teacher, own = r.details.own.get("teacher"), r.details.own.get("teacher_seconds")
        if isinstance(teacher, str) and isinstance(own, int | float):
            seconds.setdefault((r.spec.method.label, teacher), []).append(float(own))
    return [
        f"{label} was taught by {teacher}: its training time has the teacher's in it "
        f"({format_seconds(float(np.mean(own)))}); scoring asks the student alone."
        for (label, teacher), own in seconds.items()
    ]


def _caveats_of_endpoints(record: StudyRecord) -> list[str]:
    """Models elsewhere: what nobody here can know of them, and answers that were none."""
    own = {r.spec.method.label: (r, r.details.own) for r in record.done if "asked" in r.details.own}
    said = []
    for label, (r, facts) in own.items():
        none, of = facts["answers_without_a_label"], facts["answers_on_validation"]
        unread = f" {none} of its {of} answers on validation named no label." if none else ""
        said.append(
            f"{label} was shown {counted(r.details.training_rows or 0, 'training row')} and asks "
            f"{facts['asked']}: what its model was trained on is not known, so that it may have "
            f"seen public test rows.{unread}"
        )
    return said


def _caveats_of_seeds(summary: Summary) -> list[str]:
    """Too few seeds for a verdict, where more would help; fewer folds of what left a race."""
    waiting = [c for c in summary.comparisons if summary.wants_seeds(c)]
    counts = sorted({c.difference.n for c in waiting})
    said = []
    if waiting:
        many = counted(counts[-1], "seed")
        many = f"{counts[0]} to {many}" if len(counts) > 1 else many
        said.append(
            f"{many} a method: at least {least_seeds()} are needed before tunelab calls one of "
            "these better or worse."
        )
    few = [r.label for r in summary.rows if r.label in summary.dropped and r.n_seeds]
    if summary.cross_fitted and few:
        said.append(
            f"{joined_by_and(few)} left the race early: the scores in the table are of fewer "
            "folds, and so of other rows, than those of the rest. Pairs are compared on folds that "
            "both have."
        )
    return said


# Averages over classes, in which ten rows of one class weigh as much as a thousand of another.
_CLASS_AVERAGES = {"f1_macro", "precision_macro", "recall_macro", "balanced_accuracy"}
_LEAST_CLASS_ROWS = 20


def _caveats_of_rare_classes(
    record: StudyRecord, summary: Summary, runs: Mapping[str, Mapping[str, Runs]]
) -> list[str]:
    """With fewer than 20 rows of a class, intervals of such averages are too short.

    In simulations with a class of 3 to 6% on 150 and 300 rows they hold the truth in 89 to 94 of
    100 studies.
    """
    of_part = [r for r in runs.get(summary.split, {}).values() if r.by_seed]
    if summary.metric not in _CLASS_AVERAGES or not of_part:
        return []
    names = [str(n) for n in record.data["label_names"]]
    n = np.bincount(on_every_row(of_part[0]).labels, minlength=len(names))
    few = [
        f"{name!r} ({counted(int(k), 'row')})"
        for name, k in zip(names, n, strict=False)
        if 0 < k < _LEAST_CLASS_ROWS
    ]
    if not few:
        return []
    return [
        f"Few {summary.split} rows of {joined_by_and(few)}: the {METRICS[summary.metric].label} "
        f"rests on them, and its intervals are too short to be believed (at least "
        f"{_LEAST_CLASS_ROWS} rows of each class are needed)."
    ]


def _caveats_of_looks(record: StudyRecord) -> list[str]:
    """How often the study was looked at, where that is counted."""
    looks = record.parsed("looks", looks_from_json)
    if looks is None:
        return []
    said = looks_in_words(looks)
    return [f"{said[:1].upper()}{said[1:]}."]


def _caveat_of_collapse(c: Collapse) -> str:
    which = ", ".join(f"{100 * a:.1f} with seed {s}" for s, a in sorted(c.broken.items()))
    return (
        f"{c.sentence} ({which}, {100 * c.best:.1f} with its best, percent accuracy on "
        "validation): its means are of two kinds of runs, so they are not judged. A lower learning "
        "rate usually mends it."
    )


def _caveats_of_choice(record: StudyRecord, summary: Summary) -> list[str]:
    caveats = []
    if summary.part == "eval" and summary.best is not None:
        key = f"test_{summary.metric}"
        reason = next((r.reasons[key] for r in record.done if key in r.reasons), "no reason kept")
        caveats.append(
            f"The test part was not scored ({reason}). The numbers are from validation, on which "
            "the methods were also chosen, and so they flatter."
        )
    elif summary.best is not None and _ahead_on_test(summary):
        caveats.append(_first_on_test(summary))
    return caveats


def _first_on_test(summary: Summary) -> str:
    """Another method has the highest mean on test: a tie, or what test is not allowed to choose."""
    best, first = str(summary.best), summary.rows[0].label
    pair = next((c for c in summary.against_best() if c.b == first), None)
    lead = f"{first} has the highest mean on test, {best} on validation"
    if pair is not None and summary.standing(pair) in {"within noise", "equivalent"}:
        return f"{lead}: as far as this study can tell, they are tied."
    return f"{lead}, where methods are chosen: test chooses nothing."


def _ahead_on_test(summary: Summary) -> bool:
    """Whether another method than the chosen one has the best mean on test, not only as good."""
    key = f"{summary.part}_{summary.metric}"
    first, own = (r.estimates.get(key) for r in (summary.rows[0], summary.row(str(summary.best))))
    return first is not None and own is not None and first.value != own.value


def _caveats_of_cost(record: StudyRecord) -> list[str]:
    """Times that were shared, or measured while other trials ran, are marked in every table."""
    caveats = []
    same = [r.spec.method.label for r in record.done if r.provenance.same_run_as]
    if same:
        which = joined_by_and(list(dict.fromkeys(same)))
        caveats.append(
            f"Nothing in {which} depends on the seed: what is shown for all seeds is one run, and "
            "its times and memory are of that one."
        )
    stacked = [r for r in record.done if r.provenance.stack]
    if stacked:
        which = (
            "All trials" if len(stacked) == len(record.done) else f"{len(stacked)} of the trials"
        )
        most = max(r.provenance.stack or 1 for r in stacked)
        caveats.append(
            f"{which} were trained in stacks, up to {most} in one pass: their training time is "
            "their share of it, their peak memory that of the whole stack (--stack off)."
        )
    beside = [r for r in record.done if r.provenance.measured_alone is False]
    if not beside:
        return caveats
    most = max(r.provenance.jobs or 1 for r in beside)
    which = "All trials" if len(beside) == len(record.done) else f"{len(beside)} of the trials"
    return [
        *caveats,
        f"{which} ran beside others, {most} at a time: their times and rates compare with each "
        "other, not with those of trials that ran alone (--jobs 1).",
    ]


def _caveats_of_mixture(record: StudyRecord) -> list[str]:
    """Trials of one study that were not computed alike: other machines, other number formats."""
    caveats = []
    machines = dict.fromkeys(filter(None, map(machine_of, record.done)))
    if len(machines) > 1:
        compared = comparable(record, "train_seconds")
        caveats.append(
            f"Trials ran on different machines ({'; '.join(machines)}): times, rates and memory "
            f"are those of {len(compared)} of {counted(len(record.done), 'trial')}, on "
            f"{machine_of(compared[0])}."
        )
    for label in record.methods:
        own = (r.details.trained.precision for r in record.done if r.spec.method.label == label)
        formats = sorted({p for p in own if p})
        if len(formats) > 1:
            caveats.append(
                f"{label} was trained in {joined_by_and(formats)}: its seeds differ by that too. "
                "Set precision to have one."
            )
    return caveats
