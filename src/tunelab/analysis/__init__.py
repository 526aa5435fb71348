"""A study's folder -> what may be said of it. Door: `summarise` -> `Summary`.

numbers markdown costs   rounding and wording of every figure; users' texts in Markdown; costs
reading collapse   what the trials gave, and which runs broke down
summary verdict answer   table and comparisons, the values said of them, the first line
folds             how often each row is tested; what is trained on all of them
opened            a study's folder with what is said of it, computed once
explanations      which words moved the best classifier's mistakes
predicted         what each trial says of each text; rows under the names that users know
winners_forms     the best classifier in other forms: size, speed, verdict
confidence        how sure classifiers say they are, and how often they are right
pair_tests        fixed classifiers, two by two
text_limits       how many texts a limit in tokens cuts, and what a longer one costs
front tradeoff sensitivity setting_effects ranks curves transfer versus behaviour doubtful
abstaining        what each method answers where few may be wrong
corrected         what labels put right did to the verdict
probabilities slicing calibrations confusions common_rows ensembles evaluated   a question each

May import: core, data, stats. Never reaches torch.
"""

from __future__ import annotations

from tunelab.analysis.summary import summarise
from tunelab.analysis.verdict import Recommendation, Summary

__all__ = ["Recommendation", "Summary", "summarise"]
