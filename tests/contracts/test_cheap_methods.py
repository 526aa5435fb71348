"""What trains no transformer, through one contract on a tiny base; and against scikit-learn.

A row of METHODS that has no `adapt` is held to it from the day that it stands there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import BAD, GOOD, PLAIN
from tunelab.core.values import MethodSpec, Seeds, Split
from tunelab.methods import METHODS, Outcome, Task, check, fit_alone
from tunelab.models import bases, text_classifier
from tunelab.stats import calibration

# What asks for a base with a head of its own is held to the same below.
NLI = "zero-shot-nli"
CHEAP = [m.name for m in METHODS.values() if m.adapt is None and m.needs_base and m.name != NLI]
# A random base knows nothing of labels: their descriptions are texts of theirs.
DESCRIBED = {"bad": ["a the bad dull bad"], "good": ["a the good lovely good"], "neither": "scene"}
SMALL: dict[str, dict[str, Any]] = {
    "boosting": {"min_rows_per_leaf": 1},
    "setfit": {"min_steps": 10, "num_train_epochs": 1, "learning_rate": 1e-3},
    "distil": {"teacher": "svm", "learning_rate": 5e-3, "num_train_epochs": 20, "made_texts": 1},
    "distil-static": {"teacher": "logistic", "made_texts": 1},
}


def split(n: int, seed: int, classes: int) -> Split:
    """Short texts, each with words that tell its class; the last of three has neither."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    tell = (BAD[:2], GOOD[:2], ("scene", "actor"))
    texts = [" ".join([*rng.choice(PLAIN[:2], 1 + i % 3), *rng.choice(tell[y], 3)])
             for i, y in enumerate(labels)]  # fmt: skip
    return Split(tuple(f"{seed}-{i}" for i in range(n)), tuple(texts), labels)


def task_of(method: str, base: bases.Base, classes: int, **settings: Any) -> Task:
    given = {**SMALL.get(method, {}), **settings}
    if method == "zero-shot":
        labels = ("bad", "good", "neither")[:classes]
        given["label_descriptions"] = {k: DESCRIBED[k] for k in labels}
    if "max_length" in METHODS[method].settings.model_fields:
        given["max_length"] = 16
    check(base, MethodSpec(method, method, given))
    return Task(
        label_names=("bad", "good", "neither")[:classes],
        train=split(48, 0, classes),
        validation=split(60, 1, classes),
        base=base,
        settings=METHODS[method].settings(**given),
        seeds=Seeds(1, 2, 3),
        metric="accuracy",
        on_step=lambda _: None,
    )


@pytest.fixture(scope="module")
def base(tiny_bert: Path) -> bases.Base:
    return bases.resolve(str(tiny_bert))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", CHEAP)
def test_contract(method: str, classes: int, base: bases.Base, tmp_path: Path) -> None:
    task = task_of(method, base, classes)
    outcome = fit_alone(METHODS[method], task)
    texts, labels = split(60, 2, classes).texts, split(60, 2, classes).labels
    scores = outcome.classifier.scores(texts)
    assert scores.shape == (60, classes)
    right = float((scores.argmax(axis=1) == labels).mean())
    least = 0.8 if outcome.details.training_rows is None else 1.2 / classes
    assert right >= least, f"{right:.0%} right, where each text says its class"
    twice(method, task, texts, scores)
    by_itself(outcome, texts, scores)
    saved(outcome, task, texts, scores, tmp_path / "artifact")
    assert outcome.train_seconds > 0
    assert outcome.counts["adapter_parameters"] is None
    assert "\n" not in outcome.reasons["adapter_parameters"]
    if outcome.validation_scores is not None:
        again = outcome.classifier.scores(task.validation.texts)
        np.testing.assert_allclose(outcome.validation_scores, again, atol=1e-4)


def twice(method: str, task: Task, texts: tuple[str, ...], scores: np.ndarray) -> None:
    """The same spec gives the same scores; where chance is said to play no part, any seed does."""
    other = replace(task, seeds=Seeds(7, 8, 9)) if not METHODS[method].chance else task
    again = fit_alone(METHODS[method], other).classifier.scores(texts)
    np.testing.assert_array_equal(again, scores)


