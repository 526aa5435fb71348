"""How far methods vary over seeds: from earlier studies on this machine, or what is usual.

A help for planning and never a condition: a file that is damaged or cannot be written costs a
better guess, not a study.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core import cache
from tunelab.core.values import MethodSpec
from tunelab.methods import METHODS
from tunelab.methods.settings import TrainingSettings
from tunelab.stats import components

__all__ = [
    "USUAL_SEED_SD",
    "SeenSpread",
    "UsualSpread",
    "keep_spreads",
    "read_spreads",
    "spread_of_methods",
    "spread_over_seeds",
]


# FIELD: the standard deviation of accuracy over seeds of a fine-tuned model, 1,000 to 5,000
# training rows, no run broken down: 0.5 to 1 point. Mosbach et al. 2021, table 1, has 0.8 on MRPC
# (3,700 rows) with stable settings; Dodge et al. 2020 about 1 on it, and 0.3 on SST-2 (67,000).
USUAL_SEED_SD = 0.008

_LEAST_SEEDS = 3  # fewer say little of a spread
_LEAST_DF = 4  # nor does a single study of few seeds
_MOST_LINES = 500
_OF_PAIRS = ("disagreement", "shared")
_ROWS_ALIKE = 2.0  # in doublings: as many training rows, or up to four times more or fewer


@dataclass(frozen=True, slots=True)
class SeenSpread:
    """What a finished study showed of one method; `study` names it, so that it counts once.

    `rows` of training, rounded to a power of two; `sd` of its accuracy over seeds, on endless rows;
    `disagreement` with the study's other methods, a share of rows, and the part `shared` by all
    seeds.
    """

    study: str
    method: str
    family: str
    rows: int
    seeds: int
    sd: float
    disagreement: float
    shared: float


@dataclass(frozen=True, slots=True)
class UsualSpread:
    """How far a study's methods are taken to vary: `sd` of accuracy over seeds of those that do.

    `gap_variance` is that of one seed's difference, the mean over pairs. `studies`: how many on
    this machine it is from; 0 where it is what fine-tuning usually has. `disagreement` and its part
    `shared` by all seeds are from these studies too, None without any.
    """

    sd: float
    gap_variance: float
    studies: int
    disagreement: float | None = None
    shared: float | None = None


def spread_over_seeds(right: Sequence[NDArray[np.bool_]]) -> float:
    """Standard deviation of a method's accuracy over seeds on endless rows, from (n,) a seed."""
    return math.sqrt(components(np.stack(right).astype(float))[2])


def spread_of_methods(
    methods: Sequence[MethodSpec], family: str, rows: int, seen: Sequence[SeenSpread]
) -> UsualSpread:
    """What is known of methods that are to be trained on so many rows of a base's family.

    Each as it was in studies like this one; a method that trains by gradient, and of which too
    little is known, as fine-tuning usually is; all others not at all.
    """
    variances, used = [], []
    for m in methods:
        alike = [s for s in seen if _is_alike(s, m.name, family, rows)]
        df = sum(s.seeds - 1 for s in alike)
        if df >= _LEAST_DF:
            variances.append(sum((s.seeds - 1) * s.sd**2 for s in alike) / df)
            used += alike
        else:
            variances.append(USUAL_SEED_SD**2 if _trains_by_gradient(m.name) else 0.0)
    varying = [v for v in variances if v > 0]
    sd = math.sqrt(sum(varying) / len(varying)) if varying else 0.0
    # Each method is in as many pairs as any other.
    gap_variance = 2 * sum(variances) / len(variances)
    if not used:
        return UsualSpread(sd, gap_variance, 0)
    disagreement, shared = (float(np.mean([getattr(s, k) for s in used])) for k in _OF_PAIRS)
    return UsualSpread(sd, gap_variance, len({s.study for s in used}), disagreement, shared)


def _is_alike(s: SeenSpread, method: str, family: str, rows: int) -> bool:
    near = abs(math.log2(s.rows / max(1, rows))) <= _ROWS_ALIKE
    return s.method == method and s.family == family and near


def _trains_by_gradient(method: str) -> bool:
    return issubclass(METHODS[method].settings, TrainingSettings)


def _spreads_file() -> Path:
    return cache.machine_folder() / "spreads.jsonl"


def read_spreads() -> list[SeenSpread]:
    """What this machine has seen; lines that cannot be read are left out."""
    try:
        lines = _spreads_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [s for line in lines if (s := _spread_in(line)) is not None]


def _spread_in(line: str) -> SeenSpread | None:
    try:
        value: Any = json.loads(line)
        spread = SeenSpread(**value) if isinstance(value, dict) else None
    except (ValueError, TypeError):
        return None
    return spread if spread is not None and _is_sound(asdict(spread)) else None


def _is_sound(value: Mapping[str, Any]) -> bool:
    names = all(isinstance(value[k], str) for k in ("study", "method", "family"))
    counts = all(type(value[k]) is int and value[k] > 0 for k in ("rows", "seeds"))
    shares = (value[k] for k in ("sd", "disagreement", "shared"))
    return names and counts and all(isinstance(x, int | float) and 0 <= x <= 1 for x in shares)


def keep_spreads(spreads: Iterable[SeenSpread]) -> None:
    """Keep what a finished study showed, in the place of what it showed before."""
    new = [s for s in spreads if s.seeds >= _LEAST_SEEDS]
    if not new:
        return
    studies = {s.study for s in new}
    kept = [*(s for s in read_spreads() if s.study not in studies), *new][-_MOST_LINES:]
    text = "".join(f"{json.dumps(asdict(s))}\n" for s in kept)
    with suppress(OSError):
        cache.replace(_spreads_file(), text.encode())
