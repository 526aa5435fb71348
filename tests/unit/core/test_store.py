"""What a study's folder holds when whoever wrote it is stopped at the worst moment."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from studies import METHODS, make_study
from tunelab.core import study_folder
from tunelab.core.errors import ArtifactError
from tunelab.core.values import DataSpec, TrialResult
from tunelab.study.executors import process

# Replaces a trial by itself, and dies before the n-th time that a folder gets another name.
DIES = """
import os, shutil, sys
from pathlib import Path
from tunelab.core import study_folder
from tunelab.core.errors import ArtifactError, InputError
study, trial_id, dies = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rename, renamed = Path.replace, 0
def counted(self, target):
    global renamed
    renamed += self.is_dir()
    if self.is_dir() and renamed == dies:
        os._exit(9)
    return rename(self, target)
Path.replace = counted
with study_folder.new_trial(study, trial_id) as folder:
    shutil.copytree(study_folder.trial_dir(study, trial_id), folder, dirs_exist_ok=True)
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path, methods=METHODS[3:], seeds=1, rows=40)


def of(study: Path) -> TrialResult:
    (result,) = study_folder.read_study(study).results
    return result


@pytest.mark.parametrize("dies", [1, 2])
def test_a_trial_that_is_replaced_is_never_lost(study: Path, dies: int) -> None:
    before = of(study)
    trial_id = before.spec.trial_id
    scores = study_folder.read_predictions(study, trial_id)["test"].scores
    command = [sys.executable, "-c", DIES, str(study), trial_id, str(dies)]
    done = subprocess.run(command, check=False)
    assert done.returncode == 9
    assert len(list((study / "trials").iterdir())) == 2
    study_folder.sweep(study)
    assert [p.name for p in (study / "trials").iterdir()] == [trial_id]
    assert of(study) == before
    assert np.array_equal(study_folder.read_predictions(study, trial_id)["test"].scores, scores)


def test_a_trial_that_dies_while_it_is_scored_elsewhere_stays_done(study: Path) -> None:
    before = of(study)
    spec = replace(before.spec, test_on=(DataSpec("elsewhere.csv"),))
    said = process._result(spec, study, -9, study / "logs")
    assert said.status == "done"
    assert said.error is not None
    assert said.error.startswith("Not scored on other data: The trial's process was killed")
    assert of(study) == before


@pytest.mark.parametrize("name", ["study.yaml", "data.json"])
def test_a_study_whose_files_are_not_whole_is_refused_in_one_line(study: Path, name: str) -> None:
    content = yaml.safe_load((study / name).read_text(encoding="utf-8"))
    gone = list(content)[1]
    del content[gone]
    content.pop("sha256", None)  # as an older tunelab wrote it
    (study / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError) as refused:
        study_folder.read_study(study)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(
        f"{study / name}: {gone}: is missing. Write it anew: run `tunelab compare"
    )
    (study / name).write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="content: expected a mapping, found list"):
        study_folder.read_study(study)


@pytest.mark.parametrize(
    ("name", "key", "lacks"),
    [
        ("spec.json", "purpose", "'purpose'"),
        ("result.json", "cost", "'cost'"),
        ("result.json", "status", "status"),
    ],
)
def test_a_trial_that_lacks_what_all_have_counts_as_not_run_and_says_so(
    study: Path, name: str, key: str, lacks: str
) -> None:
    trial = study_folder.trial_dir(study, of(study).spec.trial_id)
    content = json.loads((trial / name).read_text(encoding="utf-8"))
    del content[key]
    (trial / name).write_text(json.dumps(content), encoding="utf-8")
    (trial / "digests.json").unlink()  # a trial of before has none
    record = study_folder.read_study(study)
    (said,) = record.damaged
    assert said.startswith(f"{trial / name}: cannot be read (")
    assert lacks in said
    assert "\n" not in said
    assert trial.name in record.missing
