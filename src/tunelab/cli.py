"""The command line: verbs. A leaf: nothing imports this.

Only click is imported here; a verb imports what it needs, so that `tunelab --help` is instant.
Exit codes: 0 done, 1 a trial failed, 2 the input cannot be used, 130 interrupted.
"""

from __future__ import annotations

import atexit
import errno
import gc
import itertools
import json
import math
import shlex
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab._version import __version__
from tunelab.cli_adapters import adapters
from tunelab.cli_answers import COMMANDS
from tunelab.cli_flags import (
    FlagCommand,
    StudyCommand,
    comma_names,
    data_flags,
    study_flags,
    take_study_keys,
)
from tunelab.cli_options import FOLDER, json_option, print_json, quiet_option, trust_option
from tunelab.cli_report import report
from tunelab.errors import InputError, TunelabError

if TYPE_CHECKING:
    from rich.console import Console

    from tunelab import tables
    from tunelab.api import Study
    from tunelab.engines import Worker
    from tunelab.predict import TextClassifier
    from tunelab.study import Progress, Schedule
    from tunelab.summary import Summary
    from tunelab.types import Dataset, DataSpec

# How many more objects there may be than when garbage was last looked for.
_GARBAGE = 1_000_000
SAMPLE = "It's not the uninspired mess I'd feared: a quiet, wonderful film."


class _Verbs(click.Group):
    """Verbs in the order in which a user meets them, not by alphabet."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="tunelab")
def app() -> None:
    """Which way of fine-tuning is worth it for your labelled texts, at what cost, and how sure?

    \b
    tunelab compare reviews.csv              compare methods on any labelled file
    tunelab compare --data demo              ... on the bundled reviews
    tunelab train reviews.csv --method lora --output-dir out
    tunelab predict out "a quiet, wonderful film"
    """


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
def compare(
    what: str | None, *, sets: Sequence[str], yes: bool, dry_run: bool, quiet: bool, **given: Any
) -> None:
    """Train and compare methods on the same splits; continue where a study stopped.

    The first argument is a study file (.yaml) or the data. Everything is also a key of the study
    file; flags win over the file. Run again: only what is missing is run.
    """
    from tunelab import config, study

    keys, settings = take_study_keys(given)
    path, keys["data.source"] = _file_or_data(what, keys["data.source"])
    spec = config.resolve_study(path, keys, settings, sets)
    console = _console(quiet)
    if dry_run:
        _announce(study.scheduled(study.plan(spec, yes=yes)), console)
        return
    with study.worker(spec) as worker:
        schedule = study.scheduled(study.plan(spec, yes=yes))
        _announce(schedule, console)
        _run_study(schedule, console, worker)


@click.command(short_help="Add seeds to a finished study; what is there is kept.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option(
    "--seeds", type=click.IntRange(1), required=True, metavar="N", help="So many seeds in all."
)
@click.option("--dry-run", is_flag=True, help="Say what would run, and stop.")
@quiet_option
def extend(folder: Path, seeds: int, dry_run: bool, quiet: bool) -> None:
    """Run a study's methods, as they were tuned, with more seeds; finished trials are kept."""
    from tunelab import api, study

    schedule = study.scheduled(study.plan(api.extended(folder, total=seeds)))
    console = _console(quiet)
    _announce(schedule, console)
    if not dry_run:
        _run_study(schedule, console)


def _run_study(schedule: Schedule, console: Console, worker: Worker | None = None) -> None:
    from tunelab import api
    from tunelab.progress import Display

    folder = schedule.plan.spec.output_dir
    command = "tunelab " + shlex.join(sys.argv[1:])
    try:
        with Display(schedule, console) as display:
            api.run_study(schedule, command, display.event, display.result, worker=worker)
    except KeyboardInterrupt:
        again = f"tunelab compare {shlex.quote(str(folder / 'study.yaml'))}"
        click.echo(f"\nStopped. What is done is kept; go on with: {again}", err=True)
        sys.exit(130)
    finished = api.Study(folder)
    show_summary(finished, advise=not console.quiet)
    if finished.record.failed:
        n, total = len(finished.record.failed), len(finished.record.results)
        click.echo(
            f"{n} of {total} trials failed; the errors are above and in the report.", err=True
        )
        sys.exit(1)


