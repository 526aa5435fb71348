"""What was sent to this machine along with trials, where no disk is shared: by kind and key.

Whoever runs the trials there fills the folder and names it in the environment, which the processes
that it starts inherit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

__all__ = ["SENT_VARIABLE", "place_of_sent", "sent"]


SENT_VARIABLE = "TUNELAB_SENT"
SentKind = Literal["rows", "bases"]  # of data sets, by how they are read; bases, by their SHA-256


def place_of_sent(folder: Path, kind: SentKind, key: str) -> Path:
    """Where something of a kind and key lies, or is to lie, below a folder."""
    return folder / kind / key


def sent(kind: SentKind, key: str) -> Path | None:
    """Where something lies that was sent to this machine; None where nothing was."""
    folder = os.environ.get(SENT_VARIABLE)
    if not folder:
        return None
    place = place_of_sent(Path(folder), kind, key)
    return place if place.exists() else None
