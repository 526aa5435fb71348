"""What may be said -> pages. Door: `write_report`, `write_comparison`.

page evidence   the HTML page, and what it draws on
comparison   comparison.json
writing   all formats that were asked for
review    labels in doubt, to be kept or changed
cards paper   model cards; tables, figures and a lab report for a paper

Its charts are functions and rows in `charts`. May import: core, data, stats, analysis. Never
reaches torch.
"""

from __future__ import annotations

from tunelab.report.comparison import write_comparison
from tunelab.report.page import write_report

__all__ = ["write_comparison", "write_report"]
