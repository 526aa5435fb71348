"""`tunelab runs check`: each fault is named, what follows from the rest is made anew, once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import damages
from commands import run_here
from tunelab.core import files, study_folder, trial_files
from tunelab.core.errors import ArtifactError
from tunelab.study import check
from tunelab.study.trial import make_spec

BEFORE = Path(__file__).resolve().parents[2] / "fixtures" / "before" / "compared"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study without a fault. Not to be changed: copy it first."""
    study = tmp_path_factory.mktemp("checked") / "study"
    shutil.copytree(BEFORE, study)
    before = check.check_study(study)
    assert {f.where for f in before.faults} == {"comparison.json", "report.html"}
    (study / "trials" / ".lora-x.1").mkdir()
    (study / ".gate.json.x1").touch()
    assert check.repair_study(study).faults == ()
    assert not list(study.rglob(".*"))
    return study


def other_score(trial: Path) -> None:
    """Another score, with the digest that it would have."""
    path, digests = trial / "result.json", trial / "digests.json"
    body = json.loads(path.read_text())
    body["scores"]["test_accuracy"] = 0.99
    path.write_text(json.dumps(body))
    if digests.is_file():
        kept = json.loads(digests.read_text())
        kept["sha256"]["result.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        digests.write_text(json.dumps(kept))


def other_seed(trial: Path) -> None:
    body = json.loads((trial / "spec.json").read_text())
    (trial / "spec.json").write_text(json.dumps({**body, "seed": body["seed"] + 77}))


def other_labels(study: Path) -> None:
    rows = trial_files.read_table((study / "rows.parquet").read_bytes())
    labels = 1 - rows["label"].to_numpy()
    pq.write_table(rows.set_column(2, "label", [labels]), study / "rows.parquet")


def test_each_fault_is_named_in_a_line_with_what_to_do(whole: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    trials = sorted((study / "trials").iterdir())
    other_score(trials[0])
    other_seed(trials[1])
    damages.damaged(trials[2] / "predictions.parquet", "truncated")
    damages.damaged(study / "gate.json", "no keys")
    damages.damaged(study / "results.csv", "flipped")
    said = run_here("runs", "check", study)
    assert said.code == 1
    expected = {
        f"trials/{trials[0].name}": "its predictions give",
        f"trials/{trials[1].name}": "is that of",
        f"trials/{trials[2].name}": "predictions.parquet: cannot be read",
        "gate.json": "is not whole",
        "results.csv": "is not what the trials give",
    }
    lines = dict(line.partition(": ")[::2] for line in said.out.splitlines()[:-1])
    assert lines.keys() == expected.keys()
    assert all(expected[k] in v and "tunelab" in v for k, v in lines.items())
    other_labels(study)
    faults = check.check_study(study).faults
    assert sum("are not those of rows.parquet" in f.wrong for f in faults) > 20


def test_what_follows_is_made_anew_and_the_rest_stays(whole: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    (study / "comparison.json").write_bytes(b"")
    (study / "results.csv").unlink()
    trial = min((study / "trials").iterdir())
    other_score(trial)
    before = (trial / "result.json").read_bytes()
    said = run_here("runs", "check", study, "--repair", "--json")
    assert said.code == 1  # what no repair can know is still told
    faults = json.loads(said.out)["faults"]
    assert [f["where"] for f in faults] == [f"trials/{trial.name}"]
    assert (trial / "result.json").read_bytes() == before
    assert json.loads((study / "comparison.json").read_text())
    whole_again = run_here("runs", "check", whole)
    assert (whole_again.code, whole_again.out.count("no fault")) == (0, 1)


def test_a_folder_that_is_held_is_not_repaired(whole: Path) -> None:
    with files.locked(whole):
        assert run_here("runs", "check", whole).code == 0
        said = run_here("runs", "check", whole, "--repair")
    assert said.code == 2
    assert "another tunelab is running trials" in said.err


def test_what_others_put_there_is_no_fault(whole: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    for name in (".DS_Store", ".gitignore", "trials/.DS_Store"):
        (study / name).touch()
    assert check.check_study(study).faults == ()


def test_trials_of_the_same_folder_s_earlier_metric_are_whole(whole: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    said = (study / "study.yaml").read_text(encoding="utf-8")
    assert "\nmetric: accuracy" in said
    (study / "study.yaml").write_text(said.replace("\nmetric: accuracy", "\nmetric: f1_macro"))
    assert not [f for f in check.check_study(study).faults if f.where.startswith("trials/")]


def test_the_classifier_of_all_rows_has_the_id_that_is_computed_anew(whole: Path) -> None:
    result = study_folder.read_study(whole).results[0]
    s = result.spec
    more = {"purpose": "final", "together": True}
    spec = make_spec(s.data, s.fingerprint, s.base, s.method, s.seed, **more)  # type: ignore[arg-type]
    assert check._id_of(dataclasses.replace(result, spec=spec), "accuracy") == spec.trial_id


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        check.repair_study(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
