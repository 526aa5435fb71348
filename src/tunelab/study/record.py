"""What a study's folder says of it: study.yaml, data.json, gate.json, lengths.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from tunelab import data
from tunelab.analysis.corrected import before_from_json
from tunelab.analysis.curves import curves_from_json
from tunelab.analysis.explanations import explained_from_json
from tunelab.analysis.folds import final_from_json
from tunelab.core import files, study_folder
from tunelab.core.forms import exports_from_json
from tunelab.core.text_lengths import text_lengths_from_json
from tunelab.core.version import __version__
from tunelab.data.behaviour import suite_from_json
from tunelab.data.gate import values
from tunelab.stats.choosing import tuning_from_json
from tunelab.stats.racing import race_from_json
from tunelab.study import folding
from tunelab.study.looking import forget_looks_at_other_data
from tunelab.study.progress import Progress
from tunelab.study.spec import study_yaml

__all__ = [
    "PARSED_EXTRAS",
    "trial_ids_of",
    "write",
]


# --- the folder -----------------------------------------------------------------------------

# What a run makes anew where it is damaged, and what reads it. Not looks.json: how often a study
# was looked at, nothing else knows.
PARSED_EXTRAS: Mapping[str, Callable[[Any], object]] = {
    "tuning": tuning_from_json,
    "race": race_from_json,
    "curves": curves_from_json,
    "gate": values.gate_from_json,
    "behaviour": suite_from_json,
    "final": final_from_json,
    "exports": exports_from_json,
    "before": before_from_json,
    "words": explained_from_json,
    "lengths": text_lengths_from_json,
}


def write(progress: Progress, command: str) -> None:
    """Write study.yaml and data.json; sweep what a killed run left."""
    plan, folder = progress.plan, progress.plan.spec.output_dir
    files.make_folder(folder / "trials")
    study_folder.sweep(folder)
    for name, read in PARSED_EXTRAS.items():
        if study_folder.known_extra(folder, name, read) is None:
            study_folder.remove_extra(folder, name)  # there is none, or what is there is damaged
    content = {
        "tunelab": __version__,
        "command": command,
        **study_yaml(
            replace(plan.spec, model=plan.base.ref.name if plan.base else plan.spec.model)
        ),
        **trial_ids_of(progress),
    }
    head = "# The resolved study. Run it again (only what is missing is run): tunelab compare "
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    files.write_text(folder / "study.yaml", f"{head}{folder / 'study.yaml'}\n{text}")
    card = data.describe(plan.dataset)
    if plan.spec.parts is not None:
        card["folds"] = {"of": plan.spec.parts, "rows": len(plan.scored.test)}
        card["notes"].append(folding.in_words(plan.spec, plan.whole, plan.dataset))
    card["test_on"] = [
        {"name": o.name, "rows": len(o.split), "in_train": o.in_train} for o in plan.others
    ]
    study_folder.write_card(folder, card)
    study_folder.write_rows(folder, plan.scored)
    looked_at = {"folds": plan.spec.parts} if plan.spec.parts is not None else {}
    study_folder.write_extra(folder, "gate", values.gate_to_json(plan.gate) | looked_at)
    if plan.behaviour is not None:
        study_folder.write_extra(folder, "behaviour", plan.behaviour)
    if plan.lengths is not None:
        study_folder.write_extra(folder, "lengths", plan.lengths.to_json())
    # What an earlier run in this folder had, and this one has not, would be told as this one's.
    has = {
        "tuning": plan.spec.tuning.spaces,
        "race": plan.spec.race,
        "curves": plan.spec.train_sizes,
        "behaviour": plan.behaviour,
        "lengths": plan.lengths,
        "final": plan.spec.parts,
        "exports": plan.spec.export,
        "before": plan.dataset.corrected,
    }
    forget_looks_at_other_data(folder, plan.dataset.fingerprint)
    for name, asked in has.items():
        if not asked:
            study_folder.remove_extra(folder, name)


def trial_ids_of(progress: Progress) -> dict[str, object]:
    """What study.yaml says of the trials that the study shows: their ids, and what those are called
    now that ran under another label.
    """
    shown = {"trials": progress.trials, "curve": progress.curve}
    labels = {
        t.trial_id: t.method.label
        for trials in shown.values()
        for t in trials
        if t.trial_id in progress.renamed
    }
    ids = {name: [t.trial_id for t in trials] for name, trials in shown.items()}
    return {**ids, "labels": labels}
