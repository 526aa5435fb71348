"""Which trials, run where. Door: `plan`, `scheduled`, `run`; `power` tells what they will show.

file reading resolve spec space   a study file and flags -> a checked `StudySpec`
executors/    where trials run
trial         one trial: data -> method -> predictions -> scores -> folder
alone         one trial whose folder becomes the classifier's
shipping      the best classifier in other forms, with figures
folding final   all rows tested, a part with each seed; the classifier that is trained on all
explaining    the words that moved the best classifier's mistakes
ensembling    the classifier of several methods, averaged
known_rows    what a saved classifier was trained on
announcing telling   what is said before it runs, and written down while it does
check         whether a folder is as it was written, and its repair
trackers      what is told to wandb and its like

`Plan` is what is meant, `Progress` what is on disk, `Schedule` what runs when. May import: the
floors below. Torch is left to the methods.
"""

from __future__ import annotations

from tunelab.study.affording import affordable
from tunelab.study.foresight import Power, power
from tunelab.study.looking import looks_to_come, note_look, rounds_of
from tunelab.study.outputs import Conclusions, write_outputs
from tunelab.study.planning import Plan, check_place, expand, keep_given, plan
from tunelab.study.progress import Progress, read_progress
from tunelab.study.record import write
from tunelab.study.running import run, worker
from tunelab.study.schedule import (
    OnStudyEvent,
    OnUserEvent,
    Replanned,
    Schedule,
    StudyEvent,
    scheduled,
    tell_user,
)
from tunelab.study.to_come import ToCome, to_come

__all__ = [
    "OnStudyEvent",
    "OnUserEvent",
    "Plan",
    "Power",
    "Progress",
    "Replanned",
    "Conclusions",
    "Schedule",
    "StudyEvent",
    "ToCome",
    "affordable",
    "check_place",
    "expand",
    "keep_given",
    "looks_to_come",
    "note_look",
    "plan",
    "power",
    "read_progress",
    "rounds_of",
    "run",
    "scheduled",
    "tell_user",
    "to_come",
    "worker",
    "write",
    "write_outputs",
]
