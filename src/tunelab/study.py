"""A study: methods x settings x seeds -> trials; run what is missing; keep what is done.

May import: config, trial, engines and the rooms below. May not import: report, api, cli.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tunelab import bases, data, gate, store, trackers
from tunelab._version import __version__
from tunelab.config import MOST_TRIALS, StudySpec
from tunelab.engines import ENGINES
from tunelab.errors import ConfigError
from tunelab.gate import Gate
from tunelab.methods import METHODS, check
from tunelab.trial import OnEvent, make_spec
from tunelab.types import Dataset, TrialResult, TrialSpec

__all__ = ["Plan", "check_place", "expand", "plan", "run", "write"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a study will do: all its trials, those still to run, and about how long that takes.

    `seconds` maps each trial to run to its estimated seconds; `gate` says what is wrong with the
    data.
    """

    spec: StudySpec
    dataset: Dataset
    base: bases.Base | None
    trials: tuple[TrialSpec, ...]
    todo: tuple[TrialSpec, ...]
    seconds: Mapping[str, float]
    gate: Gate

    @property
    def total_seconds(self) -> float:
        """Estimated seconds of everything that is still to run."""
        return sum(self.seconds.values())


def expand(spec: StudySpec, dataset: Dataset, base: bases.Base | None) -> tuple[TrialSpec, ...]:
    """All trials of a study: seed by seed, so that every method has one result early."""
    return tuple(
        make_spec(
            spec.data,
            dataset.fingerprint,
            base.ref if base and METHODS[m.name].needs_base else None,
            m,
            seed,
        )
        for seed in spec.seeds
        for m in spec.methods
    )


def plan(spec: StudySpec, yes: bool = False) -> Plan:
    """Load the data and the base, check what can be checked, and see what is still to run.

    Raises InputError before anything is written or trained.
    """
    count = len(spec.methods) * len(spec.seeds)
    if count > MOST_TRIALS and not yes:
        raise ConfigError(
            f"This study has {count} trials ({len(spec.methods)} methods x {len(spec.seeds)} "
            f"seeds), more than {MOST_TRIALS}. Make the grid smaller, or confirm with --yes."
        )
    trackers.require(spec.report_to)
    folder = spec.output_dir
    check_place(folder)
    if folder.is_dir() and any(folder.iterdir()) and not store.is_study(folder):
        raise ConfigError(
            f"{folder}: not empty, and not a study, so nothing is written into it. "
            "Choose another folder with --output-dir."
        )
    dataset = data.load(spec.data)
    base = bases.resolve(spec.model, spec.trust_remote_code) if spec.needs_base else None
    if base:
        for m in spec.methods:
            check(base, m)
            if "max_length" in m.settings and METHODS[m.name].needs_base:
                bases.check_length(base, m.settings["max_length"])
    trials = expand(spec, dataset, base)
    before = {t.trial_id: store.read_result(folder, t.trial_id) for t in trials}
    todo = tuple(t for t in trials if not _is_done(before[t.trial_id]))
    done = [r for r in before.values() if r is not None and r.status == "done"]
    seconds = _estimate(todo, done, dataset, base)
    return Plan(spec, dataset, base, trials, todo, seconds, _gate(folder, dataset))


def _gate(folder: Path, dataset: Dataset) -> Gate:
    """What the data gate finds; read from the study where these data were looked at before."""
    known = store.read_extra(folder, "gate")
    if known is not None and known["fingerprint"] == dataset.fingerprint:
        return gate.from_json(known)
    return gate.inspect(dataset)


def check_place(folder: Path) -> None:
    """Raise ConfigError where no folder can be made, or written into."""
    other = "Choose another with --output-dir."
    inside = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not inside.is_dir():
        what = f"{inside} is a file, so no folder can be made in it" if inside != folder else (
            "expected a folder, found a file"
        )  # fmt: skip
        raise ConfigError(f"{folder}: {what}. {other}")
    if not os.access(inside, os.W_OK):
        raise ConfigError(f"{folder}: {inside} may not be written to. {other}")


def _is_done(result: TrialResult | None) -> bool:
    # A trial that failed is tried again: the cause (memory, a missing package) may be mended.
    return result is not None and result.status == "done"