@click.command(cls=StudyCommand, short_help="Train one method once, into a folder to deploy.")
@click.argument("source", metavar="DATA")
@click.option("--method", required=True, metavar="NAME", help="The method, such as lora.")
@study_flags("model", "trust_remote_code")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N")
@click.option(
    "--output-dir", metavar="PATH", required=True, help="Folder for the trained classifier."
)
@click.option("--overwrite", is_flag=True, help="Replace a classifier that is there.")
@study_flags("report_to", "metric", helps={"metric": "Metric for selection ({default})."})
@data_flags
@_set_option
@quiet_option
def train(
    source: str,
    *,
    method: str,
    seed: int,
    overwrite: bool,
    sets: Sequence[str],
    quiet: bool,
    **given: Any,
) -> None:
    """Train one method with one seed; the output folder is a classifier ready to use."""
    from tunelab import api, config, summary

    keys, settings = take_study_keys(given)
    keys |= {"data.source": source, "methods": [method], "seeds": [seed], "tuning": False}
    spec = config.resolve_study(None, keys, settings, sets)
    console = _console(quiet)
    for note in spec.notes:
        console.print(note, markup=False, highlight=False)
    with console.status("starting") as status:

        def show(event: Any) -> None:
            if "loss" in event:
                status.update(f"step {event['step']} of {event['steps']}, loss {event['loss']:.3f}")
            elif "stage" in event:
                status.update(event["stage"])

        result = api.train_one(spec, overwrite=overwrite, on_event=show)
    out = spec.output_dir
    test, evaluated = (result.scores.get(f"{p}_{spec.metric}") for p in ("test", "eval"))
    seconds = summary.format_seconds(result.cost.train_seconds)
    click.echo(
        f"{method}: {spec.metric} {summary.format_percent(test)} on test, "
        f"{summary.format_percent(evaluated)} on validation; trained in {seconds}."
    )
    click.echo(f'Saved to {out}. Try it: tunelab predict {shlex.quote(str(out))} "your text"')


def _file_or_data(what: str | None, data: str | None) -> tuple[Path | None, str | None]:
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


def _announce(schedule: Schedule, console: Console) -> None:
    """Before: what will run, on what, and about how long it takes."""
    from tunelab import gate, terminal, trackers

    plan, spec, d = schedule.plan, schedule.plan.spec, schedule.plan.dataset
    rows = " / ".join(f"{len(s):,}" for s in d.parts.values())
    say = [
        f"Data     {d.name}: {rows} rows (train / validation / test), "
        f"{len(d.label_names)} classes: {_first_few(d.label_names)}"
    ]
    say += [f"         {note}" for note in (*d.notes, *_duplicate_lines(d))]
    say += [f"         {line}" for line in gate.lines(plan.gate)]
    if plan.base:
        say.append(f"Model    {plan.base.ref.name} ({plan.base.model_type})")
    say.append(
        f"Methods  {', '.join(m.label for m in spec.methods)}; seeds {_first_few(spec.seeds)}"
    )
    say += [f"         {note}" for note in (*spec.notes, *schedule.notes)]
    say += [f"Tuning   {line}" for line in _tuning_lines(schedule.progress)]
    for other in plan.others:
        say.append(f"Test on  {other.name}: {len(other.split):,} rows")
        say += [f"         {note}" for note in other.notes]
    say.append(f"Trials   {_what_is_to_run(schedule)}")
    if schedule.why:
        say.append(f"         {schedule.why}")
    say.append(f"Finds    {_finds(schedule.progress)}")
    say.append(f"Folder   {spec.output_dir}")
    say += [f"Reports  to {line}" for line in trackers.where(spec.report_to, spec.output_dir)]
    for line in say:
        terminal.say(console, line, indent=9)