def by_itself(outcome: Outcome, texts: tuple[str, ...], scores: np.ndarray) -> None:
    alone = np.concatenate([outcome.classifier.scores([t]) for t in texts[:8]])
    np.testing.assert_allclose(alone, scores[:8], atol=1e-4)
    assert outcome.classifier.scores([]).shape == (0, scores.shape[1])


def saved(
    outcome: Outcome, task: Task, texts: tuple[str, ...], scores: np.ndarray, folder: Path
) -> None:
    folder.mkdir()
    outcome.classifier.save(folder)
    calibration.write_calibration(folder, _predictions(outcome, task))
    loaded = text_classifier.open_classifier(folder)
    np.testing.assert_array_equal(loaded.classifier.scores(texts), scores)
    assert loaded.label_names == task.label_names
    assert loaded.classifier.score_kind == outcome.classifier.score_kind
    p = loaded.predict_proba(list(texts))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert not [f for f in folder.rglob("*") if f.suffix in {".pkl", ".joblib", ".bin"}]


def _predictions(outcome: Outcome, task: Task) -> Any:
    from tunelab.core.values import Predictions

    part = task.validation
    own = outcome.classifier
    return Predictions(part.ids, part.labels, own.scores(part.texts), own.score_kind)


# --- against scikit-learn ---------------------------------------------------------------------


def vectors_of(outcome: Outcome, part: Split) -> np.ndarray:
    own: Any = outcome.classifier
    vectors: np.ndarray = own.embedder(part.texts)
    return vectors


def _logistic(x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5_000))
    return model.fit(x.astype(np.float64), y)


def _boosting(x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=12, max_leaf_nodes=15, min_samples_leaf=1, early_stopping=False
    ).fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("method", "settings", "theirs"),
    [("logistic", {"c": 0.1}, _logistic), ("boosting", {"trees": [12, 5]}, _boosting)],
)
def test_probabilities_are_those_of_scikit_learn(
    method: str, settings: dict[str, Any], theirs: Callable[..., Any], classes: int,
    base: bases.Base,
) -> None:  # fmt: skip
    from tunelab.stats.predictions import probabilities

    job = task_of(method, base, classes, pooling="cls+mean", **settings)
    if method == "boosting":  # the more trees, the better: chosen are all
        job = replace(job, metric="log_loss")
    outcome = fit_alone(METHODS[method], job)
    model = theirs(vectors_of(outcome, job.train), job.train.labels)
    test = split(40, 3, classes)
    ours = probabilities(outcome.classifier.scores(test.texts), "logit")
    expected = model.predict_proba(vectors_of(outcome, test))
    np.testing.assert_allclose(ours, expected, atol=1e-4 if method == "logistic" else 1e-9)


def test_the_nearest_vote(base: bases.Base) -> None:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    job = task_of("knn", base, 3, k=1)
    outcome = fit_alone(METHODS["knn"], job)
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(1, metric="cosine"))
    model.fit(vectors_of(outcome, job.train).astype(np.float64), job.train.labels)
    test = split(40, 3, 3)
    assert (
        outcome.classifier.scores(test.texts).argmax(axis=1)
        == model.predict(vectors_of(outcome, test).astype(np.float64))
    ).all()


@pytest.mark.parametrize("pooling", ["max", "mean+mean", "", "cls+"])
def test_a_pooling_that_there_is_not(pooling: str) -> None:
    with pytest.raises(ValueError, match="cls, mean, last, or some of them"):
        METHODS["logistic"].settings(**{"pooling": pooling})


# --- static classifiers -----------------------------------------------------------------------


