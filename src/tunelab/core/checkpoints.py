"""Where trainings in progress are kept, and how often: a folder, in it one for each trial.

Such a folder is no part of a result. It appears whole or not at all, and goes when its trial ends.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunelab.core import files

__all__ = [
    "CHECKPOINTS",
    "Checkpoints",
    "find_checkpoint",
    "checkpoint_is_whole",
    "seal_checkpoint",
]

CHECKPOINTS = "checkpoints"  # the folder of a study that holds them
_DIGEST = "sha256"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Of a study's trials, in `folder`, at least `seconds` apart; inf: none is written, and those
    that are there are gone on from.
    """

    folder: str
    seconds: float = math.inf

    def place(self, trial_id: str) -> Path:
        """Where that of a trial lies, where there is one."""
        return Path(self.folder) / trial_id

    def remove(self, trial_id: str) -> None:
        """Remove what there is of a trial, half-written too, and the folder with the last."""
        place = self.place(trial_id)
        for one in (place, *place.parent.glob(f".{trial_id}.*")):
            shutil.rmtree(one, ignore_errors=True)
        with suppress(OSError):  # it holds others
            place.parent.rmdir()


def seal_checkpoint(folder: Path) -> None:
    """Write the SHA-256 of a folder's files beside them."""
    (folder / _DIGEST).write_text(_digest_of(folder), encoding="ascii")


def checkpoint_is_whole(folder: Path) -> bool:
    """Whether a folder's files are those that were sealed."""
    try:
        return (folder / _DIGEST).read_text(encoding="ascii") == _digest_of(folder)
    except (OSError, ValueError):
        return False


def find_checkpoint(checkpoints: Checkpoints, trial_id: str) -> Path | None:
    """The folder of a trial's checkpoint, whole or not; None where there is none."""
    place = checkpoints.place(trial_id)
    files.put_back(place)  # whoever wrote it may have been killed
    return place if place.is_dir() else None


def _digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.name != _DIGEST):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
