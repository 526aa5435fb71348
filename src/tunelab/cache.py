"""Results that are kept on disk by content, for whoever needs them again.

May import: the standard library. May not import: any other part of tunelab, torch.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["folder", "read_json", "replace"]


def folder() -> Path:
    """Where reusable results are kept: TUNELAB_CACHE, or the user's cache folder."""
    named = os.environ.get("TUNELAB_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunelab"


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, however many processes do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    Path(name).replace(path)


def read_json(path: Path) -> Any:
    """The value in a JSON file; None where there is none, or what is there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