def test_a_static_classifier_is_a_linear_head_on_means_of_token_vectors(base: bases.Base) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from tunelab.models import token_vectors
    from tunelab.stats.predictions import probabilities

    job = task_of("static", base, 3, c=0.1)
    outcome = fit_alone(METHODS["static"], job)
    made = token_vectors.distil(base, 256, 1e-4, 64)

    def means(part: Split) -> np.ndarray:
        ids = [made.tokenizer.encode(t, add_special_tokens=False).ids for t in part.texts]
        return np.stack([made.table[i].astype(np.float64).mean(axis=0) for i in ids])

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5_000))
    model.fit(means(job.train), job.train.labels)
    test = split(40, 3, 3)
    ours = probabilities(outcome.classifier.scores(test.texts), "logit")
    np.testing.assert_allclose(ours, model.predict_proba(means(test)), atol=1e-3)
    # Components of the tokens themselves: in order of their variance, and none of the others'.
    plain = token_vectors.distil(base, 4, 1.0, 64).table
    assert plain.shape[1] == 4
    assert (np.diff(plain.var(axis=0)) <= 0).all()
    # A text without a token that is known has the classes' shares and no more.
    own: Any = outcome.classifier
    assert own.scores(["", "\u65e5"]) == pytest.approx(np.tile(own.offsets, (2, 1)))


def test_trained_vectors_fit_the_training_texts_better(base: bases.Base) -> None:
    from tunelab.core.values import Predictions
    from tunelab.stats import metrics

    losses, tables = [], []
    for method in ("static", "static-tuned"):
        job = task_of(method, base, 3, c=0.001)
        outcome = fit_alone(METHODS[method], job)
        own: Any = outcome.classifier
        tables.append(own.table)
        scores = own.scores(job.train.texts)
        part = Predictions(job.train.ids, job.train.labels, scores, "logit")
        losses.append(metrics.METRICS["log_loss"].function(part))
    assert losses[1] < 0.8 * losses[0]
    assert [h["epoch"] for h in outcome.history][:2] == [0.0, 1.0]


def test_a_static_classifier_predicts_without_torch(base: bases.Base, tmp_path: Path) -> None:
    from commands import imported_by

    fit_alone(METHODS["static"], task_of("static", base, 2)).classifier.save(tmp_path)
    assert imported_by("predict", tmp_path, "a film") == {"tokenizers"}


def test_a_table_and_trees_have_no_graph(base: bases.Base, tmp_path: Path) -> None:
    from tunelab.core.errors import ArtifactError
    from tunelab.exporting import graphs

    for method in ("static", "boosting", "knn"):
        classifier = fit_alone(METHODS[method], task_of(method, base, 2)).classifier
        (tmp_path / method).mkdir()
        classifier.save(tmp_path / method)
        opened = text_classifier.open_classifier(tmp_path / method)
        with pytest.raises(ArtifactError, match="as it is") as e:
            graphs.write_float_graph(opened.artifact, opened.classifier, tmp_path / "out", False)
        assert "\n" not in str(e.value)
        assert not (tmp_path / "out").exists()


# --- zero-shot --------------------------------------------------------------------------------


def test_zero_shot_uses_no_training_row(base: bases.Base) -> None:
    job = task_of("zero-shot", base, 3)
    outcome = fit_alone(METHODS["zero-shot"], job)
    other = replace(job, train=split(9, 7, 3))
    texts = split(40, 3, 3).texts
    scores = outcome.classifier.scores(texts)
    np.testing.assert_array_equal(
        fit_alone(METHODS["zero-shot"], other).classifier.scores(texts), scores
    )
    assert outcome.details.training_rows == 0
    # Cosines, twenty times: with the label's own text it is one.
    own = outcome.classifier.scores([DESCRIBED["bad"][0]])
    assert own[0, 0] == pytest.approx(20, abs=1e-3)
    assert (np.abs(scores) <= 20.001).all()


