"""A text's scores are its own: alone, beside others and in any order, on every base, or refused.

Every family of `models.families` and every type of tests/others.py; `company` finds out for types
without a row, by a few tiny texts, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import FAMILY_NAMES, make_family
from others import UNKNOWN_TYPES, make_unknown
from tunelab.core.errors import ModelError
from tunelab.core.values import MethodSpec, Seeds, Split
from tunelab.methods import METHODS, Task, check, fit_alone, notes
from tunelab.methods.training import engine
from tunelab.models import bases, batches, company, embeddings, pretrained
from tunelab.models.batches import Batch
from tunelab.models.classifier import TransformerClassifier

LABELS = ("bad", "good")
TEXTS = (
    "a film",
    "the plot of the film was very very cold and the scene grim with it the actor a good warm film",
    "good",
    "bad film is",
    "a good warm plot",
    "a plot",
    "",
)
# Rounding differs with the shape of a batch; nothing else may.
TOLERANCE = 1e-5
REFUSED = {"bart": "an encoder with a decoder", "t5": "an encoder with a decoder",
           "nystromformer": "does not compute a text of a few tokens"}  # fmt: skip
# Of these, padding changes what a classifier says; of the last one not what its vectors are.
BY_LENGTH = ("fnet", "convbert", "xlnet")


def largest_change(score: Callable[[list[str]], Any]) -> float:
    """How far scores move when texts are scored alone, all in their order, and turned round."""
    texts = list(TEXTS)
    alone = np.concatenate([score([t]) for t in texts])
    together, turned = score(texts), score(texts[::-1])[::-1]
    pairs = np.concatenate([score([texts[0], t])[:1] - alone[0] for t in texts])
    moved = max(float(np.abs(x).max()) for x in (together - alone, turned - alone, pairs))
    return moved / float(np.abs(alone).max())


def specs(base: bases.Base) -> list[MethodSpec]:
    return [MethodSpec(m, m, {"max_length": 32}) for m in ("full", "svm")]


def holds(base: bases.Base) -> None:
    loaded: Any = pretrained.load_classifier(base, LABELS, 0)[0]
    tokenizer = pretrained.load_tokenizer(base)
    for precision in ("float32", "auto"):
        classifier = TransformerClassifier(
            loaded.eval(), tokenizer, LABELS, base.ref, 32, 64, precision=precision
        )
        limit = TOLERANCE if precision == "float32" else 1e-3
        assert largest_change(classifier.scores) <= limit
    for pooling in ("mean", "cls"):
        assert largest_change(embeddings.Embedder(base, pooling, 32)) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_scores_a_text_by_itself(family: str, tmp_path: Path) -> None:
    base = bases.resolve(str(make_family(tmp_path / family, family)))
    for spec in specs(base):
        check(base, spec)
    holds(base)
    # What is trained plainly, too.
    model: Any = pretrained.load_classifier(base, LABELS, 0)[0].eval()
    assert not company.needs_one_length(model, lambda batch: plainly(model, batch))
    trains_each_by_itself(model, base)


@pytest.mark.parametrize("model_type", UNKNOWN_TYPES)
def test_a_type_without_a_row_scores_a_text_by_itself_or_is_refused(
    model_type: str, tmp_path: Path
) -> None:
    base = bases.resolve(str(make_unknown(tmp_path / model_type, model_type)))
    if model_type in REFUSED:
        for spec in specs(base):
            with pytest.raises(ModelError, match=REFUSED[model_type]) as e:
                check(base, spec)
            assert "\n" not in str(e.value)
        return
    for spec in specs(base):
        check(base, spec)
    said = notes(base, specs(base), LABELS)
    assert any(company.PADDING_CHANGES in n for n in said) == (model_type in BY_LENGTH)
    holds(base)
    trains_each_by_itself(pretrained.load_classifier(base, LABELS, 0)[0], base)


def plainly(model: Any, batch: Batch) -> torch.Tensor:
    return engine.forward(model, batch, torch.device("cpu"))


def trains_each_by_itself(model: Any, base: bases.Base) -> None:
    """The plain engine's logits of a batch are those of each text alone."""
    tokenizer: Any = pretrained.load_tokenizer(base)
    encoded = batches.encode(tokenizer, TEXTS, 32)
    settings = METHODS["full"].settings(engine="plain", precision="float32")
    made = engine.choose_engine(model, int(tokenizer.pad_token_id), settings)
    model.eval()

    def logits(rows: list[int]) -> Any:
        asked = {0: engine.RowsToCompute(encoded, np.asarray(rows))}
        with torch.no_grad():
            return made.compute(asked)[0][0].numpy()

    rows = list(range(len(TEXTS)))
    alone = np.concatenate([logits([r]) for r in rows])
    assert np.abs(logits(rows) - alone).max() <= TOLERANCE * np.abs(alone).max()
    assert np.abs(logits(rows[::-1])[::-1] - alone).max() <= TOLERANCE * np.abs(alone).max()


@pytest.mark.parametrize("model_type", BY_LENGTH)
def test_what_is_trained_length_by_length_says_so_and_scores_so(
    model_type: str, tmp_path: Path
) -> None:
    base = bases.resolve(str(make_unknown(tmp_path / model_type, model_type)))
    rows = Split(tuple(map(str, range(6))), TEXTS[:6], np.arange(6) % 2)
    row = METHODS["full"]
    settings = row.settings(num_train_epochs=2, max_length=32, per_device_train_batch_size=4)
    task = Task(LABELS, rows, rows, base, settings, Seeds(1, 2, 3), "accuracy", lambda _: None)
    outcome = fit_alone(row, task)
    assert company.PADDING_CHANGES in str(outcome.details.trained.engine_reason)
    assert outcome.details.trained.padding == pytest.approx(0)
    classifier: Any = outcome.classifier
    assert largest_change(classifier.scores) <= TOLERANCE
    assert company.PADDING_CHANGES in classifier.prepared().why
    # Elsewhere, somebody pads: on the side that changes nothing, where there is one.
    assert classifier.tokenizer.padding_side == ("left" if model_type == "xlnet" else "right")


def test_a_model_whose_texts_see_each_other_is_refused(tmp_path: Path) -> None:
    base = bases.resolve(str(make_unknown(tmp_path / "mpnet", "mpnet")))
    model: Any = pretrained.load_classifier(base, LABELS, 0)[0].eval()

    def mixed(batch: Batch) -> torch.Tensor:
        rows = plainly(model, batch)
        return rows + rows.mean(0, keepdim=True)

    with pytest.raises(ModelError, match="other scores beside other texts"):
        company.needs_one_length(model, mixed)


def test_rows_by_length_come_back_in_their_order() -> None:
    ids = np.asarray([[1, 2, 0], [3, 4, 5], [6, 0, 0], [7, 8, 0]])
    batch = Batch(np.arange(4), ids, (ids > 0).astype(np.int64))
    seen: list[tuple[int, ...]] = []

    def compute(some: Batch) -> torch.Tensor:
        seen.append(some.input_ids.shape)
        return torch.from_numpy(some.input_ids.sum(axis=1, keepdims=True))

    assert company.by_length(compute)(batch)[:, 0].tolist() == [3, 12, 6, 15]
    assert seen == [(1, 1), (2, 2), (1, 3)]