def write(p: Plan, command: str) -> None:
    """Write study.yaml and data.json; sweep what a killed run left."""
    folder = p.spec.output_dir
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    store.sweep(folder)
    content: dict[str, Any] = {
        "tunelab": __version__,
        "command": command,
        "data": asdict(p.spec.data),
        "model": p.base.ref.name if p.base else p.spec.model,
        "trust_remote_code": p.spec.trust_remote_code,
        "methods": [{"name": m.name, "label": m.label, **m.settings} for m in p.spec.methods],
        "seeds": list(p.spec.seeds),
        "metric": p.spec.metric,
        "output_dir": str(folder),
        "report_to": list(p.spec.report_to),
        "sources": dict(p.spec.sources),
        "trials": [t.trial_id for t in p.trials],
    }
    head = "# The resolved study. Run it again (only what is missing is run): tunelab compare "
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    store.write_text(folder / "study.yaml", f"{head}{folder / 'study.yaml'}\n{text}")
    store.write_json(folder / "data.json", data.describe(p.dataset))
    store.write_rows(folder, p.dataset)
    store.write_extra(folder, "gate", gate.to_json(p.gate))


def run(p: Plan, on_event: OnEvent, engine: str = "process") -> Iterator[TrialResult]:
    """Run what is missing; each result is yielded when it is on disk.

    Trackers that the study reports to hear every event and result too; one that fails is left out,
    which an event `note` says.
    """
    folder = p.spec.output_dir
    with trackers.Reporter(
        p.spec.report_to, folder.name, folder / trackers.FOLDER,
        {t.trial_id: t for t in p.todo}, lambda text: on_event({"event": "note", "text": text}),
    ) as reporter:  # fmt: skip

        def hear(event: Mapping[str, Any]) -> None:
            on_event(event)
            reporter.event(event)

        for result in ENGINES[engine](p.todo, folder, p.spec.metric, hear):
            reporter.result(result)
            yield result


# --- how long -------------------------------------------------------------------------------

# Floating-point operations for each weight and training token: a forward pass has 2.
_WORK = {"full": 6.0, "svm": 2.0, "svm-tfidf": 0.0}
_WORK_OF_ADAPTERS = 4.5
# Share of a large matrix product's speed that training reaches (docs/log.md).
_EFFICIENCY = 0.35
# The first trial waits for the imports; later ones are forked from where they are done.
_SECONDS_TO_IMPORT, _SECONDS_TO_START = 4.0, 0.2


def _estimate(
    todo: Sequence[TrialSpec],
    done: Sequence[TrialResult],
    dataset: Dataset,
    base: bases.Base | None,
) -> dict[str, float]:
    """Seconds of each trial: as its method took before, or from its arithmetic and this machine."""
    if not todo:
        return {}
    took: dict[str, list[float]] = {}
    for r in done:
        took.setdefault(r.spec.method.label, []).append(float(r.provenance["seconds"]))
    speed = _measured_speed() * _EFFICIENCY if base else 1.0
    weights = _encoder_weights(base) if base else 0
    words = sum(len(t.split()) for t in dataset.train.texts)
    tokens = 1.35 * words + 2 * len(dataset.train)  # subwords and the special tokens
    out: dict[str, float] = {}
    for t in todo:
        s = t.method.settings
        start = _SECONDS_TO_START if out else _SECONDS_TO_IMPORT
        if t.method.label in took:
            out[t.trial_id] = start + float(np.mean(took[t.method.label]))
            continue
        work = _WORK.get(t.method.name, _WORK_OF_ADAPTERS)
        rows = len(dataset.train)
        cut = min(1.0, s.get("max_length", 1e9) * rows / max(tokens, 1))
        epochs = s.get("num_train_epochs", 1)
        share = 1 + 0.33 * len(dataset.validation) / rows
        seconds = work * weights * tokens * cut * epochs * share / speed
        out[t.trial_id] = start + seconds + rows * 1e-3
    return out


def _encoder_weights(base: bases.Base) -> int:
    """Weights that every token is multiplied with: all but the embedding table."""
    table = int(base.config.get("vocab_size", 0)) * int(
        base.config.get("hidden_size") or base.config.get("dim") or base.config.get("n_embd") or 0
    )
    return max(1, bases.count_parameters(base) - table)


def _measured_speed() -> float:
    """Floating-point operations a second of a float32 matrix product, measured for 0.1 s."""
    a = np.ones((512, 512), dtype=np.float32)
    a @ a
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        a @ a
        count += 1
    return 2 * 512**3 * count / (time.perf_counter() - started)
