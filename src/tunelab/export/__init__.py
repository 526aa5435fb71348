"""A classifier in another form, refused unless its predictions hold.

Door: `merge`, `combine`, `verify`, `show`, `find_artifacts`; `merging` and `combining` have what
`serve` shares with them. May import: core, data, stats, models.
"""

from __future__ import annotations

from tunelab.export.combining import COMBINATIONS, combine
from tunelab.export.listing import find_artifacts, show
from tunelab.export.merging import Change, Made, merge, sample_texts
from tunelab.export.verifying import Check, verify

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
