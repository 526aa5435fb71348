"""What a study is asked to do, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from tunelab.core.checkpoints import CHECKPOINTS, Checkpoints
from tunelab.core.plain import SettingValues
from tunelab.core.values import DataSpec, MethodSpec
from tunelab.methods import METHODS
from tunelab.study.space import Tuning, space_to_json

__all__ = [
    "MOST_TRIALS",
    "StudySpec",
    "checkpoints_of",
    "study_yaml",
]

MOST_TRIALS = 1000


@dataclass(frozen=True, slots=True)
class StudySpec:
    """A resolved study: nothing is left to default. `sources` says where each value came from.

    `train_sizes` are numbers of training rows below all, in rising order. `budget`: seconds that a
    race may take; None: as long as it needs. `jobs`: trials at a time; None: as many as there are
    cores and memory for. `stack`: trials in one pass; None: as many as fill a card, 1: each alone.
    `folds`: parts that cross-fitting divides all rows into; None: one test part; "auto" until the
    data are known (`folding.settled`). `together`: texts of these data are alike, and such rows
    stay in one part of a fold; known then too. `checkpoint_every`: seconds between two checkpoints
    of a training; None: none is written. `engine`: a row of `executors.ENGINES`; on a
    cluster, its `address`, and the `resources` that a trial takes of it ("cpu", "gpu", others of
    its nodes).
    """

    data: DataSpec
    model: str
    trust_remote_code: bool
    methods: tuple[MethodSpec, ...]
    seeds: tuple[int, ...]
    metric: str
    output_dir: Path
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    report_to: tuple[str, ...] = ()
    tuning: Tuning = field(default_factory=Tuning)
    vary_split: bool = False
    train_sizes: tuple[int, ...] = ()
    test_on: tuple[DataSpec, ...] = ()
    race: bool = False
    budget: float | None = None
    disagreement: float | None = None
    jobs: int | None = None
    stack: int | None = None
    behaviour: str | None = None
    folds: int | Literal["auto"] | None = None
    together: bool = False
    export: tuple[str, ...] = ()
    checkpoint_every: float | None = None
    engine: str = "process"
    address: str = "auto"
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1})

    @property
    def parts(self) -> int | None:
        """How many parts cross-fitting divides all rows into; None where one part is tested."""
        return self.folds if isinstance(self.folds, int) else None

    @property
    def needs_base(self) -> bool:
        """Whether any method reads the texts through a base model."""
        return any(METHODS[m.name].needs_base for m in self.methods)


def checkpoints_of(spec: StudySpec, folder: Path | None = None) -> Checkpoints | None:
    """Where its trainings in progress are kept: in the study's folder, or in another. None where
    none are asked for, and none is there to go on from.
    """
    where = (folder or spec.output_dir / CHECKPOINTS).absolute()
    if spec.checkpoint_every is None and not where.is_dir():
        return None
    return Checkpoints(str(where), spec.checkpoint_every or math.inf)


def study_yaml(spec: StudySpec) -> dict[str, object]:
    """A study's keys as a resolved study.yaml has them, and `resolve_study` reads them again."""
    t = spec.tuning
    return {
        "data": asdict(spec.data),
        "model": spec.model,
        "trust_remote_code": spec.trust_remote_code,
        "methods": [
            {"name": m.name, "label": m.label, "tune": _tune_yaml(spec, m.label), **m.settings}
            for m in spec.methods
        ],
        "seeds": list(spec.seeds),
        "metric": spec.metric,
        "output_dir": str(spec.output_dir),
        "report_to": list(spec.report_to),
        "jobs": spec.jobs or "auto",
        "stack": {None: "auto", 1: "off"}.get(spec.stack, spec.stack),
        "tuning": {"budget": t.budget, "seeds": list(t.seeds), "prune": t.prune},
        "vary_split": spec.vary_split,
        "folds": spec.folds or "off",
        "train_sizes": [*spec.train_sizes, "all"] if spec.train_sizes else None,
        "test_on": [asdict(d) for d in spec.test_on],
        "race": spec.race,
        "budget": spec.budget,
        "disagreement": spec.disagreement,
        "behaviour": spec.behaviour or False,
        "export": list(spec.export),
        "checkpoint_every": spec.checkpoint_every,
        "engine": spec.engine,
        "address": spec.address,
        "resources": dict(spec.resources),
        "sources": dict(spec.sources),
    }


def _tune_yaml(spec: StudySpec, label: str) -> SettingValues | bool:
    space = spec.tuning.spaces.get(label)
    return space_to_json(space) if space else False
