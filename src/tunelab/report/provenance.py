"""Where a study's figures come from: versions, machine, times."""

from __future__ import annotations

from collections.abc import Mapping

from tunelab.analysis import numbers
from tunelab.analysis.verdict import joined_by_and
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import counted

__all__ = ["provenance_table"]


def provenance_table(record: StudyRecord) -> list[tuple[str, str]]:
    """What is known of how the study was made; values that differ between trials side by side."""
    seen: dict[str, dict[str, None]] = {}
    for r in record.results:
        for key, value in _flattened_facts(
            {k: v for k, v in r.provenance.to_json().items() if k not in _PER_TRIAL}
        ):
            seen.setdefault(key, {})[str(value)] = None
        if r.spec.base and not r.provenance.base:
            seen.setdefault("base name", {})[r.spec.base.name] = None
    started = sorted(s for r in record.results if (s := r.provenance.started))
    rows = []
    if "tunelab" not in seen:
        rows.append(("tunelab", record.settings["tunelab"]))
    if started:
        rows.append(("first trial started", started[0]))
        rows.append(("last trial started", started[-1]))
    seconds = [t for r in record.results if (t := r.provenance.seconds) is not None]
    if seconds:
        rows.append(
            (f"time of {counted(len(seconds), 'trial')}", numbers.format_seconds(sum(seconds)))
        )
    rows += _number_formats(record)
    return rows + [(key, ", ".join(values)) for key, values in seen.items()]


def _number_formats(record: StudyRecord) -> list[tuple[str, str]]:
    """What each method was trained in but float32, and how far that moved logits before training,
    at most.
    """
    rows = []
    for label in record.methods:
        trained = [r.details.trained for r in record.done if r.spec.method.label == label]
        off = [t.rounding for t in trained if t.rounding is not None]
        if off:
            formats = joined_by_and(sorted({t.precision for t in trained if t.precision}))
            said = f"{formats} (logits within {max(off):.2%} of exact float32)"
            rows.append((f"{label} trained in", said))
    return rows


_PER_TRIAL = frozenset({"started", "seconds"})


def _flattened_facts(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            # "versions: torch" says no more than "torch".
            rows += _flattened_facts(item, "" if key in {"versions", "hardware"} else f"{key} ")
        elif isinstance(item, list | tuple):
            rows.append((name, ", ".join(map(str, item))))
        elif item is not None:
            # A size; not the package bitsandbytes, whose version ends here too.
            size = item if name.endswith(" bytes") and isinstance(item, int | float) else None
            rows.append((name, item if size is None else numbers.format_bytes(size)))
    return rows
