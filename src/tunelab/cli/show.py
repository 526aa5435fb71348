"""What is said of a finished study: table, findings, advice."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunelab.analysis import Summary
    from tunelab.api import Study

__all__ = [
    "show_summary",
]


def show_summary(study: Study, metric: str | None = None, *, advise: bool = True) -> None:
    """After: the table, the sentences, where things are; and what to take (`advise`)."""
    from tunelab import analysis
    from tunelab.analysis import summary, verdict
    from tunelab.cli import terminal

    folder = study.directory
    said = study.summary if metric is None else analysis.summarise(study.record, metric)
    headings, rows = summary.summary_for_display(said)
    out = terminal.console()
    out.print()
    if rows:
        terminal.print_table(headings, rows)
    for line in (verdict.headline(said) + ".", *said.sentences):
        terminal.say(out, line, indent=2)
    for line in said.warnings:
        terminal.say(out, f"Note: {line}", indent=2)
    _show_more(folder, said.metric)
    out.print()
    page = folder / "report.html"
    if page.exists():
        out.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
    if advise:
        _show_advice(study, said)


def _show_advice(study: Study, said: Summary) -> None:
    """What to take, in plain words, and the command that uses it."""
    from tunelab.analysis import folds, summary, tradeoff
    from tunelab.cli import terminal
    from tunelab.core import study_folder

    folder, record = study.directory, study.record
    found = tradeoff.recommend(record, summary=said)
    trial = summary.best_trial(record, said, found.choice)
    if trial is None:
        return
    out = terminal.console()
    terminal.say(out, f"{found.short}.", indent=2)
    whole = folds.final_trial(record, found.choice)
    used = whole if said.cross_fitted else trial
    # Commands are there to be copied: no line is broken within one.
    if used is None:
        method = shlex.quote(str(found.choice))
        use = f"Train it on all rows: tunelab train --from-study {shlex.quote(str(folder))}"
        use += f" --method {method}"
    else:
        artifact = shlex.quote(str(study_folder.artifact_dir(folder, used.spec.trial_id)))
        rows = " (trained on all rows)" if said.cross_fitted else ""
        use = f'Use it{rows}: tunelab predict {artifact} "your text"'
    other = "" if said.metric == record.settings["metric"] else f" --metric {said.metric}"
    why = f"Reasons and conditions: tunelab recommend {shlex.quote(str(folder))}{other}"
    for line in (use, why):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_more(folder: Path, metric: str) -> None:
    """The race, learning curves and other data, where the study has them."""
    from tunelab.analysis import curves, transfer
    from tunelab.cli import terminal
    from tunelab.core import study_folder
    from tunelab.stats import racing

    record = study_folder.read_study(folder)
    out = terminal.console()
    if record.race is not None:
        for line in racing.sentences(racing.race_from_json(record.race)):
            terminal.say(out, line, indent=2)
    found = curves.learning_curves(record, metric) if record.curve else None
    if found is not None:
        terminal.print_table(*curves.curves_for_display(found), "Learning curves")
        for c in found.crossings:
            terminal.say(out, c.sentence, indent=2)
    elsewhere = transfer.transfer_for_display(record, metric)
    if elsewhere is not None:
        terminal.print_table(*elsewhere, "On other data")
