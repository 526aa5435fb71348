"""Ways to round a graph, tried one after the other: the fastest whose predictions hold is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact
from tunelab.exporting.agreement import ROUNDED, Agreement
from tunelab.models import exported

__all__ = [
    "Rung",
    "Scorer",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to round that was tried: `seconds` of one thread for all texts, `bytes` of the graph.

    `fault`: why it does not pass, None where it does, or why it could not be made at all; then
    there is no `agreement`.
    """

    name: str
    agreement: Agreement | None
    fault: str | None
    seconds: float = 0.0
    bytes: int = 0

    def sentence(self, float_seconds: float, float_bytes: int) -> str:
        """Its figures in words, beside those of the float graph."""
        if self.agreement is None:
            return f"{self.name}: cannot be made ({self.fault})"
        a = self.agreement
        return (
            f"{self.name}: {self.bytes / float_bytes:.2f} of the size, "
            f"{self.seconds / float_seconds:.2f} of the time, {len(a.changed)} of {a.texts} labels "
            f"changed (at most {100 * a.at_most:.2f}%), largest change of a probability "
            f"{a.largest:.1e}: {'passes' if self.fault is None else 'refused'}"
        )

    def to_json(self) -> dict[str, object]:
        """As a manifest keeps it."""
        return {
            "name": self.name,
            "fault": self.fault,
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            **(self.agreement.to_json() if self.agreement else {}),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """How rungs are scored: on `texts`, as `artifact` reads them, beside its float graph."""

    artifact: Artifact
    graph: Path
    texts: tuple[str, ...]
    agreement: Callable[[NDArray[np.float64]], Agreement]
    tell: Callable[[str], None]

    def timed(self, graph: Path) -> tuple[NDArray[np.float64], float]:
        """Scores of the texts and the processor's seconds in one thread, after some to warm up."""
        kind = "openvino" if graph.suffix == ".xml" else "onnx"
        one = exported.open_graph(self.artifact, exported.run_graph(graph, kind, threads=1))
        one.scores(self.texts[:32])
        started = time.process_time()
        return one.scores(self.texts), time.process_time() - started


def walk(
    ways: Mapping[str, Callable[[Path], None]], suffix: str, folder: Path, scorer: Scorer
) -> tuple[tuple[Rung, ...], str, Path]:
    """Try every way to write a rounded graph into `folder`, and tell of each.

    Gives all rungs, the name of the one to take and its graph: the fastest that passes; where none
    does, of those that are faster than float the one that changes least. Raises ArtifactError where
    none can be made.
    """
    _, seconds = scorer.timed(scorer.graph)
    tried: list[tuple[Rung, Path]] = []
    for name, write in ways.items():
        path = folder / f"{name.replace(' ', '-')}{suffix}"
        rung = _rung_of(name, write, path, scorer)
        scorer.tell(rung.sentence(seconds, scorer.graph.stat().st_size))
        tried.append((rung, path))
    made = [(r, p) for r, p in tried if r.agreement is not None]
    if not made:
        raise ArtifactError(
            f"{scorer.artifact.directory}: its graph cannot be rounded ({tried[-1][0].fault}). "
            "Export it in float32."
        )
    taken, path = min(made, key=lambda one: _preference(one[0], seconds))
    return tuple(r for r, _ in tried), taken.name, path


def _preference(rung: Rung, float_seconds: float) -> tuple[bool, bool, int, float]:
    """What sorts rungs, best first."""
    assert rung.agreement is not None  # noqa: S101
    if rung.fault is None:
        return False, False, 0, rung.seconds
    return True, rung.seconds >= float_seconds, len(rung.agreement.changed), rung.seconds


def _rung_of(name: str, write: Callable[[Path], None], path: Path, scorer: Scorer) -> Rung:
    try:
        write(path)
        scores, seconds = scorer.timed(path)
    except Exception as e:  # of the runtimes' tools, which raise what they like
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        return Rung(name, None, reason[:200])
    agreement = scorer.agreement(scores)
    size = sum(p.stat().st_size for p in path.parent.glob(f"{path.stem}.*"))
    return Rung(name, agreement, ROUNDED.fault(agreement), seconds, size)