def _what_is_to_run(schedule: Schedule) -> str:
    """How many trials, of which kinds, and about how long they take."""
    from tunelab.summary import format_seconds

    progress = schedule.progress
    todo = {t.trial_id for t in progress.todo}
    shown = [t.trial_id for t in (*progress.trials, *progress.curve)]
    seeds = len(progress.plan.spec.tuning.seeds)
    count = len(progress.todo) + sum(progress.proposals.values()) * seeds
    tries = count - len(todo.intersection(shown))
    done = sum(trial_id not in todo for trial_id in shown)
    parts = [f"{tries} of them to tune"] if tries else []
    parts += [f"{len(progress.curve)} on fewer rows"] if progress.curve else []
    parts += [f"{done} already done"] if done else []
    takes = f": about {format_seconds(schedule.total_seconds)}" if count else ""
    return f"{', '.join([f'{count} to run', *parts])}{takes}"


def _tuning_lines(progress: Progress) -> list[str]:
    """What each method tries, or what was chosen for it."""
    spec, t = progress.plan.spec, progress.plan.spec.tuning
    if not t.spaces and not any("learning_rate" in m.settings for m in progress.methods):
        return ["none has a learning rate; an SVM chooses its C on validation in each trial"]
    if not t.spaces:
        return ["off: every method is trained with the settings given"]
    start = {m.label: m.settings for m in spec.methods}
    still_tuned = {x.method.label for x in progress.tries} | set(progress.proposals)
    lines = []
    for m in progress.methods:
        if m.label not in t.spaces:
            continue
        names = ", ".join(t.spaces[m.label])
        if m.label in still_tuned:
            many = t.tries(m.label)
            lines.append(f"{m.label}: {many} settings of {names}, by {spec.metric} on validation")
        else:
            now = ", ".join(f"{k} = {m.settings[k]}" for k in t.spaces[m.label])
            same = all(m.settings[k] == start[m.label][k] for k in t.spaces[m.label])
            lines.append(f"{m.label}: {now} (chosen{', as recommended' if same else ''})")
    return lines


def _finds(progress: Progress) -> str:
    """The smallest difference that this study could find."""
    from tunelab import study

    found = study.power(progress)
    why = {
        "stated": "as stated",
        "usual": "the usual; --disagreement states another",
        "trials that are done": "as in the trials that are done",
    }[found.source]
    few = ""
    if found.seeds < found.least_seeds:
        few = f"; with fewer than {found.least_seeds} seeds no method is called better"
    same = f", {100 * found.shared:.0f}% of it with every seed" if found.shared < 1 else ""
    pairs = math.comb(len(progress.plan.spec.methods), 2)
    among = f", {100 * found.among:.1f} for the first of {pairs} pairs" if pairs > 1 else ""
    return (
        f"differences of {100 * found.difference:.1f} points of accuracy and more, 4 times of 5"
        f"{among} ({found.rows:,} test rows, {100 * found.disagreement:.0f}% disagreement{same}, "
        f"{why}){few}"
    )


def _first_few(values: Sequence[object], most: int = 8) -> str:
    words = (" ".join(str(v).split()) for v in values[:most])
    shown = ", ".join(w if len(w) <= 60 else f"{w[:59]}…" for w in words)
    return shown + (f", ... ({len(values)} in all)" if len(values) > most else "")


def _duplicate_lines(d: Dataset) -> list[str]:
    parts = [f"{n} within {k}" for k, n in d.duplicates.within.items() if n]
    parts += [f"{n} in both of {k}" for k, n in d.duplicates.across.items() if n]
    out = [f"exact duplicates: {', '.join(parts) or 'none'}"]
    if d.duplicates.conflicting:
        out.append(f"texts with more than one label: {d.duplicates.conflicting}")
    return out


