"""Saved adapters, for Python: found, verified, merged, combined, and several on one base.

from tunelab import adapters

adapters.merge("mood", "merged")
both = adapters.AdapterSet("minilm", {"mood": "mood", "stars": "stars"})
"""

from __future__ import annotations

from tunelab.export import combine, find_artifacts, merge, show, verify
from tunelab.serve.adapter_set import AdapterSet

__all__ = ["AdapterSet", "combine", "find_artifacts", "merge", "show", "verify"]
