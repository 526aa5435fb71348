"""What trials say of each text, as a table; rows under the user's own ids; how sure it is all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tunelab
from studies import METHODS, make_study
from tiny import reviews, write_csv
from tunelab.analysis import confidence, summarise
from tunelab.core import study_folder
from tunelab.core.errors import DataError
from tunelab.core.values import Predictions
from tunelab.report import cards
from tunelab.report.mistakes import mistakes, scored_texts
from tunelab.stats.calibration import at_temperature, fit_on_validation
from tunelab.stats.predictions import probabilities


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tunelab.Study:
    """A method on 400 texts of which a fifth have the wrong label, each with a key of its own."""
    root = tmp_path_factory.mktemp("ids")
    other = {"good": "bad", "bad": "good"}
    wrong = np.random.default_rng(0).random(400) < 0.2
    rows = [
        (f"k{i:03}", text, other[label] if wrong[i] else label)
        for i, (text, label) in enumerate(reviews(400, 3))
    ]
    source = write_csv(root / "r.csv", rows, ["key", "text", "label"])
    return tunelab.compare(
        source, methods="svm-tfidf", seeds=1, output_dir=root / "s", engine="inline"
    )


def test_predictions_have_texts_ids_and_probabilities(study: tunelab.Study) -> None:
    texts = {f"k{i:03}": text for i, (text, _) in enumerate(reviews(400, 3))}
    found = study.predictions()
    assert list(found) == ["label", "seed", "id", "row", "text", "truth", "predicted",
                           "probability", "probability_bad", "probability_good"]  # fmt: skip
    assert [texts[i] for i in found["id"]] == list(found["text"])
    assert found["row"].str.startswith("r:").all()
    (trial,) = study.record.done
    predictions = study.record.predictions(trial.spec.trial_id)
    temperature = fit_on_validation(predictions["validation"]).temperature
    assert temperature is not None
    scaled = probabilities(at_temperature(predictions["test"], temperature).scores, "logit")
    np.testing.assert_allclose(found[["probability_bad", "probability_good"]], scaled)
    assert list(found["probability"]) == pytest.approx(scaled.max(axis=1))
    raw = study.predictions("validation", raw=True)
    own = predictions["validation"]
    np.testing.assert_allclose(
        raw[["probability_bad", "probability_good"]], probabilities(own.scores, own.score_kind)
    )
    loaded = tunelab.load(study.best())
    np.testing.assert_allclose(loaded.predict_proba(list(found["text"])), scaled, atol=1e-9)


def test_mistakes_are_shown_under_the_users_ids(study: tunelab.Study) -> None:
    found = mistakes(study.record, study.summary, scored_texts(study.record))
    assert found is not None
    texts = {f"k{i:03}": text for i, (text, _) in enumerate(reviews(400, 3))}
    assert all(texts[row.id] == row.text for row in found.shown)
    assert found.shown[0].id in (study.directory / "report.html").read_text("utf-8")
    assert study.record.data["id_column"] == "key"
    assert any("id column: 'key' (guessed)" in note for note in study.record.data["notes"])


@pytest.mark.parametrize(
    ("header", "ids", "column"),
    [
        ("key", ["a", "b", "a"], None),  # names no single row
        ("key", ["a", "", "c"], None),
        ("Review-ID", ["a", "b", "c"], "Review-ID"),
        ("number", ["a", "b", "c"], None),
    ],
)
def test_an_id_column_has_a_usual_name_and_a_value_for_each_row(tmp_path, header, ids, column):
    rows = [(ids[i] if i < 3 else f"x{i}", t, y) for i, (t, y) in enumerate(reviews(60))]
    source = write_csv(tmp_path / "r.csv", rows, [header, "text", "label"])
    assert tunelab.load_data(source).id_column == column
    assert tunelab.load_data(source, id_column=header).id_column == header
    with pytest.raises(DataError, match=r"no column 'nr' \(--id-column\)"):
        tunelab.load_data(source, id_column="nr")


def test_confidence_is_told_beside_accuracy_where_it_is_off(tmp_path: Path) -> None:
    labels = np.arange(300) % 3
    scores = np.eye(3)[np.where(np.arange(300) < 276, labels, (labels + 1) % 3)] * 0.5
    p = Predictions(tuple(map(str, range(300))), labels.astype(np.int64), scores, "logit")
    c = confidence.confidence_of(p, p)
    assert c is not None
    assert c.right == pytest.approx(0.92)
    assert c.raw == pytest.approx(np.exp(0.5) / (np.exp(0.5) + 2))
    assert c.scaled == pytest.approx(0.92, abs=0.001)
    assert confidence.raw_is_off(c)
    scaled = Predictions(p.ids, p.labels, scores / c.temperature, "logit")
    good = confidence.confidence_of(p, scaled)
    assert good is not None
    assert not confidence.raw_is_off(good)
    few = confidence.confidence_of(None, Predictions(p.ids[:9], p.labels[:9], scores[:9], "logit"))
    assert few is not None
    assert few.scaled is None


def test_a_study_and_its_model_cards_say_how_far_off_raw_probabilities_are(tmp_path: Path) -> None:
    record = study_folder.read_study(make_study(tmp_path / "s", methods=METHODS[2:3]))
    said = summarise(record)
    (trial, *_) = record.done
    predictions = record.predictions(trial.spec.trial_id)
    c = confidence.confidence_of(predictions["validation"], predictions["test"])
    assert c is not None
    assert confidence.raw_is_off(c) == any("Raw probabilities are off" in w for w in said.warnings)
    card = cards.card(record, said, trial, {"kind": "model", "files": {}})
    assert f"Raw, as peft and transformers give it, it is {100 * c.raw:.1f}%." in card
    assert f"divide its scores by {c.temperature:.2f}" in card
