"""What was sent to this machine along with trials, where no disk is shared: by kind and key.

Whoever runs the trials there fills the folder and names it in the environment, which the processes
that it starts inherit.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

__all__ = ["SENT_VARIABLE", "SentKind", "file_here", "key_of_file", "place_of_sent", "sent"]


SENT_VARIABLE = "TUNELAB_SENT"
# Of data sets, by how they are read; bases, by their SHA-256; other files, by their path.
SentKind = Literal["rows", "bases", "files"]


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


def key_of_file(path: str) -> str:
    """What a file is sent as."""
    return hashlib.sha256(path.encode()).hexdigest()


def file_here(path: str) -> Path:
    """Where a file lies that somebody named: as it was sent here, else at its path."""
    return sent("files", key_of_file(path)) or Path(path).expanduser()
