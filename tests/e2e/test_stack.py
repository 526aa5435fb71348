"""Studies whose LoRA trials are trained in one pass: equal results, honest about their cost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from commands import Said
from tunelab import study
from tunelab.core import machine, study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.events import Step
from tunelab.models import text_classifier
from tunelab.study import estimate, resolve

SHORT: dict[str, Any] = {
    "max_length": 32, "precision": "float32", "lora_dropout": 0.1, "num_train_epochs": 2,
}  # fmt: skip
METHODS: list[Any] = [
    {"name": "lora", "r": [2, 4]},
    {"name": "rslora", "target_modules": "query"},
    {"name": "lora", "label": "broken", "lora_alpha": 1e300},
    {"name": "lora", "label": "odd", "bias": "all"},
]  # fmt: skip


def planned(reviews: Path, model: Path, folder: Path, **more: Any) -> study.Schedule:
    flags = {
        "data.source": str(reviews), "model": str(model), "methods": ["lora"], "tuning": False,
        "seeds": 2, "output_dir": str(folder), "jobs": 1, **more,
    }  # fmt: skip
    return study.scheduled(study.plan(resolve.resolve_study(None, flags, SHORT)))


def ready(reviews: Path, model: Path, folder: Path, stack: int | str) -> study.Schedule:
    text = (
        f"data: {reviews}\nmodel: {model}\nseeds: 1\noutput_dir: {folder}\njobs: 1\ntuning: off\n"
        f"stack: {stack}\ntraining: {SHORT}\nmethods: {METHODS}\n"
    )
    path = folder.with_suffix(".yaml")
    path.write_text(text)
    p = study.scheduled(study.plan(resolve.resolve_study(path, {})))
    study.write(p.progress, "test")
    return p


def test_a_stacked_study_gives_what_trials_alone_give(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    alone = ready(reviews_csv, tiny_bert, tmp_path / "alone", "off")
    stacked = ready(reviews_csv, tiny_bert, tmp_path / "stacked", 4)
    assert alone.notes == ()
    assert stacked.notes == (
        "stack: odd trains alone: bias: all changes more than adapters and head",
    )
    theirs = {r.spec.trial_id: r for r in study.run(alone, lambda _: None, engine="inline")}
    ours = {r.spec.trial_id: r for r in study.run(stacked, lambda _: None)}
    assert theirs.keys() == ours.keys()
    assert len(ours) == 5
    for i, a in theirs.items():
        b, label = ours[i], a.spec.method.label
        assert b.provenance.get("stack", 1) == (1 if label == "odd" else 4)
        if label == "broken":  # takes nobody along
            assert (a.status, b.status) == ("failed", "failed")
            assert b.error == a.error
            continue
        assert (a.status, b.status) == ("done", "done"), b.error
        for part in ("validation", "test"):
            x, y = (
                study_folder.read_predictions(f, i)[part].scores
                for f in (tmp_path / "alone", tmp_path / "stacked")
            )
            np.testing.assert_allclose(x, y, atol=1e-3)
        x, y = (study_folder.read_history(f, i) for f in (tmp_path / "alone", tmp_path / "stacked"))
        assert len(x) == len(y)
        for left, right in zip(x, y, strict=True):
            assert right == pytest.approx(left, abs=1e-4)
        kept = text_classifier.open_classifier(
            study_folder.trial_dir(tmp_path / "stacked", i) / "artifact"
        ).classifier
        texts = ["a good film", "a dull plot"]
        assert kept.scores(texts).shape == (2, 2)
    lora = [r for r in ours.values() if r.spec.method.label != "odd" and r.status == "done"]
    assert all(r.details["stack"] == 4 and r.details["engine"] == "packed" for r in lora)
    # A second run finds everything done but what failed.
    assert {t.method.label for t in study.read_progress(stacked.plan).todo} == {"broken"}


def test_costs_of_a_stack_are_marked(
    cli: Callable[..., Said], reviews_csv: Path, tiny_bert: Path
) -> None:
    said = cli(
        "compare", reviews_csv, "--model", tiny_bert, "--methods", "lora", "--tuning", "off",
        "--seeds", 2, "--stack", 2, "--jobs", 1, "--num-train-epochs", 1, "--max-length", 32,
        "--output-dir", "out",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "All trials were trained in stacks, up to 2 in one pass" in " ".join(said.out.split())
    results = study_folder.read_study(Path("out")).results
    assert [r.provenance["stack"] for r in results] == [2, 2]
    # A share of the time: all of them together took no longer than they were there.
    assert sum(r.cost.train_seconds or 0 for r in results) < sum(
        r.provenance["seconds"] for r in results
    )


@pytest.mark.slow
def test_trials_of_a_stack_that_is_killed_run_by_themselves(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    p = planned(reviews_csv, tiny_bert, tmp_path / "out", stack=2)
    study.write(p.progress, "test")
    killed = False

    def kill_once(event: study.StudyEvent) -> None:
        nonlocal killed
        if not killed and isinstance(event, Step):
            killed = True
            (trial,) = [c for w in psutil.Process().children() for c in w.children()]
            os.kill(trial.pid, signal.SIGKILL)

    results = list(study.run(p, kill_once))
    assert killed
    assert [r.status for r in results] == ["done", "done"]
    assert all("stack" not in r.provenance for r in results)


def test_auto_stacks_only_on_a_card(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = planned(reviews_csv, tiny_bert, tmp_path / "out")
    (t, *_) = p.progress.trials
    monkeypatch.setattr(machine, "has_card", lambda: False)
    assert estimate.stack_size(None, t, p.plan.dataset) == 1
    monkeypatch.setattr(machine, "has_card", lambda: True)
    assert estimate.stack_size(None, t, p.plan.dataset) == 16
    monkeypatch.setattr(estimate, "_TOKENS_THAT_FILL_A_CARD", 500)
    assert 1 <= estimate.stack_size(None, t, p.plan.dataset) < 4
    assert estimate.stack_size(3, t, p.plan.dataset) == 3


@pytest.mark.parametrize("value", ["0", "1", "-2", "many", "1.5", "true"])
def test_stacks_that_are_no_number_are_refused(
    value: str, cli: Callable[..., Said], reviews_csv: Path
) -> None:
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf", "--stack", value)
    assert said.code == 2
    assert "stack" in said.err


def test_off_is_off_as_yaml_reads_it(reviews_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"data: {reviews_csv}\nmethods: [svm-tfidf]\nstack: off\n")
    assert resolve.resolve_study(path, {}).stack == 1
    path.write_text(f"data: {reviews_csv}\nmethods: [svm-tfidf]\nstack: all\n")
    with pytest.raises(ConfigError, match="stack"):
        resolve.resolve_study(path, {})
