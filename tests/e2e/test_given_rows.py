"""Studies of rows that are given in Python: kept with the study, which goes on without them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tunelab
from tunelab.core.errors import DataError

TEXTS = [
    f"{['a quiet film', 'a loud mess'][i % 2]}, {['warm', 'cold', 'long'][i % 3]} number {i}"
    for i in range(60)
]
LABELS = [["good", "bad"][i % 2] for i in range(60)]
FRAME = pd.DataFrame({"text": TEXTS, "label": LABELS})
CHEAP: dict[str, Any] = {"methods": "svm-tfidf", "seeds": 2, "tuning": False, "engine": "inline"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tunelab.Study:
    folder = tmp_path_factory.mktemp("given") / "study"
    return tunelab.compare(FRAME, output_dir=folder, test_on=FRAME[:20], **CHEAP)


def test_a_study_of_a_frame_keeps_its_rows_and_its_identity(study: tunelab.Study) -> None:
    assert study.record.data["name"] == "DataFrame"
    (source, other) = sorted((study.directory / "given_rows").iterdir())
    assert {str(source), str(other)} == {
        study.record.settings["data"]["source"],
        study.record.settings["test_on"][0]["source"],
    }
    assert len(study.record.done) == 2
    before = {r.spec.trial_id for r in study.record.results}
    again = tunelab.compare(TEXTS, LABELS, output_dir=study.directory, **CHEAP)
    assert {r.spec.trial_id for r in again.record.results} == before


def test_it_goes_on_without_the_frame_and_elsewhere(study: tunelab.Study, tmp_path: Path) -> None:
    moved = shutil.copytree(study.directory, tmp_path / "moved")
    shutil.rmtree(moved / "trials" / study.record.results[0].spec.trial_id)
    again = tunelab.compare(config_file=moved / "study.yaml", engine="inline")
    assert [r.spec.trial_id for r in again.record.done] == [
        r.spec.trial_id for r in study.record.done
    ]
    assert Path(again.record.settings["data"]["source"]).parent == moved / "given_rows"
    more = tunelab.Study(moved).extend(3, engine="inline")
    assert len(more.record.done) == 3


def test_a_classifier_of_lists_labels_frames(tmp_path: Path) -> None:
    result = tunelab.fine_tune(TEXTS, "svm-tfidf", LABELS, output_dir=tmp_path / "svm")
    assert result.scores["test_accuracy"] == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["svm"]  # the rows are not kept
    classifier = tunelab.load(tmp_path / "svm")
    assert classifier.predict(FRAME) == classifier.predict(FRAME["text"]) == LABELS
    assert classifier.predict(FRAME[["text"]].rename(columns={"text": "anything"})) == LABELS
    with pytest.raises(DataError, match="which is the text column"):
        classifier.predict(FRAME[["label"]].assign(other=1))
    scored = tunelab.evaluate(tmp_path / "svm", TEXTS, LABELS)
    assert (scored.rows, scored.data) == (60, "texts")


def test_nothing_is_written_of_rows_that_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^DataFrame: "):
        tunelab.compare(FRAME[:3], output_dir=tmp_path / "study", **CHEAP)
    assert not list(tmp_path.iterdir())
