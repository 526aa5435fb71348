"""A study's trials as flat rows, and as results.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tunelab.core.cells import safe_cell
from tunelab.core.files import write_text
from tunelab.core.values import Cost, TrialResult

__all__ = [
    "costs_of",
    "results_csv",
    "results_rows",
    "write_results_csv",
]


def results_rows(results: Sequence[TrialResult]) -> list[dict[str, object]]:
    """One flat row a trial, every row with the same keys, as in results.csv."""
    setting_names = list(dict.fromkeys(k for r in results for k in r.spec.method.settings))
    score_names = sorted({k for r in results for k in r.scores})
    costs = costs_of(results)
    rows = []
    for r in results:
        settings = r.spec.method.settings
        row: dict[str, object] = {
            "trial_id": r.spec.trial_id,
            "method": r.spec.method.name,
            "label": r.spec.method.label,
            "base": r.spec.base.name if r.spec.base else None,
            **{k: _csv_cell(settings.get(k)) for k in setting_names},
            "seed": r.spec.seed,
            **({f"fold_{k}": v for k, v in asdict(r.spec.fold).items()} if r.spec.fold else {}),
            "train_rows": r.spec.train_rows,
            "status": r.status,
            **{k: r.scores.get(k) for k in score_names},
            **{name: getattr(r.cost, name) for name in costs},
            "error": r.error,
        }
        rows.append(row)
    return rows


def costs_of(results: Sequence[TrialResult]) -> list[str]:
    """Names of the costs that are told of these trials: a price only where one was given."""
    priced = any(r.cost.price_per_1000_texts is not None for r in results)
    return [f.name for f in fields(Cost) if priced or f.name != "price_per_1000_texts"]


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | tuple) else value


def write_results_csv(path: Path, results: Sequence[TrialResult]) -> None:
    """Write results.csv: a header and one row a trial. Missing values are empty cells."""
    write_text(path, results_csv(results))


def results_csv(results: Sequence[TrialResult]) -> str:
    """The content of results.csv."""
    out, rows = io.StringIO(), results_rows(results)
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["trial_id"])
    writer.writeheader()
    writer.writerows({key: safe_cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()
