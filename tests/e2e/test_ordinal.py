"""A study of a scale: stars from 1 to 5, compared by quadratic kappa."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import FAST, run_here
from tiny import BAD, GOOD, PLAIN, write_csv
from tunelab.core import study_folder
from tunelab.core.values import DataSpec
from tunelab.study.trial import make_spec


def stars(path: Path, n: int = 100) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        star = 1 + i % 5
        said = [*rng.choice(GOOD, star - 1), *rng.choice(BAD, 5 - star), *rng.choice(PLAIN, 3)]
        rng.shuffle(said)
        rows.append([f"{' '.join(said)} {i}", star])
    return write_csv(path, rows, ["text", "stars"])


def test_a_scale_is_compared_by_quadratic_kappa(tmp_path: Path, tiny_bert: Path) -> None:
    data, folder = stars(tmp_path / "s.csv"), tmp_path / "study"
    said = run_here("compare", data, "--task", "ordinal", "--methods", "svm-tfidf,lora", "--model",
                    tiny_bert, "--seeds", "2", "--output-dir", folder, *FAST)  # fmt: skip
    assert said.code == 0, said.err
    assert "judged by quadratic kappa" in said.out + said.err
    record = study_folder.read_study(folder)
    assert record.data["task"] == "ordinal"
    best = next(r for r in record.done if r.spec.method.name == "svm-tfidf")
    assert 0.2 < float(best.scores["test_quadratic_kappa"] or 0) <= 1
    assert float(best.scores["test_scale_error"] or 9) < 2
    assert record.predictions(best.spec.trial_id)["test"].task == "ordinal"
    assert run_here("runs", "check", folder).code == 0
    scored = run_here("evaluate", folder, "--data", data, "--task", "ordinal", "--json")
    assert "quadratic_kappa" in next(iter(json.loads(scored.out)["scores"].values()))


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["low", "middle", "high"], "whose place on a scale is not known"), ([0, 1], "three or more")],
)
def test_what_is_no_scale_is_refused(tmp_path: Path, labels: list[object], said: str) -> None:
    rows = [[f"a film number {i} of some kind", labels[i % len(labels)]] for i in range(60)]
    path = write_csv(tmp_path / "r.csv", rows, ["text", "label"])
    refused = run_here("compare", path, "--task", "ordinal", "--output-dir", tmp_path / "s")
    assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1)
    assert said in refused.err


def test_a_scale_is_another_trial_than_classes(tmp_path: Path) -> None:
    from tunelab.core.values import MethodSpec

    method = MethodSpec("svm-tfidf", "svm-tfidf", {})
    ids = [
        make_spec(DataSpec("r.csv", task=task), "f", None, method, 0).trial_id  # type: ignore[arg-type]
        for task in (None, "classes", "ordinal")
    ]
    assert ids[0] == ids[1] != ids[2]
