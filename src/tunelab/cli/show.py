"""What is said of a finished study: the answer, the table, findings, how to use it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunelab.analysis import Summary
    from tunelab.analysis.opened import OpenedStudy
    from tunelab.analysis.verdict import Answer
    from tunelab.core.study_folder import StudyRecord

__all__ = [
    "show_answer",
    "show_summary",
]


def show_answer(answer: Answer) -> None:
    """What to take and why, in the first line; then how sure."""
    from tunelab.cli import terminal

    out = terminal.console()
    terminal.say(out, f"{answer.sentence}.", indent=2, style="bold")
    if answer.sure:
        terminal.say(out, answer.sure, indent=2)
    out.print()


def show_summary(study: OpenedStudy, metric: str | None = None, *, advise: bool = True) -> None:
    """What to take and how sure that is; the table, the sentences; the command that uses it
    (`advise`).
    """
    from tunelab import analysis
    from tunelab.analysis import confusions, probabilities, summary
    from tunelab.cli import terminal

    folder = study.directory
    said = study.summary if metric is None else analysis.summarise(study.record, metric)
    headings, rows = summary.summary_for_display(said)
    show_answer(said.answer)
    out = terminal.console()
    if rows:
        more = "the report has all, and so has `tunelab report --format csv`."
        terminal.print_table(headings, rows, all_of_it=more)
    for line in said.sentences:
        terminal.say(out, f"{line}.", indent=2)
    confused = confusions.confusions_in_words(study.record, said)
    if confused is not None:
        terminal.say(out, f"{confused}.", indent=2)
    beside = probabilities.decided_beside(study.probabilities(), said)
    if beside is not None:
        terminal.say(out, f"{beside}.", indent=2)
    for line in (*study.record.damaged, *said.warnings):
        terminal.say(out, f"Note: {line}", indent=2)
    _show_more(study.record, said.metric)
    out.print()
    page = folder / "report.html"
    if page.exists():
        out.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
    if advise:
        _show_use(study, said)


def _show_use(study: OpenedStudy, said: Summary) -> None:
    """The commands that use what was recommended, and that say more of it."""
    from tunelab.analysis import folds, summary
    from tunelab.cli import terminal
    from tunelab.core import study_folder

    folder, record = study.directory, study.record
    trial = summary.best_trial(record, said, said.answer.take)
    if trial is None:
        return
    out = terminal.console()
    whole = folds.final_trial(record, said.answer.take)
    used = whole if said.cross_fitted else trial
    # Commands are there to be copied: no line is broken within one.
    if used is None and record.missing:
        again = shlex.quote(str(folder / "study.yaml"))
        use = f"Finish it, then train on all rows: tunelab compare {again}"
    elif used is None:
        method = shlex.quote(str(said.answer.take))
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


def _show_more(record: StudyRecord, metric: str) -> None:
    """The race, learning curves and other data, where the study has them."""
    from tunelab.analysis import curves, transfer
    from tunelab.cli import terminal
    from tunelab.stats import racing

    out = terminal.console()
    race = record.parsed("race", racing.race_from_json)
    for line in () if race is None else racing.sentences(race):
        terminal.say(out, line, indent=2)
    learned = curves.learning_curves(record, metric) if record.curve else None
    if learned is not None:
        terminal.print_table(*curves.curves_for_display(learned), "Learning curves")
        for c in learned.crossings:
            terminal.say(out, c.sentence, indent=2)
    elsewhere = transfer.transfer_for_display(record, metric)
    if elsewhere is not None:
        terminal.print_table(*elsewhere, "On other data")
