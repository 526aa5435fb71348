"""A classifier in another form, refused unless its predictions hold.

Door: `export_classifier` (TARGETS), `merge`, `combine`, `verify`, `show`, `find_artifacts`,
`write_docker_folder`;
`agreement` says when predictions hold; `merging` and `combining` have what `serve` shares with
them. May import: core, data, stats, models.
"""

from __future__ import annotations

from tunelab.exporting.combining import COMBINATIONS, combine
from tunelab.exporting.docker import DockerFolder, write_docker_folder
from tunelab.exporting.listing import find_artifacts, show
from tunelab.exporting.merging import Change, Made, merge, sample_texts
from tunelab.exporting.targets import TARGETS, Exported, export_classifier
from tunelab.exporting.verifying import Check, verify

__all__ = [
    "COMBINATIONS",
    "Change",
    "Check",
    "DockerFolder",
    "Exported",
    "Made",
    "TARGETS",
    "combine",
    "export_classifier",
    "write_docker_folder",
    "find_artifacts",
    "merge",
    "sample_texts",
    "show",
    "verify",
]
