"""What we save, in other tools and on other machines: every line of every model card runs there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunelab
from commands import run_here
from families import make_family
from tiny import make_tiny, reviews, write_csv
from tunelab import adapters
from tunelab.core.artifact import read_manifest
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Seeds, Split
from tunelab.methods import METHODS, Task, fit_alone
from tunelab.models import bases
from tunelab.report import cards

# What other tools warn of on their way is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["a good film", "grim", "the plot was dull and the actor was cold " * 9]
LABELS = ("10", "2", "so-so, really")


ROWS = Split(tuple(map(str, range(18))), tuple(text for text, _ in reviews(18)), np.arange(18) % 3)


def trained(folder: Path, method: str, model: Path | str) -> Path:
    """A method's classifier, trained a little on three classes and saved."""
    row = METHODS[method]
    settings: dict[str, Any] = {} if method == "svm-tfidf" else {"max_length": 16}
    if row.adapt:
        settings |= {"num_train_epochs": 1, "learning_rate": 1e-2, "precision": "float32"}
    if method == "peft":
        settings |= {"peft_type": "HRA", "target_modules": ["query", "value"]}
    base = bases.resolve(str(model)) if row.needs_base else None
    task = Task(LABELS, ROWS, ROWS, base, row.settings(**settings), Seeds(1, 2, 3), "accuracy",
                lambda _: None)  # fmt: skip
    folder.mkdir()
    fit_alone(row, task).classifier.save(folder)
    return folder


def lines_of_card(folder: Path) -> str:
    """The Python of a folder's model card, with the folder put in."""
    lines = cards.lines_of_use(read_manifest(folder).manifest["kind"])
    assert "path/to/this/folder" in lines
    return lines.replace("path/to/this/folder", str(folder))


def run_card(folder: Path) -> dict[str, Any]:
    """Run all lines of the card; what they name."""
    names: dict[str, Any] = {}
    exec(compile(lines_of_card(folder), "README.md", "exec"), names)  # noqa: S102  our own lines
    return names


def answers_as_here(names: dict[str, Any], folder: Path) -> None:
    """The pipeline of a card gives our probabilities by our label names, also of a batch."""
    ours = tunelab.load(folder).computing_in("float32")
    expected = ours.predict_proba(TEXTS)
    for batch in (1, 3):
        found = names["classify"](TEXTS, truncation=True, top_k=None, batch_size=batch)
        for one, row in zip(found, expected, strict=True):
            scores = {x["label"]: x["score"] for x in one}
            assert scores == pytest.approx(dict(zip(LABELS, row, strict=True)), abs=2e-5)
    best = [x["label"] for x in names["classify"](TEXTS, truncation=True)]
    assert best == ours.predict(TEXTS)


@pytest.mark.parametrize(
    ("method", "family"),
    [("lora", "bert"), ("full", "gpt2"), ("lora", "llama"), ("full", "roberta"),
     ("prompt-tuning", "bert"), ("probe", "distilbert")],
)  # fmt: skip
def test_every_line_of_a_card_runs(method: str, family: str, tmp_path: Path) -> None:
    folder = trained(tmp_path / "o", method, make_family(tmp_path / "b", family))
    answers_as_here(run_card(folder), folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m, row in METHODS.items() if row.adapt])
def test_every_line_of_every_methods_card_runs(method: str, tmp_path: Path) -> None:
    folder = trained(tmp_path / "o", method, make_family(tmp_path / "b", "bert"))
    if "qlora" in method:  # a card is for the float base; how far that is, merging says
        run_card(folder)
        return
    answers_as_here(run_card(folder), folder)


@pytest.mark.parametrize("method", ["svm", "svm-tfidf"])
def test_every_line_of_an_svms_card_runs(method: str, tmp_path: Path) -> None:
    folder = trained(tmp_path / "o", method, make_tiny(tmp_path / "b", "bert"))
    assert run_card(folder)["classifier"].label_names == LABELS


def test_a_merged_adapter_answers_in_a_pipeline_as_here(tmp_path: Path) -> None:
    from transformers import pipeline

    folder = trained(tmp_path / "o", "lora", make_family(tmp_path / "b", "llama"))
    merged = adapters.merge(folder, tmp_path / "m").artifact.directory
    names = {"classify": pipeline("text-classification", model=str(merged))}
    answers_as_here(names, folder)
    answers_as_here(names, merged)


def test_a_pipeline_never_gives_an_adapter_names_of_the_base(tmp_path: Path) -> None:
    """Of an adapter's folder, transformers takes labels and head from the base's own config. With
    labels beside the adapter, it looks there for the weights too, and says that there are none.
    """
    from transformers import pipeline

    folder = trained(tmp_path / "o", "lora", make_tiny(tmp_path / "b", "bert"))
    with pytest.raises(ValueError, match=r"no file named model\.safetensors"):
        pipeline("text-classification", model=str(folder))


