"""Equal tuning: every method tries equally many settings, judged on validation, all of it
recorded.

What a method may try is its space: a list of values, or a range, for each setting. Without a budget
the whole grid is tried; with one, Optuna proposes so many settings for each method. Values are
those of the study's main metric on the validation part; the test part plays no role.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, TypeGuard

from tunelab.core.values import TrialResult

__all__ = [
    "ChosenSettings",
    "FoldChoice",
    "TriedSetting",
    "Try",
    "TunedMethod",
    "TuningRecord",
    "average_by_setting",
    "choose_settings",
    "expected_best",
    "stop_below",
    "try_of",
    "tuning_from_json",
    "tuning_to_json",
    "validation_value",
]


# --- what was tried -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Try:
    """One try of one setting with one tuning seed: a row of tuning.json.

    `value` is the study's metric on validation, None where the try failed or the metric has none.
    `status`: "done", "pruned" (ended early) or "failed", then with its `error`.
    """

    settings: Mapping[str, object]
    seed: int
    trial_id: str
    status: str
    value: float | None
    epochs: float | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TriedSetting:
    """One setting, over its tuning seeds: `trials` are the ids of its tries by seed.

    `value` is the mean, None where a seed failed or was ended early: such a setting is not chosen.
    `status` is the worst of its tries.
    """

    settings: Mapping[str, object]
    value: float | None
    seeds: int
    status: str
    trials: Mapping[int, str]


class ChosenSettings(NamedTuple):
    """What a method is trained with, its mean value on validation, and why.

    Both are None where no try ended well.
    """

    settings: dict[str, object] | None
    value: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """What a method chose for one fold of a cross-fitted study, from the tries with these ids."""

    repetition: int
    fold: int
    chosen: Mapping[str, object]
    value: float | None
    reason: str
    trials: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TunedMethod:
    """What one method tried and chose. `space` as users write it, `start` its own settings.

    Where all rows are tested in folds, each fold chooses for itself (`folds`), and `chosen` is what
    all of them together choose, for the classifier that is trained on all rows.
    """

    space: Mapping[str, object]
    start: Mapping[str, object]
    chosen: Mapping[str, object]
    value: float | None
    reason: str
    tries: tuple[Try, ...]
    folds: tuple[FoldChoice, ...] = ()


@dataclass(frozen=True, slots=True)
class TuningRecord:
    """What tuning.json holds: how was searched, and each method's tries and choice by its label."""

    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]
    search: str
    budget: int | None
    methods: Mapping[str, TunedMethod]


def tuning_from_json(value: Mapping[str, Any]) -> TuningRecord:
    """Read the content of tuning.json; what older files lack is left empty."""
    return TuningRecord(
        metric=value["metric"],
        higher_is_better=value.get("higher_is_better", True),
        seeds=tuple(value.get("seeds", ())),
        search=value.get("search", ""),
        budget=value.get("budget"),
        methods={label: _tuned_method(entry) for label, entry in value["methods"].items()},
    )


def _tuned_method(entry: Mapping[str, Any]) -> TunedMethod:
    return TunedMethod(
        space=entry.get("space") or {},
        start=entry.get("start") or {},
        chosen=entry.get("chosen") or {},
        value=entry.get("value"),
        reason=entry.get("reason") or "",
        tries=tuple(
            Try(**{f.name: row.get(f.name) for f in fields(Try)}) for row in entry["tries"]
        ),
        folds=tuple(
            FoldChoice(**{**f, "trials": tuple(f["trials"])}) for f in entry.get("folds", ())
        ),
    )


def tuning_to_json(record: TuningRecord) -> dict[str, object]:
    """The content of tuning.json."""
    value = asdict(record)
    for entry in value["methods"].values():
        if not entry["folds"]:
            del entry["folds"]
    return value


def validation_value(result: TrialResult, metric: str) -> float | None:
    """A try's value on validation; None where it failed or the metric has none."""
    return result.scores.get(f"eval_{metric}") if result.status == "done" else None


def try_of(settings: Mapping[str, object], result: TrialResult, metric: str) -> Try:
    """What was tried and what came of it."""
    ended = "pruned" if result.details.pruned else "done"
    status = "failed" if result.status == "failed" else ended
    return Try(
        settings=dict(settings),
        seed=result.spec.seed,
        trial_id=result.spec.trial_id,
        status=status,
        value=validation_value(result, metric),
        epochs=result.details.trained.epochs,
        seconds=result.provenance.seconds,
        error=result.error,
    )


