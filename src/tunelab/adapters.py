"""Saved adapters, for Python: found, verified, merged, combined, and several on one base.

from tunelab import adapters

adapters.merge("mood", "merged")
both = adapters.AdapterSet("minilm", {"mood": "mood", "stars": "stars"})
"""

from __future__ import annotations

from tunelab.exporting import (
    COMBINATIONS,
    Change,
    Check,
    Made,
    combine,
    find_artifacts,
    merge,
    sample_texts,
    show,
    verify,
)
from tunelab.serving.adapter_set import AdapterSet

__all__ = [
    "AdapterSet",
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
