"""A classifier in another form, refused unless its predictions hold.

Door: `merge`, `combine`, `verify`, `show`, `find_artifacts`; `merging` and `combining` have what
`serve` shares with them. May import: core, data, stats, models.
"""

from __future__ import annotations

from tunelab.exporting.combining import COMBINATIONS, combine
from tunelab.exporting.listing import find_artifacts, show
from tunelab.exporting.merging import Change, Made, merge, sample_texts
from tunelab.exporting.verifying import Check, verify

__all__ = [
    "COMBINATIONS",
    "Change",
    "Check",
    "Made",
    "combine",
    "find_artifacts",
    "merge",
    "sample_texts",
    "show",
    "verify",
]
