"""What is said while a study runs: a live table that fits the terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from studies import MANY, METHODS, make_study
from tunelab.cli.progress import Display
from tunelab.core.events import Evaluated, Started, Step
from tunelab.core.study_folder import StudyRecord, read_study
from tunelab.core.values import TrialResult
from tunelab.study import Plan, Progress, Schedule
from tunelab.study.durations import Duration
from tunelab.study.spec import StudySpec


def plan_of(record: StudyRecord, done: int = 0, metric: str = "accuracy") -> Schedule:
    """The schedule of a study of which `done` trials are there; the others are still to run."""
    trials = tuple(r.spec for r in record.results)
    results = {r.spec.trial_id: r for r in record.results}
    first, *_ = record.results
    spec = StudySpec(
        data=first.spec.data,
        model="none",
        trust_remote_code=False,
        methods=tuple({r.spec.method.label: r.spec.method for r in record.results}.values()),
        seeds=tuple(dict.fromkeys(r.spec.seed for r in record.results)),
        metric=metric,
        output_dir=record.directory,
        sources={},
        notes=(),
    )
    unread: Any = None
    plan = Plan(spec, unread, unread, None, unread)
    progress = Progress(plan, (), trials, (), (), {}, trials[done:], results, renamed={}, copies={})
    return Schedule(progress, {t.trial_id: Duration(10.0, 2.0) for t in progress.todo})


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height)


def play(display: Display, results: tuple[TrialResult, ...]) -> None:
    for r in results:
        trial_id = r.spec.trial_id
        display.event(Started(trial_id))
        display.event(Evaluated(42, 1.5, {"eval_accuracy": 0.81234}, 84, trial_id))
        display.event(Step(42, 1.5, 0.4321, 2e-4, 84, 412.0, trial_id))
        display.result(r)


def shown(display: Display, console: Console) -> list[str]:
    # Printed elsewhere: on its own console the live table would follow it.
    other = terminal(console.width, console.height)
    other.print(display.render())
    return _unstyled(other.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def _unstyled(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return read_study(make_study(tmp_path_factory.mktemp("study"), fail=[("lora", 1)]))


def test_the_table_has_the_means_the_best_and_the_failures(record: StudyRecord) -> None:
    console = terminal()
    with Display(plan_of(record), console) as display:
        play(display, record.results[:7])
        lines = shown(display, console)
    rows: dict[str, str] = {}
    for line in lines:  # the first of each name: the bars below begin with one too
        rows.setdefault((line.split() or [""])[0], line)
    scores: dict[str, list[float]] = {}
    for r in record.results[:7]:
        if r.status == "done":
            scores.setdefault(r.spec.method.label, []).append(r.scores["eval_accuracy"])
    for label, values in scores.items():
        assert f"{len(values)}/3" in rows[label]
        assert f"{100 * sum(values) / len(values):.1f}" in rows[label]
    best = max(scores, key=lambda m: sum(scores[m]) / len(scores[m]))
    assert [m for m in scores if "best so far" in rows[m]] == [best]
    assert lines.index(rows[best]) < min(lines.index(rows[m]) for m in scores if m != best)
    assert any("7/12" in line for line in lines)


def test_a_failure_is_said_at_once(record: StudyRecord) -> None:
    console = terminal()
    failed = next(r for r in record.results if r.status == "failed")
    with Display(plan_of(record), console) as display:
        play(display, (failed,))
        said = _unstyled(console.file.getvalue())  # type: ignore[attr-defined]
        assert "failed  lora seed 1: RuntimeError: the loss is not finite" in said
        lines = shown(display, console)
    assert any(line.startswith("lora") and "1 failed" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("height", [14, 24])
def test_it_fits_the_terminal(width: int, height: int, tmp_path: Path) -> None:
    long = replace(METHODS[3], label="lora[r=16,target_modules=all-linear,use_dora=True]")
    record = read_study(make_study(tmp_path, methods=[*MANY, long], seeds=1, rows=60))
    console = terminal(width, height)
    with Display(plan_of(record), console) as display:
        play(display, record.results[:-1])
        display.event(Started(record.results[-1].spec.trial_id))
        lines = shown(display, console)
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert len(lines) <= height
    assert any(line.startswith("and ") and "more" in line for line in lines) == (height == 14)


def test_what_an_earlier_run_did_is_in_the_table(record: StudyRecord) -> None:
    console = terminal()
    with Display(plan_of(record, done=4), console) as display:
        lines = shown(display, console)
    assert [m for m in ("3/3", "1/3") if any(m in line for line in lines)] == ["3/3", "1/3"]
    assert any("0/8" in line for line in lines)


def test_in_a_pipe_a_line_is_a_trial(record: StudyRecord) -> None:
    console = Console(file=io.StringIO(), width=80)
    with Display(plan_of(record), console) as display:
        play(display, record.results)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == len(record.results)
    assert "\x1b" not in "".join(lines)
    assert all(line.startswith(("done  ", "failed")) for line in lines)
    assert "full seed 0" in "".join(lines)


def test_a_quiet_console_says_nothing(record: StudyRecord) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, quiet=True)
    with Display(plan_of(record), console) as display:
        play(display, record.results)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_metric_that_is_no_percentage_is_not_shown_as_one(record: StudyRecord) -> None:
    console = terminal()
    with Display(plan_of(record, metric="log_loss"), console) as display:
        play(display, record.results)
        lines = shown(display, console)
    means = [line for line in lines if line.startswith("full")]
    value = next(r for r in record.done if r.spec.method.label == "full").scores["eval_log_loss"]
    assert value is not None
    assert f"{value:.1f}" != f"{100 * value:.1f}"
    assert "0." in means[0]


def test_names_are_not_read_as_markup(tmp_path: Path) -> None:
    odd = replace(METHODS[3], label="lora[red]x[/red]")
    record = read_study(make_study(tmp_path, methods=[METHODS[2], odd], seeds=1, rows=60))
    console = terminal()
    with Display(plan_of(record), console) as display:
        display.event(Started(record.results[1].spec.trial_id))
        lines = shown(display, console)
    assert sum("lora[red]x[/red]" in line for line in lines) == 2