def test_descriptions_come_from_a_file_and_name_labels_of_the_data(
    base: bases.Base, tmp_path: Path
) -> None:
    from tunelab.core.errors import ConfigError

    file = tmp_path / "labels.yaml"
    file.write_text("bad: a dull film\ngood: [a warm film, a lovely plot]\n", encoding="utf-8")
    row = METHODS["zero-shot"]
    settings: Any = row.settings(**{"label_descriptions": str(file)})
    assert settings.label_descriptions == {
        "bad": ["a dull film"], "good": ["a warm film", "a lovely plot"],
    }  # fmt: skip
    spec = MethodSpec("zero-shot", "zero-shot", settings.model_dump(mode="json"))
    check(base, spec, ("bad", "good"))
    with pytest.raises(ConfigError, match="'bad' is no label of the data"):
        check(base, spec, ("good", "poor"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("bad: [", "YAML file"),
        ("bad: ''", "'bad' has none"),
        ("- bad", "dictionary"),
        ("bad: 3", "list"),
    ],
)
def test_descriptions_that_cannot_be_read(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        METHODS["zero-shot"].settings(**{"label_descriptions": str(file)})


@pytest.mark.parametrize("template", ["", "about", "{} or {}", "{label}"])
def test_a_template_without_a_place_for_the_label(template: str) -> None:
    with pytest.raises(ValueError, match="once, which stands for the label"):
        METHODS["zero-shot"].settings(**{"template": template})


# --- zero-shot-nli ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nli(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    """A tiny random model with a head of inference, whose scores differ from label to label."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("bases") / "nli"
    names = dict(enumerate(("CONTRADICTION", "NEUTRAL", "ENTAILMENT")))
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=3, id2label=names, label2id={n: i for i, n in names.items()}
    )
    model.classifier.weight.data.mul_(200)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return bases.resolve(str(folder))


def test_entailment_is_that_of_transformers(nli: bases.Base, tmp_path: Path) -> None:
    from transformers import pipeline

    from tunelab.stats.predictions import probabilities

    template = "the film is {}."
    task = task_of(NLI, nli, 3, template=template)
    outcome = fit_alone(METHODS[NLI], task)
    texts = split(12, 2, 3).texts
    scores = outcome.classifier.scores(texts)
    ours = probabilities(scores, "logit")
    theirs = pipeline("zero-shot-classification", model=str(nli.path), device="cpu")
    for row, text in zip(ours, texts, strict=True):
        said = theirs(text, list(task.label_names), hypothesis_template=template)
        expected = [said["scores"][said["labels"].index(n)] for n in task.label_names]
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert ours.std(axis=0).min() > 1e-4  # texts differ, or nothing was seen
    assert outcome.details.training_rows == 0
    by_itself(outcome, texts, scores)
    saved(outcome, task, texts, scores, tmp_path / "artifact")
    two = task_of(NLI, nli, 2, label_descriptions={"bad": ["dull", "a bad film"], "good": "warm"})
    own = fit_alone(METHODS[NLI], two).classifier.scores(texts)
    one = [task_of(NLI, nli, 2, label_descriptions={"bad": d, "good": "warm"})
           for d in ("dull", "a bad film")]  # fmt: skip
    halves = [fit_alone(METHODS[NLI], t).classifier.scores(texts) for t in one]
    np.testing.assert_allclose(own, (halves[0] + halves[1]) / 2, atol=1e-6)


def test_long_texts_are_cut_and_sentences_are_not(nli: bases.Base) -> None:
    outcome = fit_alone(METHODS[NLI], task_of(NLI, nli, 2, template="the film is {}."))
    long, short = "good " * 300, "good " * 30
    np.testing.assert_allclose(
        outcome.classifier.scores([long]), outcome.classifier.scores([short]), atol=1e-5
    )


def test_a_base_without_entailment_is_refused(base: bases.Base) -> None:
    from tunelab.core.errors import ModelError

    with pytest.raises(ModelError, match="expected one called entailment") as e:
        check(base, MethodSpec(NLI, NLI, {}))
    assert "\n" not in str(e.value)


# --- a study of them ---------------------------------------------------------------------------


def test_a_study_compares_them_and_says_what_saw_no_rows(tiny_bert: Path, tmp_path: Path) -> None:
    import tunelab
    from tiny import reviews, write_csv

    data = write_csv(tmp_path / "reviews.csv", reviews(90), ("text", "label"))
    study = tunelab.compare(
        str(data),
        methods=["zero-shot", "static", "knn", {"name": "distil-static", "teacher": "knn"}],
        model=str(tiny_bert), seeds=2, tuning=False, output_dir=str(tmp_path / "study"),
    )  # fmt: skip
    assert {r.label for r in study.summary.rows} == {"zero-shot", "static", "knn", "distil-static"}
    taught = [w for w in study.summary.warnings if "was taught by" in w]
    assert len(taught) == 1
    assert taught[0].startswith("distil-static was taught by knn: its training time has")
    said = [w for w in study.summary.warnings if "used no training rows" in w]
    assert len(said) == 1
    assert said[0].startswith("zero-shot used")
    card = next((tmp_path / "study").glob("trials/zero-shot-*/artifact/README.md"))
    assert "made with `zero-shot`, without a training row," in card.read_text(encoding="utf-8")