def average_by_setting(tries: Iterable[Try]) -> list[TriedSetting]:
    """Average a method's tries over the tuning seeds, in the order in which they were made."""
    groups: dict[str, list[Try]] = {}
    for t in tries:
        groups.setdefault(repr(sorted(t.settings.items())), []).append(t)
    out = []
    for group in groups.values():
        worst = max((t.status for t in group), key=("done", "pruned", "failed").index)
        values = [t.value for t in group if t.value is not None]
        whole = worst == "done" and len(values) == len(group)
        out.append(
            TriedSetting(
                settings=dict(group[0].settings),
                value=statistics.fmean(values) if whole else None,
                seeds=len(group),
                status=worst,
                trials={t.seed: t.trial_id for t in group},
            )
        )
    return out


def choose_settings(
    tries: Sequence[Try],
    start: Mapping[str, object],
    higher_is_better: bool,
    error: Callable[[Mapping[int, str], Mapping[int, str]], float | None] = lambda *_: 0.0,
) -> ChosenSettings:
    """What a method is trained with.

    Of the settings that validation does not tell from the best, the one nearest to where the method
    starts, its recommended settings: a lead of less than one standard error is as likely luck, and
    the settings furthest out are those that break down with another seed (the one-standard-error
    rule, Breiman et al. 1984, section 3.4.3). `error(a, b)` is that of the difference between two
    settings, given the ids of their tries by seed; None where it is unknown: then the best is
    taken.
    """
    known = [
        (s.value, s)
        for s in average_by_setting(tries)
        if s.value is not None and math.isfinite(s.value)
    ]
    if not known:
        return ChosenSettings(None, None, "no try ended well: the recommended settings are used")
    sign = 1 if higher_is_better else -1

    def far(s: TriedSetting) -> float:
        return _distance(s.settings, start)

    top, best = max(known, key=lambda vs: (sign * vs[0], -far(vs[1])))
    equals = sum(value == top for value, _ in known)
    why = f"best of {len(known)} on validation"
    if equals > 1:
        why = (
            f"one of {equals} equally good of {len(known)} on validation, the nearest to the start"
        )
    nearer = ((value, s) for value, s in known if far(s) < far(best))
    for value, s in sorted(nearer, key=lambda vs: far(vs[1])):
        lead, one = sign * (top - value), error(best.trials, s.trials)
        if one is None:
            return ChosenSettings(
                dict(best.settings), top, f"{why}; by how much in errors is unknown"
            )
        if lead <= one:
            why = (
                f"nearer to the start than the best of {len(known)} on validation, which leads by "
                f"{lead:.2g} where one standard error is {one:.2g}"
            )
            return ChosenSettings(dict(s.settings), value, why)
    return ChosenSettings(dict(best.settings), top, why)


def _distance(settings: Mapping[str, object], start: Mapping[str, object]) -> float:
    """How far from the start: ratios for positive numbers, one for any other difference."""
    total = 0.0
    for name, value in settings.items():
        first = start.get(name)
        if _is_positive(value) and _is_positive(first):
            total += abs(math.log(value / first))
        else:
            total += float(value != first)
    return total


def _is_positive(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and value > 0


def expected_best(
    values: Sequence[float], *, higher_is_better: bool = True, replace: bool = True
) -> list[float]:
    """Expected validation score of the best of n = 1, 2, ..., B tries, from B tries that were made.

    With v_1 <= ... <= v_B, n tries drawn from them with replacement have as the expected best
    sum_i v_i ((i / B)^n - ((i - 1) / B)^n): Dodge et al. 2019, "Show Your Work", arXiv:1909.03004.
    Without replacement (`replace=False`) the weights are C(i - 1, n - 1) / C(B, n), which is
    unbiased, as that is not (Tang et al. 2020, arXiv:2004.13705). Empty without tries.
    """
    size = len(values)
    ordered = sorted(values, reverse=not higher_is_better)
    out = []
    for n in range(1, size + 1):
        if replace:
            weights = [(i / size) ** n - ((i - 1) / size) ** n for i in range(1, size + 1)]
        else:
            weights = [math.comb(i - 1, n - 1) / math.comb(size, n) for i in range(1, size + 1)]
        out.append(math.fsum(w * v for w, v in zip(weights, ordered, strict=True)))
    return out


# --- search ---------------------------------------------------------------------------------


def stop_below(
    histories: Iterable[Sequence[Mapping[str, float]]], metric: str, least: int = 3
) -> dict[str, float]:
    """After each epoch, the validation score below which a try is ended: the median before it.

    The median stopping rule (Golovin et al. 2017, "Google Vizier"): a try is compared, by its best
    score so far, with the tries that reached the same epoch; with fewer than `least` of them none
    is ended. Keys are epochs as text, as JSON has them. For metrics where higher is better.
    """
    reached: dict[int, list[float]] = {}
    for history in histories:
        best = -math.inf
        for row in history:
            value = row.get(f"eval_{metric}")
            if value is not None:
                best = max(best, float(value))
                reached.setdefault(round(float(row["epoch"])), []).append(best)
    return {
        str(epoch): statistics.median(values)
        for epoch, values in sorted(reached.items())
        if len(values) >= least
    }
