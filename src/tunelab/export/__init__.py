"""A classifier in another form, refused unless its predictions hold.

Door: `merge`, `combine`, `verify`, `show`, `find_artifacts`; `merging` and `combining` have what
`serve` shares with them. May import: core, data, stats, models.
"""

from __future__ import annotations

from tunelab.export.combining import combine
from tunelab.export.listing import find_artifacts, show
from tunelab.export.merging import merge
from tunelab.export.verifying import verify

__all__ = ["combine", "find_artifacts", "merge", "show", "verify"]
