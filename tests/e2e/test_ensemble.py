"""Methods of a study averaged: weights by validation, a verdict against each, a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunelab
from adapters_made import lora_config, make_adapter
from commands import run_here
from tiny import make_tiny, reviews, write_csv
from tunelab.analysis.ensembles import ensemble_of
from tunelab.core import study_folder
from tunelab.core.artifact import seal
from tunelab.core.errors import InputError
from tunelab.core.values import Artifact
from tunelab.models.embeddings import encoder_of
from tunelab.serving.engine import items_of
from tunelab.serving.loading import Loader, NamedFolder
from tunelab.stats import calibration
from tunelab.stats.mixing import mixed, mixing_weights


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tunelab.Study:
    folder = tmp_path_factory.mktemp("ensemble")
    rows = [(text, label if i % 7 else "good") for i, (text, label) in enumerate(reviews(400))]
    data = write_csv(folder / "reviews.csv", rows, ("text", "label"))
    words: dict[str, Any] = {"name": "svm-tfidf", "label": "words", "char_ngrams": 0}
    chars: dict[str, Any] = {"name": "svm-tfidf", "label": "chars", "word_ngrams": 0}
    return tunelab.compare(
        str(data), methods=[words, chars], seeds=2, tuning=False, vary_split=True,
        output_dir=str(folder / "study"),
    )  # fmt: skip


def test_weights_have_the_largest_likelihood() -> None:
    rng = np.random.default_rng(0)
    members = [rng.dirichlet(np.ones(3), 200) for _ in range(3)]
    labels = np.asarray([rng.choice(3, p=0.7 * a + 0.3 * b)
                         for a, b in zip(members[0], members[1], strict=True)])  # fmt: skip
    weights = mixing_weights(members, labels)
    assert sum(weights) == pytest.approx(1)

    def likelihood(w: Any) -> float:
        p = mixed(members, w)
        return float(np.log(p[np.arange(200), labels]).mean())

    best = likelihood(weights)
    for _ in range(200):
        assert likelihood(rng.dirichlet(np.ones(3))) <= best + 1e-5
    # One that says nothing right is left out, not carried along with a small share.
    wrong = np.full((200, 3), 1e-9)
    assert mixing_weights([members[0], wrong], labels) == (1.0, 0.0)


def test_it_is_the_average_of_what_the_study_keeps(study: tunelab.Study) -> None:
    said, written = study.ensemble()
    assert written is None
    assert said.members == ("words", "chars")
    assert {c.b for c in said.comparisons} == {"words", "chars"}
    record = study_folder.read_study(study.record.directory)
    seed = said.chosen_seed
    of_members = []
    for label in said.members:
        trial = next(r for r in record.done if (r.spec.method.label, r.spec.seed) == (label, seed))
        own = record.predictions(trial.spec.trial_id)
        fit = calibration.fit_temperatures({seed: own["validation"]}, [seed])[seed]
        z = own["validation"].scores / fit
        e = np.exp(z - z.max(axis=1, keepdims=True))
        of_members.append(e / e.sum(axis=1, keepdims=True))
    expected = mixed(of_members, said.weights[seed])
    np.testing.assert_allclose(said.validation[seed].scores, expected, atol=1e-9)


def test_its_classifier_gives_what_was_compared(study: tunelab.Study, tmp_path: Path) -> None:
    folder = study.record.directory
    asked = ("--methods", "chars,words", "--output-dir", tmp_path / "out")
    done = run_here("ensemble", folder, *asked, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    loaded = tunelab.load(tmp_path / "out")
    ensemble = ensemble_of(study.record, ["chars", "words"], "accuracy")
    part = ensemble.validation[ensemble.chosen_seed]
    texts = dict(reviews_by_id(study))
    scores = loaded.classifier.scores([texts[i] for i in part.ids])
    np.testing.assert_allclose(scores, part.scores, atol=1e-6)
    assert said["chosen_seed"] == ensemble.chosen_seed
    again = run_here("predict", tmp_path / "out", "a good and lovely film")
    assert again.code == 0
    assert "good" in again.out
    table = run_here("ensemble", folder)
    assert "No training was needed" in table.out.replace("\n", " ").replace("  ", " ")


def reviews_by_id(study: tunelab.Study) -> list[tuple[str, str]]:
    dataset = tunelab.load_data(study.record.settings["data"]["source"])
    parts = (dataset.train, dataset.validation, dataset.test)
    return [(i, t) for part in parts for i, t in zip(part.ids, part.texts, strict=True)]


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["words"], "two methods or more"), (["words", "lora"], "'lora' is no method of this study")],
)
def test_members_that_cannot_be_averaged(
    study: tunelab.Study, labels: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said) as e:
        ensemble_of(study.record, labels, "accuracy")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("weights", [None, [], [0.5], [0.5, "x"], [2.0, -1.0]])
def test_weights_that_are_none(study: tunelab.Study, tmp_path: Path, weights: object) -> None:
    from tunelab.core.errors import ArtifactError

    study.ensemble(output_dir=tmp_path / "out")
    path = tmp_path / "out" / "tunelab.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "weights": weights}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="weights: expected numbers that sum to 1"):
        tunelab.load(tmp_path / "out")


@pytest.fixture(scope="module")
def of_adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters averaged, which read eight tokens of a text."""
    out = tmp_path_factory.mktemp("adapters") / "both"
    base = make_tiny(out.parent / "tiny", "bert")
    for i in range(2):
        make_adapter(
            out / "members" / str(i), base, ("bad", "good"), i, lora_config(), max_length=8
        )
    facts = {"kind": "ensemble", "label_names": ["bad", "good"], "score_kind": "probability",
             "weights": [0.5, 0.5], "members": ["a", "b"], "base": None}  # fmt: skip
    seal(out, facts)
    return out


def test_a_text_that_several_members_cut_is_one_text(of_adapters: Path) -> None:
    loaded = tunelab.load(of_adapters)
    assert loaded.max_length == 8
    _, cut = loaded.predict_proba_and_cut(["a film " * 40, "short", "good " * 40])
    assert cut == 2
    said = run_here("predict", of_adapters, "a film " * 40)
    assert said.code == 0
    assert "longer than the 8 tokens" in " ".join(said.err.split())


def test_an_ensemble_of_adapters_is_served(of_adapters: Path) -> None:
    texts = ["a good film", "a bad one"]
    served = Loader("float32").open(NamedFolder("both", of_adapters))
    (scores,) = served.runner([(served, items_of(served, texts))])
    np.testing.assert_allclose(scores, tunelab.load(of_adapters).classifier.scores(texts))


def test_a_folder_that_is_called_like_a_bundled_base_is_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny(tmp_path / "minilm", "bert")
    monkeypatch.chdir(tmp_path)
    base = encoder_of(Artifact(Path("minilm"), {"kind": "setfit"}))
    assert base.path.resolve() == (tmp_path / "minilm").resolve()