def _console(quiet: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=True, quiet=quiet)


def show_summary(study: Study, metric: str | None = None, *, advise: bool = True) -> None:
    """After: the table, the sentences, where things are; and what to take (`advise`)."""
    from tunelab import summary, terminal

    folder = study.directory
    said = study.summary if metric is None else summary.summarise(study.record, metric)
    headings, rows = summary.display(said)
    out = terminal.console()
    out.print()
    if rows:
        terminal.print_table(headings, rows)
    for line in (summary.headline(said) + ".", *said.sentences):
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
    from tunelab import store, summary, terminal, tradeoff

    folder, record = study.directory, study.record
    found = tradeoff.recommend(record, summary=said)
    trial = summary.best_trial(record, said, found.choice)
    if trial is None:
        return
    out = terminal.console()
    terminal.say(out, f"{found.short}.", indent=2)
    artifact = shlex.quote(str(store.artifact_dir(folder, trial.spec.trial_id)))
    # Commands are there to be copied: no line is broken within one.
    use = f'Use it: tunelab predict {artifact} "your text"'
    other = "" if said.metric == record.settings["metric"] else f" --metric {said.metric}"
    why = f"Reasons and conditions: tunelab recommend {shlex.quote(str(folder))}{other}"
    for line in (use, why):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_more(folder: Path, metric: str) -> None:
    """The race, learning curves and other data, where the study has them."""
    from tunelab import curves, racing, store, terminal, transfer

    record = store.read_study(folder)
    out = terminal.console()
    if record.race is not None:
        for line in racing.sentences(racing.race_from_json(record.race)):
            terminal.say(out, line, indent=2)
    found = curves.learning_curves(record, metric) if record.curve else None
    if found is not None:
        terminal.print_table(*curves.display(found), "Learning curves")
        for c in found.crossings:
            terminal.say(out, c.sentence, indent=2)
    elsewhere = transfer.display(record, metric)
    if elsewhere is not None:
        terminal.print_table(*elsewhere, "On other data")


# --- predict --------------------------------------------------------------------------------


@click.command(short_help="Label texts with a trained classifier.")
@click.argument("artifact", type=FOLDER, metavar="FOLDER")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", type=FOLDER, help="Texts: CSV, TSV, JSON, Parquet, .txt.")
@click.option(
    "--output-file", type=FOLDER, help="Write the file's rows with label and probability added."
)
@click.option("--text-column", metavar="NAME", help="Column of the texts (else guessed).")
@click.option("--encoding", default="utf-8", show_default=True, metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="JSON lines with every class's probability.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What layers compute in. float32: exact; auto: float32 to five digits, faster where the "
    "processor has matrix tiles; bfloat16: faster still, and rounds.",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Divide scores by the temperature fitted on validation: same labels, truer probabilities.",
)
@trust_option
def predict(artifact: Path, texts: tuple[str, ...], **given: Any) -> None:
    """Label texts with a trained classifier: a folder from `train`, a trial, or a study (its best).

    A text of "-" reads lines from standard input. A file may be of any size: it is checked from end
    to end first, then labelled some thousand rows at a time.
    """
    file, output, as_json = given["file"], given["output_file"], given["as_json"]
    if file is None and not texts:
        raise InputError('No texts: give some, or --file. For example: tunelab predict out "good"')
    if file is not None and texts:
        raise InputError("Texts given twice: as arguments and as --file. Give one of them.")
    if output is not None and file is None:
        raise InputError("--output-file goes with --file: it is that file with labels added.")
    from tunelab import api, tables

    if output is not None:
        tables.check_writable(output)
        if output.exists() and file.exists() and output.samefile(file):
            raise InputError(
                f"--output-file {output}: is the file of texts itself, which would be lost. "
                "Choose another."
            )

    source = None
    if file is not None:
        source = tables.open_texts(file, given["text_column"], given["encoding"])
    loaded = api.load(artifact, trust_remote_code=bool(given["trust_remote_code"]))
    if given["calibrated"]:
        loaded = loaded.calibrated()
    classifier = loaded.computing_in(given["precision"])
    for note in classifier.notes:
        click.echo(note, err=True)
    if source is not None and output is not None:
        tables.write_windows(
            output,
            (_with_predictions(window, classifier) for window in source.windows()),
            lambda: (_with_predictions(window) for window in source.windows()),
        )
        click.echo(f"Labelled {source.rows:,} texts into {output}.", err=True)
        _say_blank(source.blank)
        return
    if source is not None:
        windows: Iterator[list[str]] = (window.texts for window in source.windows())
    else:
        lines = _lines_in(given["encoding"]) if texts == ("-",) else iter(texts)
        windows = iter(lambda: list(itertools.islice(lines, tables.WINDOW_ROWS)), [])
    blank = 0
    for some in windows:
        _say_labels(some, classifier, as_json)
        blank += sum(not text.strip() for text in some)
    _say_blank(blank)