@pytest.mark.parametrize(("method", "family"), [("lora", "llama"), ("ia3", "roberta")])
def test_an_adapter_with_its_base_beside_it_answers_in_a_pipeline_as_here(
    method: str, family: str, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForSequenceClassification
    from transformers import pipeline

    folder = trained(tmp_path / "o", method, make_family(tmp_path / "b", family))
    whole = tunelab.export(folder, "with-base", tmp_path / "w").artifact.directory
    answers_as_here({"classify": pipeline("text-classification", model=str(whole))}, folder)
    assert tunelab.load(whole).predict(TEXTS) == tunelab.load(folder).predict(TEXTS)
    model = AutoPeftModelForSequenceClassification.from_pretrained(whole, num_labels=3)
    answers_as_here(run_card(whole), folder)
    assert model.peft_config["default"].base_model_name_or_path == str(tmp_path / "b")


def test_an_adapter_that_a_pipeline_does_not_read_gets_no_base(tmp_path: Path) -> None:
    folder = trained(tmp_path / "o", "prompt-tuning", make_tiny(tmp_path / "b", "bert"))
    with pytest.raises(ArtifactError, match=r"reads no prompt_tuning adapter from a folder\."):
        tunelab.export(folder, "with-base", tmp_path / "w")
    assert not (tmp_path / "w").exists()


# --- the name of the base -------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Path]:
    """The hub's cache of these tests, empty again after."""
    folder = Path(os.environ["HF_HOME"]) / "hub"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def in_cache(hub: Path, repo: str, model: Path) -> Path:
    """As if the hub's library had downloaded it."""
    home = hub / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / ("ab" * 20)
    shutil.copytree(model, snapshot)
    (home / "refs").mkdir()
    for name in ("main", "v1"):
        (home / "refs" / name).write_text("ab" * 20)
    return snapshot


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return config


def names_no_folder_of_a_machine(folder: Path) -> bool:
    files = [p for p in folder.glob("*") if p.is_file()]
    return not any(
        re.search(rb"site-packages|/(tmp|home|root|var|work)/", p.read_bytes()) for p in files
    )


def test_the_bundled_base_has_the_name_that_others_know(hub: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "o", "lora", "minilm")
    said = config_of(folder)
    assert said["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert names_no_folder_of_a_machine(folder)
    manifest = json.loads((folder / "tunelab.json").read_text())
    assert manifest["base"]["sha256"] == bases.resolve("minilm").ref.sha256
    in_cache(hub, said["base_model_name_or_path"], bases.resolve("minilm").path)
    answers_as_here(run_card(folder), folder)
    # As peft alone would have written it: our loader finds the bundled copy by that name.
    shutil.rmtree(hub)
    (folder / "tunelab.json").unlink()
    assert tunelab.load(folder).label_names == LABELS


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_hubs_base_has_its_name_there_and_not_the_caches_folder(
    revision: str | None, hub: Path, tmp_path: Path
) -> None:
    in_cache(hub, "someone/tiny", make_tiny(tmp_path / "b", "bert"))
    name = "someone/tiny" + (f"@{revision}" if revision else "")
    folder = trained(tmp_path / "o", "lora", name)
    said = config_of(folder)
    assert (said["base_model_name_or_path"], said["revision"]) == ("someone/tiny", revision)
    assert names_no_folder_of_a_machine(folder)
    answers_as_here(run_card(folder), folder)


# --- a base that moved ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classifiers on a base that lies at `new` now, and another base at `other`."""
    home = tmp_path_factory.mktemp("moved")
    base = make_tiny(home / "old", "bert")
    for method in ("lora", "svm", "full"):
        trained(home / method, method, base)
    plain = Path(shutil.copytree(home / "lora", home / "plain"))
    (plain / "tunelab.json").unlink()
    base.rename(home / "new")
    make_tiny(home / "other", "bert", seed=1)
    return home


@pytest.mark.parametrize("kind", ["lora", "svm", "plain"])
def test_a_base_that_moved_is_named(kind: str, moved: Path, tmp_path: Path) -> None:
    lost = run_here("predict", moved / kind, "a film")
    assert (lost.code, lost.out) == (2, "")
    assert "--model FOLDER" in lost.faults[-1]
    found = run_here("predict", moved / kind, "a film", "--model", moved / "new")
    assert found.code == 0, found.err
    assert run_here("adapters", "verify", moved / kind, "--model", moved / "new").code == 0
    ours = tunelab.load(moved / kind, model=moved / "new")
    assert ours.predict(["a film"])[0] == found.out.split("\t")[0]
    if kind != "plain":  # peft keeps no hash
        for words in (("predict", moved / kind, "x"), ("adapters", "verify", moved / kind)):
            other = run_here(*words, "--model", moved / "other")
            assert other.code == 2
            assert "trained on weights" in other.err + other.out


def test_what_is_made_on_a_base_that_moved(moved: Path, tmp_path: Path) -> None:
    at = ("--model", moved / "new")
    labelled = [(text, LABELS[k]) for text, k in zip(ROWS.texts, ROWS.labels, strict=True)]
    rows = write_csv(tmp_path / "r.csv", labelled * 4, ("text", "label"))
    kinds = [moved / k for k in ("lora", "svm", "full")]
    asked = ("evaluate", *kinds, "--data", rows, "--part", "all")
    assert run_here(*asked).code == 2
    assert run_here(*asked, *at).code == 0
    made = run_here("adapters", "merge", moved / "lora", *at, "--output-dir", tmp_path / "m")
    assert made.code == 0, made.err
    texts = ["a film", "good"]
    ours = tunelab.load(moved / "lora", model=moved / "new").predict_proba(texts)
    np.testing.assert_allclose(tunelab.load(tmp_path / "m").predict_proba(texts), ours, atol=1e-5)
    whole = run_here("predict", moved / "full", "a film", *at)
    assert (whole.code, whole.out) == (2, "")
    assert "needs no base. Leave --model out" in whole.err
