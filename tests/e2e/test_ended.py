"""Trials that are ended while they train, told to or killed, and go on where they were."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_resume import started, wait_for

from commands import run_here
from tunelab.api import Study, compare
from tunelab.core import study_folder
from tunelab.core.values import Predictions

SETTINGS: dict[str, Any] = {"num_train_epochs": 150, "max_length": 32, "learning_rate": 1e-3}


def kill_all(process: psutil.Process) -> None:
    """As a power cut: nobody is told, and nothing is put away."""
    for one in (process, *process.children(recursive=True)):
        one.send_signal(signal.SIGKILL)


def written(folder: Path, after: float = 0.0) -> Callable[[], list[Path]]:
    """Whole checkpoints of a folder that are younger than this."""
    return lambda: [p for p in folder.glob("lora-*/sha256") if p.stat().st_mtime > after]


@pytest.mark.slow
def test_killed_or_told_to_end_a_trial_gives_what_it_would_have_given(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    def compared(study: Path) -> Study:
        return compare(
            reviews_csv, model=str(tiny_bert), methods="lora", seeds=1, tuning=False,
            output_dir=study, engine="inline", on_event=lambda e: said.append(str(e)), **SETTINGS,
        )  # fmt: skip

    said: list[str] = []
    whole = compared(tmp_path / "whole")
    study, out = tmp_path / "killed", tmp_path / "out"
    flags = [x for k, v in SETTINGS.items() for x in (f"--{k.replace('_', '-')}", v)]
    ends = (reviews_csv, "--model", tiny_bert, *flags, "--checkpoint-every", "0.2")
    one = ("--methods", "lora", "--seeds", 1, "--tuning", "off", "--output-dir", study)
    with started("compare", *ends, *one) as process:
        wait_for(written(study / "checkpoints"))
        kill_all(psutil.Process(process.pid))
    assert contents(compared(study)) == contents(whole)  # without the key it goes on too
    assert any("lora, seed 0: goes on after step" in line for line in said)
    assert not (study / "checkpoints").exists()

    # The same trial by `train`, whose folder is not there until it ends.
    train = ("train", *ends, "--method", "lora", "--output-dir", out)
    hidden = tmp_path / ".out.checkpoints"
    with started(*train) as process:
        wait_for(written(hidden))
        before = time.time()
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert written(hidden, before)()  # when it was told
    assert not out.exists()
    assert run_here(*train).code == 0
    assert not hidden.exists()
    (trial,) = whole.record.results
    history = study_folder.trial_dir(whole.directory, trial.spec.trial_id) / "history.jsonl"
    assert (out / "trial" / "history.jsonl").read_bytes() == history.read_bytes()


def contents(study: Study) -> list[object]:
    """What its trials gave: scores, history, and predictions by row."""
    record = study.record
    return [
        [r.scores, record.history(r.spec.trial_id), rows_of(record.predictions(r.spec.trial_id))]
        for r in record.results
    ]


def rows_of(predictions: Mapping[str, Predictions]) -> list[object]:
    return [(name, p.ids, p.scores.tobytes()) for name, p in sorted(predictions.items())]