def _lines_in(encoding: str) -> Iterator[str]:
    """Lines of standard input, decoded strictly. Raises InputError, naming the line."""
    for n, line in enumerate(getattr(sys.stdin, "buffer", sys.stdin), start=1):
        try:
            yield (line if isinstance(line, str) else line.decode(encoding)).rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError(
                f"standard input: line {n} is not {encoding.upper()}. Convert it, or name its "
                "encoding, e.g. --encoding cp1252."
            ) from None
        except LookupError:
            raise InputError(
                f"no such text encoding: {encoding!r}. Common: utf-8, cp1252."
            ) from None


def _say_blank(blank: int) -> None:
    """Blank texts keep their place and get a label too, which means nothing."""
    if blank:
        many = "texts are blank: their labels mean"
        click.echo(
            f"{blank:,} {many if blank > 1 else 'text is blank: its label means'} nothing.",
            err=True,
        )


def _say_labels(texts: list[str], classifier: TextClassifier, as_json: bool) -> None:
    for text, row in zip(texts, classifier.predict_proba(texts), strict=True):
        best = int(row.argmax())
        label = classifier.label_names[best]
        if as_json:
            each = {n: round(float(v), 6) for n, v in zip(classifier.label_names, row, strict=True)}
            click.echo(
                json.dumps(
                    {"text": text, "label": label, "probabilities": each}, ensure_ascii=False
                )
            )
        else:
            said, plain = (" ".join(x.split()) for x in (label, text))
            click.echo(f"{said}\t{round(float(row[best]), 6):.3f}\t{plain}")


def _with_predictions(
    window: tables.TextTable, classifier: TextClassifier | None = None
) -> dict[str, list[Any]]:
    """A window's columns with label and probability added; without a classifier, of their types."""
    labels, top = [""] * len(window.texts), [0.0] * len(window.texts)
    if classifier is not None:
        probabilities = classifier.predict_proba(window.texts)
        best = probabilities.argmax(axis=1)
        labels = [classifier.label_names[k] for k in best]
        top = [round(float(p[k]), 6) for p, k in zip(probabilities, best, strict=True)]
    columns = dict(window.columns)
    columns[_free_column_name("predicted_label", columns)] = labels
    columns[_free_column_name("probability", columns)] = top
    return columns


def _free_column_name(name: str, columns: Container[str]) -> str:
    """The name, or the name with a number where the file has such a column already."""
    n, free = 2, name
    while free in columns:
        free, n = f"{name}_{n}", n + 1
    return free


# --- inspect --------------------------------------------------------------------------------


@click.group(short_help="Look at data or a model before training.")
def inspect() -> None:
    """Look at data or a model before training."""


