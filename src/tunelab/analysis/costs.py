"""Costs in words and in comparison: means over runs, ratios paired by seed, which of them are sure.

A cost gets an interval from six runs on, as a verdict does; of fewer its smallest and largest value
are told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunelab.analysis.numbers import column, format_value
from tunelab.analysis.reading import values_by_seed
from tunelab.analysis.verdict import Summary
from tunelab.core.errors import ConfigError, suggest
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.core.words import counted
from tunelab.stats import LEAST_SEEDS, LEVEL, mean_interval

__all__ = [
    "COSTS",
    "check_cost",
    "cost_estimate",
    "gains",
    "is_sure",
    "noun",
    "ratio",
    "ratio_of",
    "sign",
    "surely_cheaper",
]

# Cost -> how a smaller one is said ("2.1x faster to train"), and a larger one.
_WORDS: dict[str, tuple[str, str]] = {
    "train_seconds": ("faster to train", "slower to train"),
    "peak_memory_bytes": ("less memory to train", "more memory to train"),
    "artifact_bytes": ("smaller to ship", "larger to ship"),
    "texts_per_second": ("more texts a second", "fewer texts a second"),
    "latency_p50_seconds": ("faster on one text", "slower on one text"),
    "latency_p95_seconds": ("faster on slow texts", "slower on slow texts"),
    "price_per_1000_texts": ("cheaper to ask", "dearer to ask"),
    "adapter_parameters": ("fewer adapter parameters", "more adapter parameters"),
    "head_parameters": ("fewer parameters in the head", "more in the head"),
    "trainable_parameters": ("fewer trained parameters", "more trained parameters"),
    "total_parameters": ("fewer parameters", "more parameters"),
}
COSTS = tuple(_WORDS)


def check_cost(name: str) -> str:
    """A cost by its name. Raises ConfigError for another."""
    if name not in COSTS:
        raise ConfigError(f"Unknown cost {name!r}.{suggest(name, COSTS, what='Costs')}")
    return name


def noun(cost: str) -> str:
    """A cost within a sentence, where its heading in a table would not read as one."""
    named = {"train_seconds": "training time", "artifact_bytes": "size on disk"}
    return named.get(cost, column(cost).heading.lower())


def sign(cost: str) -> float:
    """Costs are bad, but for throughput."""
    return -1.0 if cost == "texts_per_second" else 1.0


def cost_estimate(values: Sequence[float]) -> Estimate:
    """The mean of a cost over runs: with Student's interval of six or more, of fewer their range.

    Raises ValueError as `mean_interval` does.
    """
    return _of_runs([float(v) for v in values], signed=False)


def _of_runs(values: Sequence[float], *, signed: bool, level: float = LEVEL) -> Estimate:
    e = mean_interval(values, level, signed=signed)
    if e.n >= LEAST_SEEDS or e.low is None or e.low == e.high:
        return e
    few = f"mean of {e.n} runs, too few for an interval: the smallest and the largest"
    return Estimate(e.value, min(values), max(values), e.n, few, is_range=True)


def ratio(record: StudyRecord, a: str, b: str, cost: str) -> Estimate | None:
    """`ratio_of` a study's costs of two methods. Raises ConfigError for an unknown cost."""
    of = values_by_seed(record, check_cost(cost))
    one, other = of.get(a, {}), of.get(b, {})
    seeds = [s for s in one if s in other]
    return ratio_of([one[s] for s in seeds], [other[s] for s in seeds])


def ratio_of(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """Geometric mean of a / b, paired by seed, with Student's t interval of its logarithm.

    Of fewer than six pairs, their smallest and largest ratio. None where there is no pair or a
    value is not above zero. Unitless: 2.0 is twice the cost.
    """
    if not a or min(a) <= 0 or min(b) <= 0:
        return None
    logs = [math.log(x / y) for x, y in zip(a, b, strict=True)]
    e = _of_runs(logs, signed=True, level=level)
    low, high = (None if x is None else math.exp(x) for x in (e.low, e.high))
    procedure = f"ratio of costs paired by seed; {e.procedure}"
    return Estimate(math.exp(e.value), low, high, e.n, procedure, e.is_range)


def is_sure(ratio: Estimate) -> bool:
    """Whether two costs surely differ: an interval of six or more runs without 1, or no spread."""
    if ratio.low is None or ratio.high is None:
        return False
    return (not ratio.is_range or ratio.low == ratio.high) and not ratio.low <= 1 <= ratio.high


def surely_cheaper(
    a: Mapping[int, float], b: Mapping[int, float], cost: str, level: float = LEVEL
) -> bool:
    """Whether the first method's cost, by seed, is surely the smaller: where it varies, by the
    interval of the ratio of six or more runs; where it does not, with every one of two or more.
    """
    seeds = [s for s in a if s in b]
    one, other = [a[s] for s in seeds], [b[s] for s in seeds]
    if len(seeds) < 2:
        return False
    if len(set(one)) == 1 and len(set(other)) == 1:
        return sign(cost) * one[0] < sign(cost) * other[0]
    times = ratio_of(one, other, level)
    return times is not None and is_sure(times) and (times.value < 1) == (sign(cost) > 0)


def gains(
    record: StudyRecord, said: Summary, pair: tuple[str, str], costs: Sequence[str]
) -> tuple[list[str], list[str]]:
    """In which costs the first method is better, and in which worse, in words.

    Only what differs by a tenth or more, and with every run alike where they are too few to be
    sure; that is said then.
    """
    better: list[str] = []
    worse: list[str] = []
    for cost in dict.fromkeys(costs):
        mine, theirs = (said.row(label).estimates.get(cost) for label in pair)
        times = ratio(record, *pair, cost)
        if mine is None or theirs is None or times is None or _either_way(times):
            continue
        factor = times.value if sign(cost) < 0 else 1 / times.value
        if 1 / 1.1 < factor < 1.1:
            continue
        values = " against ".join(format_value(e.value, column(cost)) for e in (mine, theirs))
        few = "" if is_sure(times) else f", in {counted(times.n, 'run')}"
        word = _WORDS[cost][factor < 1]
        said_of = f"{max(factor, 1 / factor):.1f}x {word} ({values}{few})"
        (better if factor > 1 else worse).append(said_of)
    return better, worse


def _either_way(ratio: Estimate) -> bool:
    """Whether the two costs may as well be the other way round."""
    return ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high
