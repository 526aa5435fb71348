"""Claims about calibration: how often "not calibrated" is false, what the error's interval holds.

A row has its own chances of the classes (Dirichlet). A seed sees draws from them, most of which all
seeds see, and states the posterior mean: that is calibrated exactly, for every seed, without any
noise being normal. Others state it at another temperature, or are too sure in one region of
confidence. The true error is counted on 300,000 rows of the same world (ten bins, as everywhere).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from _claims import Claim, Goal, at_most, between, share_of
from _quickly import verdicts_alone
from tunelab.core.values import Predictions
from tunelab.stats import Runs, compare_all, reliability
from tunelab.stats.calibration import at_temperatures, fit_temperatures
from tunelab.stats.reliability import calibration_error, miscalibration

__all__ = ["claims"]

SAID = "calibration"
HELD = "the interval of the calibration error holds the truth"
OFF = '"not calibrated" is said of a calibrated method'
SEEN = '"not calibrated" is said of a method that is not'
DRAWS = 300  # of labels, for each study; real studies draw 1,000
SHARED, OWN = 60, 20  # draws from a row's chances that all seeds see, and that one sees
TRUTH_ROWS = 20_000
# By classes and accuracy: how sure rows are (each class's Dirichlet parameter).
SURE = {
    (2, 0.6): 8.0,
    (2, 0.75): 1.0,
    (2, 0.85): 0.4,
    (2, 0.95): 0.1,
    (2, 0.98): 0.036,
    (6, 0.6): 0.25,
    (6, 0.85): 0.06,
    (6, 0.95): 0.018,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How a method states its probabilities: at a `temperature` (below 1: too sure), which differs
    over seeds by a factor of `spread` (standard deviation of its logarithm), or too sure by
    `region` where it is 75 to 95% sure.
    """

    temperature: float = 1.0
    spread: float = 0.0
    region: float = 0.0

    def __str__(self) -> str:
        if self.region:
            return f"too sure by {100 * self.region:g} points where 75 to 95% sure"
        if self.temperature == 1 and not self.spread:
            return "calibrated"
        apart = f", seeds {100 * self.spread:g}% apart" if self.spread else ""
        return f"temperature {self.temperature:g}{apart}"


Cell = tuple[Kind, int, float, int, int]  # kind, classes, accuracy, rows, seeds
CALIBRATED = Kind()
CELLS: tuple[Cell, ...] = (
    (CALIBRATED, 2, 0.75, 300, 1),
    (CALIBRATED, 2, 0.60, 1000, 3),
    (CALIBRATED, 2, 0.85, 150, 6),
    (CALIBRATED, 2, 0.95, 300, 10),
    (CALIBRATED, 2, 0.98, 1000, 3),
    (CALIBRATED, 6, 0.60, 300, 3),
    (CALIBRATED, 6, 0.85, 1000, 6),
    (CALIBRATED, 6, 0.95, 5000, 3),
    (Kind(0.85), 2, 0.85, 300, 3),
    (Kind(0.85), 2, 0.75, 1000, 10),
    (Kind(0.7), 2, 0.95, 1000, 3),
    (Kind(0.5), 2, 0.75, 150, 1),
    (Kind(0.5), 2, 0.85, 300, 6),
    (Kind(0.5), 6, 0.60, 1000, 3),
    (Kind(0.5), 6, 0.85, 5000, 3),
    (Kind(1.5), 2, 0.85, 1000, 3),
    (Kind(3.0), 2, 0.75, 150, 3),
    (Kind(3.0), 6, 0.85, 300, 10),
    (Kind(0.7, spread=0.1), 2, 0.85, 1000, 6),
    (Kind(1.5, spread=0.1), 2, 0.75, 300, 10),
    (Kind(0.7, spread=0.2), 6, 0.85, 1000, 3),
    (Kind(region=0.04), 2, 0.75, 1000, 6),
    (Kind(region=0.04), 2, 0.85, 5000, 3),
    (Kind(region=0.04), 6, 0.95, 300, 3),
)


def claims(studies: int) -> Iterator[Claim]:
    """Every claim, from so many studies a cell; a quarter of them of 5,000 rows."""
    before = reliability.LABEL_DRAWS
    reliability.LABEL_DRAWS = DRAWS
    try:
        for cell in CELLS:
            yield from _claims_of(cell, studies)
        with verdicts_alone():
            yield from _better(studies)
    finally:
        reliability.LABEL_DRAWS = before


@dataclass(frozen=True, slots=True)
class Sight:
    """How methods see a row's true logits: with noise of their own, `heavy` tailed (t, 3 degrees of
    freedom) or normal; a share of labels is `wrong`. `other`: the second method's noise, 1 the
    first's; all are too sure, each seed by a factor of its own between 1 and 3.
    """

    other: float
    heavy: bool
    wrong: float
    classes: int = 2

    def __str__(self) -> str:
        tails = "heavy-tailed" if self.heavy else "normal"
        return (
            f"{self.classes} classes, {tails} noise, {100 * self.wrong:g}% of labels wrong, "
            "6 seeds, 600 test and 300 validation rows"
        )


SIGHTS = (
    Sight(1.0, heavy=True, wrong=0.03),
    Sight(1.0, heavy=False, wrong=0.0),
    Sight(1.0, heavy=True, wrong=0.0, classes=6),
    Sight(1.5, heavy=True, wrong=0.03),
    Sight(1.5, heavy=False, wrong=0.0),
    Sight(1.3, heavy=True, wrong=0.0, classes=6),
)


