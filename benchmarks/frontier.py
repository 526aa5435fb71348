"""`static` and `setfit` against the packages `model2vec` and `setfit`: same splits, same base.

    python benchmarks/frontier.py static --data DATA [--rows 100,1000] [--seeds 5]
    python benchmarks/frontier.py setfit --data DATA [--rows 16,64]

DATA is whatever `tunelab compare` takes. Each seed draws the training rows; validation and test
stay. Both start from the bundled base and choose on validation alone. Scores are accuracies on
test, their difference with the 95% interval of its mean over seeds (t); seconds are of this process
on one thread, ours and theirs in turn. The packages are not tunelab's: install them where this is
run (model2vec, setfit, sentence-transformers).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from threadpoolctl import threadpool_limits

from tunelab import data
from tunelab.core.values import Dataset, DataSpec
from tunelab.methods import METHODS, Task, fit_alone
from tunelab.models import bases, pretrained
from tunelab.study.trial import named_seeds


@dataclass(frozen=True)
class Measured:
    """Accuracy on test; CPU seconds of training; texts of the test part labelled a CPU second."""

    accuracy: float
    train: float
    rate: float


Contender = Callable[[Dataset, int], Measured]


def measured(dataset: Dataset, train: float, predict: Callable[[Sequence[str]], Any]) -> Measured:
    """Label the test part with what was trained."""
    texts, labels = list(dataset.test.texts), dataset.test.labels
    predict(texts[:64])  # what is only done once
    started = time.process_time()
    given = np.asarray(predict(texts))
    rate = len(texts) / (time.process_time() - started)
    return Measured(float((given == labels).mean()), train, rate)


def ours(method: str) -> Contender:
    """A method of METHODS with its defaults."""

    def run(dataset: Dataset, seed: int) -> Measured:
        row = METHODS[method]
        task = Task(
            dataset.label_names, dataset.train, dataset.validation, bases.resolve("minilm"),
            row.settings(), named_seeds(seed), "accuracy", lambda _: None,
        )  # fmt: skip
        started = time.process_time()
        classifier = fit_alone(row, task).classifier
        seconds = time.process_time() - started
        return measured(dataset, seconds, lambda texts: classifier.scores(texts).argmax(axis=1))

    return run


# --- model2vec --------------------------------------------------------------------------------


def _distilled() -> Any:
    from model2vec.distill import distill_from_model

    base = bases.resolve("minilm")
    with pretrained.quiet():
        return distill_from_model(
            pretrained.load_encoder(base), pretrained.load_tokenizer(base), device="cpu"
        )


def model2vec_frozen(dataset: Dataset, seed: int) -> Measured:
    """Their vectors, logistic regression on them; C as ours is chosen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    started = time.process_time()
    model = _distilled()
    train, validation = (model.encode(list(p.texts)) for p in (dataset.train, dataset.validation))
    fits = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5_000)).fit(
            train, dataset.train.labels
        )
        for c in (0.001, 0.01, 0.1, 1.0)
    ]
    best = max(fits, key=lambda f: f.score(validation, dataset.validation.labels))
    seconds = time.process_time() - started
    return measured(dataset, seconds, lambda texts: best.predict(model.encode(list(texts))))


def model2vec_tuned(dataset: Dataset, seed: int) -> Measured:
    """Their classifier, which trains its vectors and a hidden layer, with its defaults."""
    from model2vec.train import StaticModelForClassification

    started = time.process_time()
    model = StaticModelForClassification.from_static_model(model=_distilled())
    model.fit(
        list(dataset.train.texts), [str(y) for y in dataset.train.labels], device="cpu",
        X_val=list(dataset.validation.texts),
        y_val=[str(y) for y in dataset.validation.labels], random_seed=seed,
    )  # fmt: skip
    pipeline = model.to_pipeline()
    seconds = time.process_time() - started
    return measured(dataset, seconds, lambda texts: [int(y) for y in pipeline.predict(list(texts))])


# --- setfit -----------------------------------------------------------------------------------


def setfit_package(dataset: Dataset, seed: int) -> Measured:
    """Theirs with its defaults, one epoch of pairs."""
    import tempfile

    from datasets import Dataset as Table
    from sentence_transformers import SentenceTransformer, models
    from setfit import SetFitModel, Trainer, TrainingArguments

    base = bases.resolve("minilm")
    started = time.process_time()
    word = models.Transformer(str(base.path), max_seq_length=128)
    pooling = models.Pooling(word.get_word_embedding_dimension(), "mean")
    from sklearn.linear_model import LogisticRegression

    body = SentenceTransformer(modules=[word, pooling, models.Normalize()], device="cpu")
    model = SetFitModel(body, LogisticRegression())
    table = Table.from_dict(
        {"text": list(dataset.train.texts), "label": dataset.train.labels.tolist()}
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, batch_size=16, num_epochs=1, seed=seed, report_to="none",
            save_strategy="no", logging_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=table).train()
    seconds = time.process_time() - started
    return measured(dataset, seconds, lambda texts: model.predict(list(texts), as_numpy=True))


Pair = tuple[str, Contender, str, Contender]
PAIRS: dict[str, tuple[Pair, ...]] = {
    "static": (
        ("static", ours("static"), "model2vec, logistic", model2vec_frozen),
        ("static-tuned", ours("static-tuned"), "model2vec, trained", model2vec_tuned),
    ),
    "setfit": (("setfit", ours("setfit"), "setfit package", setfit_package),),
}


def rows_of(name: str, rows: int, seed: int) -> Dataset:
    """A data set with so many training rows, drawn by a seed alike from all classes."""
    whole = data.load(DataSpec(name))
    return replace(whole, train=data.smaller(whole, rows, seed).train)


def compare(
    source: str, rows: int, seeds: int, pair: tuple[str, Contender, str, Contender]
) -> None:
    """Run both, in turn, and print what each gives."""
    name, mine, other, theirs = pair
    both: tuple[list[Measured], list[Measured]] = ([], [])
    for seed in range(seeds):
        dataset = rows_of(source, rows, seed)
        for run, kept in zip((mine, theirs), both, strict=True):
            kept.append(run(dataset, seed))
    for label, kept in zip((name, other), both, strict=True):
        print(
            f"{rows:>6}  {label:<20} {100 * np.mean([m.accuracy for m in kept]):5.1f}%  "
            f"{np.mean([m.train for m in kept]):7.1f} s  {np.mean([m.rate for m in kept]):9,.0f}/s"
        )
    apart = np.asarray([100 * (a.accuracy - b.accuracy) for a, b in zip(*both, strict=True)])
    half = stats.t.ppf(0.975, seeds - 1) * apart.std(ddof=1) / np.sqrt(seeds)
    faster = np.median([b.train / a.train for a, b in zip(*both, strict=True)])
    labels = np.median([a.rate / b.rate for a, b in zip(*both, strict=True)])
    print(
        f"{'':>6}  ours - theirs: {apart.mean():+.1f} points ({apart.mean() - half:+.1f} to "
        f"{apart.mean() + half:+.1f}); trains in 1/{faster:.2f} of the time, labels "
        f"{labels:.2f} times as many texts a second",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=PAIRS)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--rows", default="100,1000")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for pair in PAIRS[asked.what]:
            for rows in map(int, asked.rows.split(",")):
                compare(asked.data, rows, asked.seeds, pair)


if __name__ == "__main__":
    main()
