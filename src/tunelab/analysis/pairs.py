"""All pairs of a study's methods: a verdict, or what was seen where runs broke down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from tunelab.analysis.collapse import Collapse, without_broken
from tunelab.analysis.numbers import format_difference
from tunelab.analysis.reading import BOOTSTRAP_SEED, paired_by_seed
from tunelab.analysis.verdict import with_chance
from tunelab.core.values import Comparison
from tunelab.core.words import counted
from tunelab.stats import Runs, compare_all, difference
from tunelab.stats.looks import Look

__all__ = ["comparisons", "what_was_seen"]


def comparisons(
    runs: Mapping[str, Runs],
    labels: Sequence[str],
    metric: str,
    broke: Mapping[str, Collapse],
    look: Look | None = None,
) -> tuple[Comparison, ...]:
    """Every pair of `labels`, in their order; none where seeds were scored on other rows.

    `look`: the levels of one of several looks at the study, where they are counted.

    Methods with runs that broke down are judged with nobody: a mean of two kinds of runs says
    little of either, and its spread would widen what is said of the others.
    """
    if not paired_by_seed(runs):
        return ()
    known = [label for label in labels if label in runs]
    sound = [runs[label] for label in known if label not in broke]
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    levels = (look.better, look.equivalent) if look else (None, None)
    judged = compare_all(sound, metric, rng, alpha=levels[0], alpha_equivalent=levels[1])
    by_pair = {(c.a, c.b): replace(c, sentence=with_chance(c)) for c in judged}
    for a, b in combinations(known, 2):
        if a in broke or b in broke:
            seen = what_was_seen(runs[a], runs[b], metric, broke)
            by_pair |= {(a, b): seen} if seen else {}
    return tuple(by_pair[pair] for pair in combinations(known, 2) if pair in by_pair)


def what_was_seen(
    a: Runs, b: Runs, metric: str, broke: Mapping[str, Collapse]
) -> Comparison | None:
    """A pair with broken runs, compared by its others; None where that cannot be."""
    one, other = (without_broken(r, broke[r.label]) if r.label in broke else r for r in (a, b))
    try:
        d = difference(one, other, metric, np.random.default_rng(BOOTSTRAP_SEED))
    except ValueError:  # no seed is left that both have, or the metric has no value
        return None
    which = [broke[r.label] for r in (a, b) if r.label in broke]
    seen = "; ".join(f"{c.sentence} ({c.accuracies})" for c in which)
    sentence = (
        f"{seen}, so {'their means get' if len(which) > 1 else 'its mean gets'} no verdict; "
        f"{_of_the_rest(a, one)} against {_of_the_rest(b, other)}: "
        f"{format_difference(d, metric)}"
    )
    reason = "; ".join(c.sentence for c in which)
    return Comparison(a.label, b.label, metric, d, "undecided", None, None, reason, sentence)


def _of_the_rest(whole: Runs, rest: Runs) -> str:
    if len(rest.by_seed) == len(whole.by_seed):
        return whole.label
    return f"the other {counted(len(rest.by_seed), 'run')} of {whole.label}"
