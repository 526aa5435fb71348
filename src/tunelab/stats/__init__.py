"""Predictions -> scores, intervals, verdicts. `docs/statistics.md` explains the rules.

Door: `Runs` in, `compare_all`, `difference`, `mean` and their kin out.

metrics predictions threshold_curves   scores of one set of predictions, a row each in `METRICS`
crossed       the one place that splits a variance over seeds and rows
losses        what a cheaper method surely loses
reliability   calibration error without bias, its interval and band
shares        intervals of accuracies and failure rates, near 0 and 100% too
selection     what the method chosen on validation truly scores on test
slices calibration racing looks choosing abstention mixing acquisition   one question each

May import: core. Never reaches torch.
"""

from __future__ import annotations

from tunelab.stats.crossed import LEVEL, components
from tunelab.stats.intervals import (
    difference,
    mean,
    mean_draws,
    mean_interval,
    means,
    standard_error,
)
from tunelab.stats.losses import Loss, losses
from tunelab.stats.power import detectable_difference, least_seeds, rows_needed, seeds_needed
from tunelab.stats.resampling import LEAST_SEEDS, Runs
from tunelab.stats.tests import holm, mcnemar, sign_flip, sign_flip_of_groups
from tunelab.stats.verdicts import compare, compare_all, decimals

__all__ = [
    "Loss",
    "Runs",
    "compare",
    "compare_all",
    "components",
    "decimals",
    "detectable_difference",
    "difference",
    "holm",
    "least_seeds",
    "losses",
    "mcnemar",
    "mean",
    "mean_draws",
    "mean_interval",
    "means",
    "rows_needed",
    "seeds_needed",
    "sign_flip",
    "sign_flip_of_groups",
    "standard_error",
    "LEAST_SEEDS",
    "LEVEL",
]