def _better(studies: int) -> Iterator[Claim]:
    """How often one is said to have the better probabilities: Brier score and log loss."""
    for sight in SIGHTS:
        equal = sight.other == 1.0
        said: dict[str, list[bool]] = {"brier": [], "log_loss": []}
        for study in range(studies):
            both = _scaled_pair(sight, np.random.default_rng([study, sight.classes]))
            for metric, hits in said.items():
                (c,) = compare_all(both, metric, np.random.default_rng(0), resamples=200)
                hits.append(c.verdict in ("better", "worse") if equal else c.verdict == "better")
        for metric, hits in said.items():
            what = "two equals" if equal else "the better of two"
            claim = f'"better" is said of the probabilities of {what} ({metric})'
            yield share_of(claim, SAID, str(sight), hits, at_most(0.05) if equal else Goal(0, 1))


def _scaled_pair(sight: Sight, rng: np.random.Generator) -> list[Runs]:
    """Two methods on the same test rows, after temperatures fitted on the same validation rows."""
    rows, held_out, k = 900, 300, sight.classes
    truth = 2.5 * rng.normal(size=(rows, k))
    labels = (truth + rng.gumbel(size=(rows, k))).argmax(axis=1)
    labels = np.where(rng.random(rows) < sight.wrong, rng.integers(0, k, rows), labels)
    ids = tuple(map(str, range(rows)))
    out = []
    for name, noise in (("a", 1.0), ("b", sight.other)):
        own = rng.standard_t(3, (rows, k)) if sight.heavy else rng.normal(size=(rows, k))
        parts: tuple[dict[int, Predictions], dict[int, Predictions]] = ({}, {})
        for seed in range(6):
            seen = truth + noise * (own + 0.4 * rng.normal(size=(rows, k)))
            logits = seen * rng.uniform(1, 3)
            for part, some in zip(parts, (slice(0, held_out), slice(held_out, None)), strict=True):
                part[seed] = Predictions(ids[some], labels[some], logits[some], "logit")
        temperatures = fit_temperatures(parts[0], parts[1])
        out.append(at_temperatures(Runs(name, parts[1]), temperatures))
    return out


def _claims_of(cell_of: Cell, studies: int) -> Iterator[Claim]:
    kind, classes, accuracy, rows, seeds = cell_of
    truth = 0.0 if kind == CALIBRATED else _true_error(kind, classes, accuracy)
    held, said, unjudged, from_zero = [], [], 0, 0
    for study in range(studies if rows < 5000 else max(studies // 4, 50)):
        rng = np.random.default_rng([study, rows, seeds, classes])
        found = miscalibration(_draw(kind, SURE[classes, accuracy], classes, (seeds, rows), rng))
        e = found.error
        if e.low is None or e.high is None:
            unjudged += 1
            continue
        from_zero += e.low == 0.0
        held.append(e.low - 1e-9 <= truth <= e.high + 1e-9)
        said.append(found.shown)
    cell = (
        f"{kind}, {classes} classes, {100 * accuracy:g}% right, {rows:,} rows, "
        f"{seeds} seed{'s' * (seeds > 1)}"
    )
    cell += f" (not judged: {unjudged})" if unjudged else ""
    if kind == CALIBRATED:  # nothing lies below 0, so one side alone can fail: 97.5% or more
        yield share_of(HELD, SAID, cell, held, between(0.93, 1.0))
        yield share_of(OFF, SAID, cell, said, at_most(0.05))
        return
    off = f", in truth off by {100 * truth:.1f} points"
    # Where most intervals begin at 0, one side alone can fail here too.
    one_sided = from_zero > len(held) / 2
    yield share_of(HELD, SAID, cell + off, held, between(0.93, 1.0 if one_sided else 0.97))
    yield share_of(SEEN, SAID, cell + off, said, Goal(0.0, 1.0))


def _true_error(kind: Kind, classes: int, accuracy: float) -> float:
    """Root mean square over seeds, on endless rows."""
    rng = np.random.default_rng(1)
    draws = 60 if kind.spread else 15
    squares = [
        calibration_error(p) ** 2
        for _ in range(draws)
        for p in _draw(kind, SURE[classes, accuracy], classes, (1, TRUTH_ROWS), rng)
    ]
    return float(np.sqrt(np.mean(squares)))


def _draw(
    kind: Kind, sure: float, classes: int, size: tuple[int, int], rng: np.random.Generator
) -> list[Predictions]:
    """One method's seeds on the same rows."""
    seeds, rows = size
    chances = rng.dirichlet(np.full(classes, sure), rows)
    labels = (chances.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    ids = tuple(map(str, range(rows)))
    shared = rng.multinomial(SHARED, chances)
    out = []
    for _ in range(seeds):
        seen = shared + rng.multinomial(OWN, chances)
        stated = (sure + seen) / (classes * sure + SHARED + OWN)
        logits = np.log(stated) / (kind.temperature * np.exp(kind.spread * rng.normal()))
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        if kind.region:
            top = p.max(axis=1)
            raised = np.where((top > 0.75) & (top < 0.95), top + kind.region, top)
            first = p.argmax(axis=1)[:, None] == np.arange(classes)
            others = p * ((1 - raised) / np.maximum(1 - top, 1e-12))[:, None]
            p = np.where(first, raised[:, None], others)
        out.append(Predictions(ids, labels, p, "probability"))
    return out