# --- setfit -----------------------------------------------------------------------------------


def test_batches_hold_several_of_each_class_and_every_row_before_one_comes_again() -> None:
    from tunelab.methods.setfit import batches_of_classes

    labels = np.asarray([0] * 5 + [1] * 9 + [2])
    drawn = list(batches_of_classes(labels, 6, 12, np.random.default_rng(3)))
    for rows in drawn:
        assert len(set(rows.tolist())) == len(rows) == 5  # two, two, and the only one
        assert sorted(set(labels[rows].tolist())) == [0, 1, 2]
    for c in (0, 1):
        of_class = np.concatenate([r[labels[r] == c] for r in drawn])
        n = int((labels == c).sum())
        assert sorted(of_class[:n].tolist()) == np.flatnonzero(labels == c).tolist()
    again = batches_of_classes(labels, 6, 12, np.random.default_rng(3))
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))
    many = np.arange(40) // 4  # ten classes of four: half as many classes as texts, two of each
    rows = next(batches_of_classes(many, 8, 1, np.random.default_rng(0)))
    assert np.bincount(many[rows])[many[rows]].tolist() == [2] * 8


def test_loss_of_pairs_by_hand() -> None:
    import torch

    from tunelab.methods.setfit import loss_of_pairs

    vectors = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    # Cosines 0.6 (same), 0 and 0.8 (others).
    loss = loss_of_pairs(vectors, torch.tensor([0, 0, 1]))
    assert float(loss) == pytest.approx((0.4**2 + 0.8**2 / 2) / 2)


@pytest.mark.parametrize("pooling", ["mean", "cls+last"])
def test_packed_vectors_are_the_bases_and_have_its_gradient(base: bases.Base, pooling: str) -> None:
    import torch

    from tunelab.models import embeddings
    from tunelab.models.batches import encode
    from tunelab.models.trained_vectors import TrainedVectors

    texts = split(6, 0, 2).texts
    trained = TrainedVectors(base, pooling, seed=0)
    assert trained.why_plain is None
    encoded = encode(trained.tokenizer, texts, 16)
    plain = TrainedVectors(base, pooling, seed=0)
    gradients = []
    for one, vectors_of in ((trained, trained.vectors_of), (plain, plain._plainly(pooling))):
        one.encoder.eval()
        with one.installed() if one is trained else torch.enable_grad():
            vectors = vectors_of(encoded, np.arange(6))
            vectors.square().sum().backward()
        expected = embeddings.Embedder(base, pooling, 16)(list(texts))
        np.testing.assert_allclose(vectors.detach().numpy(), expected, atol=1e-5)
        weight = dict(one.encoder.named_parameters())["encoder.layer.1.attention.self.key.weight"]
        assert weight.grad is not None
        gradients.append(weight.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-4)


# --- distil -----------------------------------------------------------------------------------


def test_a_student_is_its_bases_lowest_layers_in_every_family(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from families import FAMILY_NAMES, make_family
    from tunelab.models import parts, pretrained

    for family in FAMILY_NAMES:
        folder = make_family(tmp_path_factory.mktemp("bases") / family, family)
        base = bases.resolve(str(folder))
        student: Any = pretrained.load_classifier(base, ("a", "b"), seed=0)[0]
        head = student.state_dict()
        parts.drop_upper_layers(student, 1)
        config = AutoConfig.from_pretrained(folder, num_labels=2)
        config.num_hidden_layers = 1
        config.pad_token_id = student.config.pad_token_id
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:1]
        with pretrained.quiet():
            theirs = AutoModelForSequenceClassification.from_config(config).eval()
        theirs.load_state_dict({k: v for k, v in head.items() if k in theirs.state_dict()})
        assert set(student.state_dict()) == set(theirs.state_dict()), family
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            ours, expected = (m.eval()(input_ids=ids).logits for m in (student, theirs))
        torch.testing.assert_close(ours, expected, msg=family)


