"""`tunelab compare`, `extend` and `train`: what starts trainings, and what is said of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.announce import announce
from tunelab.cli.flags import (
    StudyCommand,
    data_flags,
    flag_name,
    study_flags,
    take_study_keys,
)
from tunelab.cli.lines import say_sentences
from tunelab.cli.options import FOLDER, quiet_option, trust_option
from tunelab.cli.show import show_summary
from tunelab.cli.signals import exit_code
from tunelab.cli.streams import ReaderGoneError, echo
from tunelab.core.errors import InputError
from tunelab.core.words import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from tunelab.api import Study
    from tunelab.study import OnStudyEvent, Schedule, StudyEvent
    from tunelab.study.executors import Worker

__all__ = [
    "compare_command",
    "extend",
    "train",
]


_set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set anything, such as methods.0.r=16.",
)


# --- compare and train ----------------------------------------------------------------------


@click.command(cls=StudyCommand, short_help="Train and compare methods on the same splits.")
@click.argument("what", required=False, metavar="[STUDY.yaml | DATA]")
@study_flags()
@_set_option
@click.option("--yes", is_flag=True, help="Run more than 1,000 trials.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and stop.")
@quiet_option
def compare_command(
    what: str | None, *, sets: Sequence[str], yes: bool, dry_run: bool, quiet: bool, **given: Any
) -> None:
    """Train and compare methods on the same splits; continue where a study stopped.

    The first argument is a study file (.yaml) or the data. Everything is also a key of the study
    file; flags win over the file. Run again: only what is missing is run.
    """
    from tunelab import study
    from tunelab.study import resolve

    keys, settings = take_study_keys(given)
    path, keys["data.source"] = _file_or_data(what, keys["data.source"])
    spec = resolve.resolve_study(path, keys, settings, sets)
    console = stderr_console(quiet)
    if dry_run:
        announce(study.scheduled(study.plan(spec, yes=yes)), console)
        return
    with study.worker(spec) as worker:
        schedule = study.scheduled(study.plan(spec, yes=yes))
        announce(schedule, console)
        _run_study(schedule, console, worker)


@click.command(short_help="Add seeds to a finished study; what is there is kept.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="So many seeds in all.")
@click.option(
    "--until",
    type=click.Choice(["decided"]),
    help="Add seeds until the best is better than every other method, or equivalent to it.",
)
@click.option(
    "--max-seeds", type=click.IntRange(2), metavar="N", help="But so many in all at most (20)."
)
@click.option("--step", type=click.IntRange(1), metavar="N", help="So many before each look (2).")
@trust_option
@click.option("--dry-run", is_flag=True, help="Say what would run, and stop.")
@quiet_option
def extend(folder: Path, *, dry_run: bool, quiet: bool, **given: Any) -> None:
    """Run a study's methods, as they were tuned, with more seeds; finished trials are kept.

    With --until decided the study is judged anew after every few seeds, at levels that keep all
    looks together right in 95 of 100 studies.
    """
    from tunelab import api, study
    from tunelab.cli import terminal

    console, total = stderr_console(quiet), given.pop("seeds")
    given["trust_remote_code"] = bool(given["trust_remote_code"])
    if dry_run and total is None and given["until"] is not None:
        to_come = study.looks_to_come(folder, given["max_seeds"], given["step"])
        terminal.say(console, to_come)
        return
    finished: Study | None = None
    for number, spec in enumerate(study.rounds_of(folder, study.write_outputs, total, **given)):
        schedule = study.scheduled(study.plan(spec))
        if number == 0:
            announce(schedule, console)
        if total is None:
            terminal.say(console, _undecided_pairs(api.Study(folder), len(spec.seeds)))
        else:
            _say_that_looks_count(folder, console)
        if dry_run:
            return
        finished = _train_missing(schedule, console)
    _show_end(finished or api.Study(folder), console)


def _undecided_pairs(now: Study, seeds: int) -> str:
    """Which pairs are open, and what is done about it, in a line."""
    from tunelab.analysis import summary

    best = now.summary.best
    still = summary.undecided_with_best(now.summary)
    others = ", ".join(c.b if c.a == best else c.a for c in still)
    return f"{best} and {others}: undecided, on to {counted(seeds, 'seed')}"


def _say_that_looks_count(folder: Path, console: Console) -> None:
    from tunelab.cli import terminal
    from tunelab.core import study_folder

    if study_folder.read_study(folder).looks is None:
        line = (
            "Note     the 5% are those of one look at a study: who adds seeds until something is "
            "better is wrong more often. --until decided counts its looks"
        )
        terminal.say(console, line, indent=9)


def _run_study(schedule: Schedule, console: Console, worker: Worker | None = None) -> None:
    _show_end(_train_missing(schedule, console, worker), console)


def _train_missing(schedule: Schedule, console: Console, worker: Worker | None = None) -> Study:
    from tunelab import api
    from tunelab.cli.progress import Display

    folder = schedule.plan.spec.output_dir
    command = "tunelab " + shlex.join(sys.argv[1:])
    try:
        with Display(schedule, console) as display:
            return api.run_study(schedule, command, display.event, display.result, worker=worker)
    except KeyboardInterrupt as e:
        again = f"tunelab compare {shlex.quote(str(folder / 'study.yaml'))}"
        with suppress(OSError, ReaderGoneError):  # the terminal may be gone
            echo(f"\nStopped. What is done is kept; go on with: {again}", err=True)
        sys.exit(exit_code(e))


def _show_end(finished: Study, console: Console) -> None:
    """The summary of a study that has run; exit code 1 where trials failed."""
    show_summary(finished, advise=not console.quiet)
    if finished.record.failed:
        n, total = len(finished.record.failed), len(finished.record.results)
        say_sentences(
            f"{n} of {counted(total, 'trial')} failed; the errors are above and in the report.",
            err=True,
        )
        sys.exit(1)


@click.command(cls=StudyCommand, short_help="Train one method once, into a folder to deploy.")
@click.argument("source", required=False, metavar="DATA")
@click.option("--method", metavar="NAME", help="The method, such as lora.")
@click.option(
    "--from-study",
    type=FOLDER,
    metavar="STUDY",
    help="On all rows of a cross-fitted study, its recommended method or --method.",
)
@study_flags("model", "trust_remote_code")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Its seed (0).")
@click.option("--output-dir", metavar="PATH", help="Folder for the trained classifier.")
@click.option("--overwrite", is_flag=True, help="Replace a classifier that is there.")
@study_flags(
    "report_to", "checkpoint_every", "metric", helps={"metric": "Metric for selection ({default})."}
)
@data_flags
@_set_option
@quiet_option
def train(
    source: str | None,
    *,
    method: str | None,
    from_study: Path | None,
    seed: int | None,
    overwrite: bool,
    sets: Sequence[str],
    quiet: bool,
    **given: Any,
) -> None:
    """Train one method with one seed; the output folder is a classifier ready to use.

    With --from-study, train on all rows of a cross-fitted study, with the settings that it chose;
    the classifier is kept in the study, and copied to --output-dir.
    """
    from tunelab import api
    from tunelab.analysis import numbers
    from tunelab.cli import terminal
    from tunelab.core.tasks import TASKS
    from tunelab.stats.metrics import METRICS
    from tunelab.study import final, resolve

    if from_study is not None:
        trust = bool(given.pop("trust_remote_code"))
        _refuse_beside_study(source=source, seed=seed, set=sets, **given)
        out = Path(given["output_dir"]) if given["output_dir"] else None
        if out is not None:
            final.check_output_dir(out, overwrite)
        _train_from_study(from_study, method, out, trust, stderr_console(quiet))
        return
    wanted = {"argument 'DATA'": source, "option '--method'": method}
    wanted["option '--output-dir'"] = given["output_dir"]
    for what, value in wanted.items():
        if value is None:
            raise click.UsageError(f"Missing {what}.")
    keys, settings = take_study_keys(given)
    keys |= {"data.source": source, "methods": [method], "seeds": [seed or 0], "tuning": False}
    spec = resolve.resolve_study(None, keys, settings, sets)
    console = stderr_console(quiet)
    for note in spec.notes:
        terminal.say(console, note)
    with console.status("starting") as status:
        result = api.train_one(spec, overwrite=overwrite, on_event=_shown_as(status))
    for note in result.details.notes:
        terminal.say(console, f"{note}.")
    out = spec.output_dir
    task = "multilabel" if "test_subset_accuracy" in result.scores else result.spec.data.task
    name = spec.metric if task in (None, "classes") else TASKS[task].metric
    test, evaluated = (
        numbers.format_value(result.scores.get(key), numbers.column(key))
        for key in (f"test_{name}", f"eval_{name}")
    )
    seconds = numbers.format_seconds(result.cost.train_seconds)
    say_sentences(
        f"{method}: {METRICS[name].label} {test} on test, {evaluated} on validation; "
        f"trained in {seconds}."
    )
    echo(f'Saved to {out}. Try it: tunelab predict {shlex.quote(str(out))} "your text"')


def _shown_as(status: Status) -> OnStudyEvent:
    """What shows events of one training in a line."""
    from tunelab.cli import terminal
    from tunelab.core.events import Note, Stage, Step

    def show(event: StudyEvent) -> None:
        if isinstance(event, Note):
            terminal.say(status.console, event.text, indent=2)
        elif isinstance(event, Step):
            status.update(f"step {event.step} of {event.steps}, loss {event.loss:.3f}")
        elif isinstance(event, Stage):
            status.update(event.name)

    return show


def _refuse_beside_study(**given: object) -> None:
    """Raise InputError for what --from-study takes from the study itself."""
    own = ("output_dir", "method")
    beside = [k for k, v in given.items() if k not in own and v not in (None, (), [], False)]
    if beside:
        names = ", ".join("DATA" if k == "source" else flag_name(k) for k in beside)
        raise InputError(
            f"train --from-study: takes data, model and settings from the study; found {names} "
            "too. Leave it out, or train without --from-study."
        )


def _train_from_study(
    folder: Path, method: str | None, out: Path | None, trust: bool, console: Console
) -> None:
    """Train a method of a cross-fitted study on all its rows, and say what to expect of it."""
    from tunelab import api
    from tunelab.analysis import folds, numbers
    from tunelab.core import study_folder
    from tunelab.study import final

    with console.status("starting") as status:
        final.train_on_all_rows(folder, method, _shown_as(status), trust)
    study = api.Study(folder)
    result = folds.final_trial(study.record, method)
    assert result is not None  # noqa: S101  it has just been trained
    trial_id, label = result.spec.trial_id, result.spec.method.label
    if out is not None:
        final.hand_over(folder, trial_id, out)
    shown = numbers.column(f"test_{study.summary.metric}")
    estimate = study.summary.row(label).estimates.get(shown.name)
    percent = " percent" if shown.kind == "percent" else ""
    say_sentences(
        f"{label}: trained on all rows, none left to test it. To expect: "
        f"{numbers.format_estimate(estimate, shown.kind)}{percent} {shown.about}, as its method "
        f"had, cross-fitted ({study.summary.cross_fitted})."
    )
    place = out or study_folder.artifact_dir(folder, trial_id)
    echo(f'Saved to {place}. Try it: tunelab predict {shlex.quote(str(place))} "your text"')


def _file_or_data(what: str | None, data: object) -> tuple[Path | None, object]:
    """Tell a study file from data in the first argument; a study's folder means its file."""
    if what is None:
        return None, data
    path = Path(what)
    if (path / "study.yaml").is_file():
        return path / "study.yaml", data
    if path.suffix.lower() in {".yaml", ".yml"}:
        return path, data
    if data is not None:
        raise InputError(f"Data given twice: {what} and --data {data}. Give one of them.")
    return None, what


def stderr_console(quiet: bool = False) -> Console:
    from tunelab.cli import terminal

    return terminal.console(stderr=True, quiet=quiet)
