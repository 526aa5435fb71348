"""What is said before trials run: on what rows, which, for how long, and what they can find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.analysis import text_limits
from tunelab.analysis.numbers import format_seconds
from tunelab.core.values import Dataset
from tunelab.core.words import as_one, counted, rows_word, short
from tunelab.data.gate import values as gate_values
from tunelab.stats.metrics import METRICS
from tunelab.study import final, folding, foresight, trackers
from tunelab.study.affording import affordable
from tunelab.study.planning import Plan
from tunelab.study.progress import Progress
from tunelab.study.schedule import Schedule
from tunelab.study.to_come import to_come

__all__ = ["Announced", "announced", "how_long"]


@dataclass(frozen=True, slots=True)
class Announced:
    """Lines about one thing, such as the data; `head` names it."""

    head: str
    lines: tuple[str, ...]


def announced(schedule: Schedule) -> list[Announced]:
    """What will run, on what, and about how long it takes."""
    plan, spec, d = schedule.plan, schedule.plan.spec, schedule.plan.dataset
    rows = " / ".join(f"{len(s):,}" for s in d.parts.values())
    parts = f"{rows} rows (train / validation / test{'; the first fold' if spec.parts else ''})"
    noun = "label" if d.task == "multilabel" else "class"
    classes = f"{counted(len(d.label_names), noun)}: {_first_few(d.label_names)}"
    methods = ", ".join(as_one(m.label) for m in spec.methods)
    said: list[tuple[str, list[str]]] = [
        (
            "Data",
            [
                f"{d.name}: {parts}, {classes}",
                *d.notes,
                *_duplicate_lines(d),
                *gate_values.lines(plan.gate),
            ],
        ),
        ("Folds", [folding.in_words(spec, plan.whole, plan.dataset)] if spec.parts else []),
        ("Model", [f"{plan.base.ref.name} ({plan.base.model_type})"] if plan.base else []),
        (
            "Methods",
            [f"{methods}; seeds {_first_few(spec.seeds)}", *spec.notes, *schedule.notes],
        ),
        *(("Tuning", [line]) for line in _tuning_lines(schedule.progress)),
        *(("Texts", [line]) for line in _lines_of_limits(plan)),
        *(
            ("Test on", [f"{other.name}: {rows_word(len(other.split))}", *other.notes])
            for other in plan.others
        ),
        ("Trials", [_what_is_to_run(schedule), *([schedule.why] if schedule.why else [])]),
        ("Budget", _lines_of_budget(schedule)),
        ("Finds", [_finds(schedule.progress)]),
        ("Folder", [str(spec.output_dir)]),
        *(("Reports", [f"to {x}"]) for x in trackers.where(spec.report_to, spec.output_dir)),
    ]
    return [Announced(head, tuple(lines)) for head, lines in said if lines]


def _lines_of_limits(plan: Plan) -> list[str]:
    """How much of the texts each method reads, and what a longer limit costs."""
    return text_limits.lines_of_limits(plan.lengths, text_limits.labels_by_limit(plan.spec.methods))


def _what_is_to_run(schedule: Schedule) -> str:
    """How many trials, of which kinds, and about how long they take."""
    progress, spec = schedule.progress, schedule.plan.spec
    count = to_come(progress)
    number = f"{count.least}" if count.least == count.most else f"{count.least} to {count.most}"
    if spec.race and count.most:
        number = f"at most {count.most}"
    parts = [f"{count.tries} of them to tune"] if count.tries else []
    if count.least < count.most and not spec.race:
        parts += ["fewer where tuning chooses what was trained before"]
    parts += [f"{count.on_fewer_rows} on fewer rows"] if count.on_fewer_rows else []
    parts += [f"{count.done} already done"] if count.done else []
    if count.copies:
        parts.append(f"{count.copies} that a run with another seed serves too")
    whole = "then the recommended method on all rows"
    parts += [whole] if spec.parts and (count.most or final.is_to_come(schedule.plan)) else []
    takes = f": {how_long(schedule)}" if count.most else ""
    return f"{', '.join([f'{number} to run', *parts])}{takes}"


# An estimate that may be further off than by so many times is said as a range.
_SURE = 2.0


def how_long(schedule: Schedule) -> str:
    """How long a schedule takes: about so long, or a range where little is known."""
    seconds, (least, most) = schedule.total_seconds, schedule.total_range
    if max(most / seconds, seconds / least) <= _SURE:
        return f"about {format_seconds(seconds)}"
    return f"between {format_seconds(least)} and {format_seconds(most)}"


def _lines_of_budget(schedule: Schedule) -> list[str]:
    """Which methods the time is expected to suffice for."""
    budget = schedule.plan.spec.budget
    if budget is None or not schedule.seconds:
        return []
    within = affordable(schedule, budget)
    beyond = [m.label for m in schedule.progress.methods if m.label not in within]
    no_time = f"; no time is expected for {', '.join(beyond)}" if beyond else ""
    return [
        f"{format_seconds(budget)}: the cheapest first, {within[0]} in any case; expected to be "
        f"compared: {', '.join(within)}{no_time}"
    ]


def _tuning_lines(progress: Progress) -> list[str]:
    """What each method tries, or what was chosen for it."""
    spec, t = progress.plan.spec, progress.plan.spec.tuning
    if not t.spaces and not any("learning_rate" in m.settings for m in progress.methods):
        return ["none has a learning rate; an SVM chooses its C on validation in each trial"]
    if not t.spaces:
        return ["off: every method is trained with the settings given"]
    start = {m.label: m.settings for m in spec.methods}
    still_tuned = {x.method.label for x in progress.tries} | set(progress.proposals)
    lines = []
    for m in progress.methods:
        if m.label not in t.spaces:
            continue
        names = ", ".join(t.spaces[m.label])
        if m.label in still_tuned:
            many = t.tries(m.label)
            each = f" in each of {len(folding.folds_of(spec))} folds" if spec.parts else ""
            judged_by = f"by {METRICS[spec.metric].label} on validation"
            lines.append(f"{m.label}: {counted(many, 'setting')} of {names}{each}, {judged_by}")
        else:
            now = ", ".join(f"{k} = {m.settings[k]}" for k in t.spaces[m.label])
            same = all(m.settings[k] == start[m.label][k] for k in t.spaces[m.label])
            by = " by all folds together; each has its own" if spec.parts else ""
            lines.append(f"{m.label}: {now} (chosen{by}{', as recommended' if same else ''})")
    return lines


def _finds(progress: Progress) -> str:
    """The smallest difference that this study could find."""
    power = foresight.power(progress)
    machine = f"as in {power.studies} stud{'y' if power.studies == 1 else 'ies'} on this machine"
    why = {
        "stated": "as stated",
        "usual": "the usual; --disagreement states another",
        "trials that are done": "as in the trials that are done",
        "studies on this machine": machine,
    }[power.source]
    spread = {
        "usual": "as fine-tuning usually has",
        "trials that are done": "as in the trials that are done",
        "studies on this machine": machine,
    }[power.spread_source]
    moving = f"; assuming a seed spread of {100 * power.method_sd:.1f} points, {spread}"
    few = ""
    if power.seeds < power.least_seeds:
        few = f"; with fewer than {power.least_seeds} seeds no method is called better"
    same = f", {100 * power.shared:.0f}% of it with every seed" if power.shared < 1 else ""
    pairs = math.comb(len(progress.plan.spec.methods), 2)
    among = f", {100 * power.among:.1f} for the first of {pairs} pairs" if pairs > 1 else ""
    size = f"{100 * power.difference:.1f} points of {_metric_in_words(progress)}"
    return (
        f"differences of {size} and more, 4 times of 5"
        f"{among} ({power.rows:,} test rows, {100 * power.disagreement:.0f}% disagreement{same}, "
        f"{why}{moving if power.method_sd else ''}){few}"
    )


def _metric_in_words(progress: Progress) -> str:
    """What the planned difference is of: shares of right answers stand in for another metric."""
    metric = METRICS[progress.plan.spec.metric]
    if metric.name == "accuracy":
        return metric.label
    if metric.percent:
        return f"{metric.label} (about, as of accuracy)"
    return f"accuracy (for {metric.label} none is known before)"


def _first_few(values: Sequence[object], most: int = 8) -> str:
    words = [short(" ".join(str(v).split()), 60) for v in values[:most]]
    shown = ", ".join(map(as_one, words))
    return shown + (f", ... ({len(values)} in all)" if len(values) > most else "")


def _duplicate_lines(d: Dataset) -> list[str]:
    parts = [f"{n} within {k}" for k, n in d.duplicates.within.items() if n]
    parts += [f"{n} in both of {k}" for k, n in d.duplicates.across.items() if n]
    out = [f"exact duplicates: {', '.join(parts) or 'none'}"]
    if d.duplicates.conflicting:
        out.append(f"texts with more than one label: {d.duplicates.conflicting}")
    return out