def test_soft_targets_are_hintons() -> None:
    import torch

    from tunelab.methods.soft_targets import SoftTargets

    rng = np.random.default_rng(0)
    z, v, labels = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), np.asarray([0, 2, 1, 1])
    share, t = np.asarray([0.5, 1.0, 0.0, 0.2]), 2.0
    logits = torch.tensor(z, requires_grad=True)
    hard = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    soft = torch.softmax(torch.tensor(v) / t, 1)
    kl = torch.nn.functional.kl_div(torch.log_softmax(logits / t, 1), soft, reduction="none").sum(1)
    of = torch.tensor(share)
    (of * hard + (1 - of) * t**2 * kl).sum().backward()  # type: ignore[no-untyped-call]
    targets = SoftTargets(labels, soft.numpy(), t, share)
    assert logits.grad is not None
    np.testing.assert_allclose(targets.gradient(z, np.arange(4)), logits.grad, atol=1e-12)
    again = torch.tensor(z, requires_grad=True)
    rows = np.asarray([3, 1])
    losses = targets.row_losses(again[[3, 1]], rows, hard.detach()[[3, 1]])
    losses.sum().backward()
    # `hard` is given: what is left is the teacher's part.
    assert again.grad is not None
    expected = (
        (1 - share[rows])[:, None]
        * t
        * (torch.softmax(again / t, 1) - soft)[[3, 1]].detach().numpy()
    )
    np.testing.assert_allclose(again.grad[[3, 1]], expected, atol=1e-12)


def test_a_teacher_is_the_contestant_and_is_trained_once(base: bases.Base) -> None:
    task = task_of("distil-static", base, 2, teacher="logistic", teacher_settings={"c": [0.1]})
    first = fit_alone(METHODS["distil-static"], task)
    contestant = fit_alone(METHODS["logistic"], task_of("logistic", base, 2, c=[0.1]))
    scores = contestant.classifier.scores(task.validation.texts)
    right = float((scores.argmax(axis=1) == task.validation.labels).mean())
    own = first.details.own
    assert own["teacher_eval_accuracy"] == right
    assert own["made_texts"] == 48
    again = fit_alone(METHODS["distil-static"], replace(task, seeds=task.seeds))
    assert again.details.from_cache
    assert again.details.own["teacher_seconds"] == own["teacher_seconds"]
    assert again.train_seconds > float(str(own["teacher_seconds"]))
    assert len(task.train) == 48  # the made texts are the student's alone


def test_made_texts_are_of_the_training_texts_words() -> None:
    from tunelab.methods.made_texts import made_of

    texts = ["one two three four five six", "seven eight", "", "nine"]
    made = made_of(texts, 3, seed=1)
    assert len(made) == 12
    assert made == made_of(texts, 3, seed=1)
    assert made != made_of(texts, 3, seed=2)
    known = set(" ".join(texts).split())
    assert set(" ".join(made).split()) <= known
    assert all(m for i, m in enumerate(made) if i // 3 != 2)  # none is empty but of an empty text
    assert made_of(texts, 0, seed=1) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher": "distil"}, "the name of another method"),
        ({"teacher": "lorra"}, "another method, perhaps lora"),
        ({"teacher": "lora", "teacher_settings": {"k": 3}}, "settings of lora, which has no k"),
        ({"teacher_settings": {"rank": 3}}, r"which has no rank \(r is what it is called here\)"),
        ({"teacher": "lora", "teacher_settings": {"r": -1}}, "with r greater than or equal to 1"),
        ({"teacher": "llm"}, "settings of llm, with endpoint, which has to be given"),
    ],
)
def test_a_teacher_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        METHODS["distil"].settings(**settings)


def test_a_student_needs_fewer_layers_and_a_teacher_that_runs(base: bases.Base) -> None:
    from tunelab.core.errors import ModelError

    with pytest.raises(ModelError, match="fewer than the 2 layers"):
        check(base, MethodSpec("distil", "distil", {"layers_kept": 2}))
    with pytest.raises(ModelError, match="prefix-tuning cannot run on"):
        check(base, MethodSpec("distil", "distil", {"teacher": "prefix-tuning"}))
