"""A study's folder -> what may be said of it. Door: `summarise` -> `Summary`.

numbers markdown   rounding and wording of every figure; users' texts in Markdown
summary verdict folds   table, comparisons and sentences; how often rows are tested
front tradeoff sensitivity setting_effects ranks curves transfer versus behaviour   a question each

May import: core, data, stats. Never reaches torch.
"""

from __future__ import annotations

from tunelab.analysis.summary import summarise
from tunelab.analysis.verdict import Summary

__all__ = ["Summary", "summarise"]