@inspect.command(
    "data",
    cls=FlagCommand,
    short_help="Sizes, lengths, samples; duplicates, leaks and other faults.",
)
@click.argument("source", metavar="DATA")
@click.option(
    "--model",
    default="minilm",
    show_default=True,
    metavar="MODEL",
    help="Whose tokens are counted.",
)
@click.option("--max-length", type=click.IntRange(4), default=128, show_default=True)
@click.option(
    "--test-on",
    "others",
    multiple=True,
    metavar="DATA",
    help="Look for these data's rows among the training rows too.",
)
@data_flags
@json_option
def inspect_data(
    source: str, model: str, max_length: int, others: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Sizes, label balance, lengths in words and tokens, samples of each label; and the data gate:
    leaks and near duplicates, conflicting and doubtful labels, columns and words that give the
    label away, imbalance, HTML, wrong encodings, other languages, odd lengths.
    """
    from dataclasses import asdict

    from tunelab import bases, data, gate, tokens
    from tunelab.terminal import data_card

    base = bases.resolve(model)
    dataset = data.load(_data_spec(source, **given))
    facts = data.describe(dataset)
    facts["tokens"] = tokens.lengths(dataset, base, max_length)
    found = gate.inspect(dataset)
    across = [f for o in others for f in gate.against(dataset, data.load(_data_spec(o)))]
    if as_json:
        facts["gate"] = gate.gate_to_json(found)
        facts["test_on"] = [asdict(f) for f in across]
        print_json(facts)
        return
    data_card(facts)
    click.echo("\nData gate")
    for line in (*gate.lines(found), *(gate.line(f) for f in across), *found.notes):
        click.echo(f"  {line}")
    for finding in (*found.findings, *across):
        click.echo(f"\n{finding.check} ({finding.where}), for example:")
        for example in finding.examples[:3]:
            if example.note:
                click.echo(f"  {example.note}")
            for row in example.rows:
                click.echo(f"    {row.part} {row.id} [{row.label}] {' '.join(row.text.split())}")


def _data_spec(source: str, **given: Any) -> DataSpec:
    from tunelab.types import DataSpec

    return DataSpec(source, **{k: v for k, v in given.items() if v is not None})


@inspect.command("model", short_help="Parts, tokens, shapes, LoRA targets, trainable parameters.")
@click.argument("name", default="minilm", metavar="[MODEL]")
@click.option("--text", default=SAMPLE, help="Text to tokenize.")
@json_option
def inspect_model(name: str, text: str, as_json: bool) -> None:
    """Architecture, parameters, tokens of a text, shapes, LoRA targets, what each method trains."""
    from tunelab import inspect_model as look
    from tunelab.terminal import model_card

    facts = look.inspect(name, text)
    if as_json:
        print_json(facts)
    else:
        model_card(facts)


# --- runs, schema ---------------------------------------------------------------------------


@click.group(short_help="List studies and show their results.")
def runs() -> None:
    """List studies and show their results."""


@runs.command("list")
@click.argument("root", type=FOLDER, required=False)
@json_option
def runs_list(root: Path | None, as_json: bool) -> None:
    """Studies in a folder (runs): how far each is, and its best method."""
    from tunelab import api, store, summary

    if root is not None and not root.is_dir():
        raise InputError(f"{root}: there is no such folder. Give one that holds studies.")
    root = root or Path("runs")
    found = store.find_studies(root)
    rows = []
    for folder in found:
        study = api.Study(folder)
        r = study.record
        said = study.summary if r.results else None
        rows.append(
            {
                "study": str(folder),
                "done": len(r.done),
                "failed": len(r.failed),
                "missing": len(r.missing),
                "best": said.best if said else None,
                "data": r.settings["data"]["source"],
                "model": r.settings["model"],
                "answer": summary.headline(said) if said else None,
            }
        )
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"No studies in {root}. Make one: tunelab compare --data demo")
        return
    from tunelab.terminal import print_table

    heads = ["Study", "Data", "Model", "Done", "Failed", "Missing", "Best"]
    keys = ["study", "data", "model", "done", "failed", "missing", "best"]
    print_table(heads, [[str(r[k] if r[k] is not None else "-") for k in keys] for r in rows])


@runs.command("show")
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Table, comparisons and sentences as JSON.")
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
def runs_show(folder: Path, as_json: bool, metric: str | None) -> None:
    """The table and verdicts of a study."""
    from tunelab import api, config, summary

    study = api.Study(folder)
    if metric is not None:
        config.require_metric(metric)
    if as_json:
        said = summary.summarise(study.record, metric)
        print_json(summary.to_json(said))
    else:
        show_summary(study, metric)


# --- where a method fails, and whether it knows ----------------------------------------------


@click.command("slices", short_help="Where each method of a study is weaker or stronger.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option("--by", metavar="A,B,..", help="length, label, file or columns of the data (all).")
@json_option
def slices_(folder: Path, by: str | None, as_json: bool) -> None:
    """Accuracy by length, label, file and any column, with intervals over seeds and rows.

    A slice is named only where it truly differs from the rest (Holm over all that were looked at).
    """
    from tunelab import slices, store, summary
    from tunelab.errors import suggest

    record = store.read_study(folder)
    runs = summary.read_runs(record)["test"]
    rows = store.read_rows(folder)
    if rows is None or not runs:
        what = "no finished trial" if rows is not None else "no rows.parquet (an older study)"
        raise InputError(
            f"{folder}: {what}, so there is nothing to cut. Run it again: tunelab compare {folder}"
        )
    if any(p.ids != rows.ids for r in runs.values() for p in r.by_seed.values()):
        raise InputError(
            f"{folder}: rows.parquet has other row ids than the predictions. "
            f"Run the study again: tunelab compare {folder}"
        )
    cuts = slices.attributes(rows, record.data["label_names"])
    for name in comma_names(by) or []:
        if name not in cuts:
            raise InputError(f"--by {name}: no such cut.{suggest(name, cuts, what='Cuts')}")
    chosen = {name: cuts[name] for name in comma_names(by) or cuts}
    found = slices.find_slices(list(runs.values()), chosen)
    if as_json:
        print_json(slices.slices_to_json(found))
        return
    from tunelab.summary import format_estimate
    from tunelab.terminal import console, print_table, say

    heads = ["Slice", "Value", "Rows", *runs]
    cells: dict[tuple[str, str, int], dict[str, str]] = {}
    for s in found:
        text = format_estimate(s.accuracy, "percent") + (" *" if s.named else "")
        cells.setdefault((s.column, s.value, s.rows), {})[s.label] = text
    if not found:
        click.echo(
            f"No slice to look at: each needs {slices.LEAST_ROWS} test rows in it and as many "
            f"outside; the test part has {len(rows.ids):,}."
        )
        return
    print_table(
        heads,
        [[c, v, f"{n:,}", *(row.get(m, "-") for m in runs)] for (c, v, n), row in cells.items()],
    )
    told = [slices.slice_sentence(s, len(found)) for s in slices.named_slices(found)]
    out = console()
    for line in told or [f"None of {len(found)} slices is shown to differ from the rest."]:
        say(out, f"* {line}" if told else line, indent=2)


@click.command(
    "calibration", short_help="Whether the probabilities of a study's methods are right."
)
@click.argument("folder", type=FOLDER, metavar="STUDY")
@json_option
def calibration_(folder: Path, as_json: bool) -> None:
    """Calibration error and Brier score on test with intervals, before and after temperature
    scaling (fitted on validation).
    """
    from tunelab import calibration, store, summary

    runs = summary.read_runs(store.read_study(folder))
    found = calibration.calibrate_all(runs["validation"], runs["test"])
    if as_json:
        print_json(calibration.calibrations_to_json(found))
        return
    from tunelab.terminal import console, print_table, say

    heads = ["Method", "Calibration error, %", "scaled", "Brier score", "scaled", "Temperature"]
    rows = []
    for c in found:
        both = (c.before, c.after)
        ece = [summary.format_estimate(q.ece if q else None, "percent") for q in both]
        score = [summary.format_estimate(q.brier if q else None, "number") for q in both]
        hot = ", ".join(f"{t:.2f}" for t in c.temperatures.values())
        rows.append([c.label, *ece, *score, hot or "-"])
    print_table(heads, rows)
    out = console()
    for c in found:
        say(out, f"{calibration.calibration_sentence(c)}.", indent=2)


@click.command("behaviour", short_help="Behaviour tests of a classifier or of a study's methods.")
@click.argument("folder", type=FOLDER, metavar="FOLDER")
@click.option("--suite", metavar="FILE", help="A suite's YAML file (English sentiment).")
@trust_option
@json_option
def behaviour_(
    folder: Path, suite: str | None, trust_remote_code: bool | None, as_json: bool
) -> None:
    """How often negation, names, typos, praise added and the like lead a classifier astray.

    FOLDER is a folder from `train`, a trial's, or a study: there every method, over its seeds.
    """
    from dataclasses import asdict

    from tunelab import api
    from tunelab.summary import format_estimate
    from tunelab.terminal import print_table

    found = api.behaviour(folder, suite, trust_remote_code=bool(trust_remote_code))
    if as_json:
        print_json([asdict(r) for r in found])
        return
    labels = list(dict.fromkeys(r.label for r in found))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for r in found:
        key = (r.test, r.capability, r.kind, str(r.cases))
        rows.setdefault(key, {})[r.label] = format_estimate(r.failure, "percent")
    print_table(
        ["Test", "Capability", "Kind", "Cases", *labels],
        [[*key, *(row.get(m, "-") for m in labels)] for key, row in rows.items()],
        "Failures in percent, with 95% intervals over seeds and cases",
    )
    for r in found:
        for e in r.examples[:1]:
            then = f" -> {e.other!r} [{e.predicted_other}]" if e.other is not None else ""
            click.echo(f"{r.label}, {r.test}: {e.text!r} [{e.predicted}]{then}")


@click.command(short_help="Print the JSON schema of a study file.")
def schema() -> None:
    """Print the JSON schema of a study file, for editors."""
    from tunelab import config

    click.echo(json.dumps(config.schema(), indent=2))


# In the order of --help.
for _verb in (
    compare,
    extend,
    train,
    predict,
    inspect,
    runs,
    slices_,
    calibration_,
    behaviour_,
    adapters,
    report,
    *COMMANDS,
    schema,
):
    app.add_command(_verb)


_CHECK = "Check that the file is there and may be read, or the folder written."
_SYSTEM: dict[int | None, str] = {
    errno.ENOSPC: "Make room on the disk and run the same command again: what is done is kept.",
    errno.EFBIG: "The system allows no larger file; write to another disk.",
}


def main() -> None:
    """Run the command line in a process of its own."""
    # Libraries make a million objects while they are imported, none of them garbage; to look for it
    # all the time, and once more at the end, took a third of the time of labelling one text.
    gc.set_threshold(_GARBAGE)
    atexit.register(gc.freeze)
    run()


def run() -> None:
    """Run the command line; turn our errors into one line and an exit code."""
    try:
        app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.ctx.get_help() if e.ctx else "")
        sys.exit(0)
    except click.ClickException as e:
        click.echo(f"tunelab: {e.format_message()}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except InputError as e:
        for line in str(e).splitlines():
            click.echo(f"tunelab: {line}", err=True)
        sys.exit(2)
    except TunelabError as e:
        click.echo(f"tunelab: {e}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except OSError as e:
        # The system refused: a full disk, a folder that may not be written. Else it is our fault.
        if e.filename is None and e.errno not in _SYSTEM:
            raise
        where = "" if e.filename is None else f"{e.filename}: "
        click.echo(f"tunelab: {where}{e.strerror}. {_SYSTEM.get(e.errno, _CHECK)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
