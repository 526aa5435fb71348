"""The engine without HTTP: what it answers, whom it lets wait, and how models come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import IA3Config, PromptTuningConfig, TaskType

import tunelab
from adapters_made import make_adapter, make_embedding_svm, make_model, make_svm
from tiny import BAD, GOOD, reviews
from tunelab.serving.engine import BatchFigures, ServingEngine, check_scores, items_of
from tunelab.serving.loading import Loader, NamedFolder, below, named_folders, read_names
from tunelab.serving.refusal import Limits, Refusal
from tunelab.serving.served import Item, Served, TextReader

TEXTS = [
    *(f"{g} film and the plot is {b} {i}" for i, (g, b) in enumerate(zip(GOOD, BAD, strict=True))),
    "a", "very lovely scene , the actor was grim !", "the " * 40,
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    root = tmp_path_factory.mktemp("served")
    make_adapter(root / "a", tiny_bert, ("bad", "good"), 1)
    make_adapter(root / "b", tiny_bert, ("no", "maybe", "yes"), 2)
    config = IA3Config(
        task_type=TaskType.SEQ_CLS,
        modules_to_save=["classifier"],
        target_modules=["key", "output.dense"],
        feedforward_modules=["output.dense"],
    )
    make_adapter(root / "ia3", tiny_bert, ("bad", "good"), 4, config)
    prompt = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)
    make_adapter(root / "prompt", tiny_bert, ("bad", "good"), 5, prompt)
    make_model(root / "whole", tiny_bert, ("x", "y"), 3)
    make_svm(root / "svm", reviews(60))
    make_embedding_svm(root / "probe", tiny_bert, ("bad", "good"), 6)
    return root


@pytest.fixture(scope="module")
def models(home: Path) -> list[Served]:
    loader = Loader()
    # What cannot share a row comes first: it must not keep others from it.
    strange = [loader.open(NamedFolder(n, home / n)) for n in ("prompt", "ia3", "probe")]
    usual = [loader.open(NamedFolder(n, home / n)) for n in ("a", "b", "whole", "svm")]
    assert usual[0].runner is usual[1].runner
    assert [m.member is None for m in (*strange, *usual)] == [
        *[True] * 3, False, False, True, True,
    ]  # fmt: skip
    return [*usual, *strange]


@pytest.fixture
def engine(models: list[Served]) -> Iterator[ServingEngine]:
    made = ServingEngine(models)
    yield made
    made.close()


def expected(folder: Path, texts: Sequence[str]) -> np.ndarray:
    return tunelab.load(folder).predict_proba(texts)


@pytest.mark.parametrize("name", ["a", "b", "whole", "svm", "ia3", "prompt", "probe"])
def test_every_model_says_what_it_says_by_itself(engine: ServingEngine, home: Path, name: str):
    answer = engine.classify(name, TEXTS)
    np.testing.assert_allclose(answer.probabilities(), expected(home / name, TEXTS), atol=2e-5)
    assert answer.model.label_names == tunelab.load(home / name).label_names


def test_the_first_model_answers_who_names_none(engine: ServingEngine):
    assert engine.classify(None, ["a"]).model.name == "a"


def test_many_at_a_time_each_get_their_own_answer(models: list[Served], home: Path):
    batches: list[BatchFigures] = []
    engine = ServingEngine(models, on_batch=batches.append)
    wanted = {m.name: expected(home / m.name, TEXTS) for m in models}
    asks = [(m.name, i) for i in range(len(TEXTS)) for m in models] * 5
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda ask: engine.classify(ask[0], [TEXTS[ask[1]]]), asks))
    engine.close()
    for (name, i), answer in zip(asks, answers, strict=True):
        np.testing.assert_allclose(answer.probabilities()[0], wanted[name][i], atol=2e-5)
    assert sum(b.texts for b in batches) == len(asks)
    assert max(b.models for b in batches) > 1


# --- waiting --------------------------------------------------------------------------------


class Slow:
    """A runner that computes when it is let to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []

    def __call__(self, asked: Sequence[tuple[Served, Sequence[Item]]]) -> list[np.ndarray]:
        assert self.go.wait(10)
        self.batches.append(sum(len(items) for _, items in asked))
        return [np.zeros((len(items), 2)) for _, items in asked]


def slow_model(name: str = "slow") -> tuple[Served, Slow]:
    runner = Slow()
    model = Served(name, Path(name), "test", ("x", "y"), "logit", TextReader(), runner)
    return model, runner


def wait_until_taken(engine: ServingEngine) -> None:
    while engine.queued_texts:
        time.sleep(0.001)


def test_what_waits_is_taken_together_up_to_the_budget():
    model, runner = slow_model()
    engine = ServingEngine([model], Limits(batch_tokens=10))
    first = engine.submit(model, ["one"])
    wait_until_taken(engine)
    rest = [engine.submit(model, [text]) for text in ("x" * 16, "x" * 16, "x" * 12, "x" * 400)]
    runner.go.set()
    assert first.result(10).scores.shape == (1, 2)
    for future in rest:
        future.result(10)
    # 1; then 4 + 4 tokens, for 3 more are too many; then 3; then what is above the budget, alone.
    assert runner.batches == [1, 2, 1, 1]
    engine.close()


def test_too_many_tokens_that_wait_are_refused_and_told_when_to_come_again():
    model, runner = slow_model()
    engine = ServingEngine([model], Limits(queued_tokens=10))
    taken = engine.submit(model, ["x" * 400])  # above the limit, but nothing waits
    wait_until_taken(engine)
    waits = engine.submit(model, ["x" * 40])
    with pytest.raises(Refusal) as refused:
        engine.submit(model, ["x" * 4])
    assert refused.value.fault == "overloaded"
    assert refused.value.retry_after
    runner.go.set()
    taken.result(10)
    waits.result(10)
    engine.submit(model, ["x" * 4]).result(10)
    engine.close()


def test_what_was_taken_is_finished_and_nothing_more_is_taken():
    model, runner = slow_model()
    engine = ServingEngine([model])
    futures = [engine.submit(model, ["x"]) for _ in range(20)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine.is_up:
        time.sleep(0.001)
    with pytest.raises(Refusal, match="stopping"):
        engine.submit(model, ["x"])
    runner.go.set()
    closing.join(10)
    assert [f.result(0).scores.shape for f in futures] == [(1, 2)] * 20


def test_who_went_away_is_not_computed():
    model, runner = slow_model()
    engine = ServingEngine([model])
    engine.submit(model, ["x"])
    wait_until_taken(engine)
    gone, stays = engine.submit(model, ["x", "y"]), engine.submit(model, ["x"])
    assert gone.cancel()
    runner.go.set()
    stays.result(10)
    assert runner.batches == [1, 1]
    engine.unload("slow")  # nobody reads it any more
    engine.close()


def test_a_model_that_fails_is_told_to_its_askers_alone(models: list[Served]):
    def fail(_: object) -> list[np.ndarray]:
        raise ArithmeticError("no numbers")

    broken = replace(models[0], name="broken", runner=fail)
    engine = ServingEngine([*models, broken])
    with pytest.raises(ArithmeticError):
        engine.classify("broken", ["a", "b"])
    assert engine.classify("a", ["a"]).scores.shape == (1, 2)
    engine.unload("broken")
    engine.close()


def _exits(_: object) -> list[np.ndarray]:
    raise SystemExit(3)


WRONG_RUNNERS = {
    "too few models": lambda _: [],
    "too many rows": lambda asked: [np.zeros((len(items) + 1, 2)) for _, items in asked],
    "too few rows": lambda asked: [np.zeros((0, 2)) for _ in asked],
    "too few classes": lambda asked: [np.zeros((len(items), 1)) for _, items in asked],
    "ragged rows": lambda _: [[[0.0], [0.0, 1.0]]],
    "nothing": lambda _: None,
    "one that exits": _exits,
}


@pytest.mark.parametrize("wrong", WRONG_RUNNERS.values(), ids=WRONG_RUNNERS)
def test_nothing_that_a_runner_gives_ends_the_thread_that_computes(wrong: Any):
    model, runner = slow_model()
    runner.go.set()
    broken = replace(model, name="broken", runner=wrong)
    engine = ServingEngine([model, broken])
    for _ in range(2):
        assert engine.submit(broken, ["a", "b"]).exception(10) is not None
    assert engine.submit(model, ["a"]).result(10).scores.shape == (1, 2)
    assert engine.is_up
    engine.unload("broken")  # nobody waits for it for ever
    engine.close()


def test_who_counts_batches_cannot_end_the_thread(capsys: pytest.CaptureFixture[str]):
    def count(_: BatchFigures) -> None:
        raise KeyError("figures")

    model, runner = slow_model()
    runner.go.set()
    engine = ServingEngine([model], on_batch=count)
    for _ in range(2):
        assert engine.submit(model, ["a"]).result(10).scores.shape == (1, 2)
    engine.close()
    assert capsys.readouterr().err.count("not counted: KeyError") == 2


# --- models come and go ---------------------------------------------------------------------


def test_unloading_waits_for_its_readers_who_keep_the_model():
    model, runner = slow_model()
    engine = ServingEngine([model])
    reading = engine.submit(model, ["x"])
    unloading = threading.Thread(target=engine.unload, args=("slow",))
    unloading.start()
    while "slow" in engine.table.models:
        time.sleep(0.001)
    with pytest.raises(Refusal, match=r"No model|does not exist"):
        engine.classify("slow", ["x"])
    assert unloading.is_alive()
    runner.go.set()
    unloading.join(10)
    assert not unloading.is_alive()
    assert reading.result(0).scores.shape == (1, 2)
    late = engine.submit(model, ["x"])  # by who looked it up just before
    assert late.result(10).scores.shape == (1, 2)
    assert not engine._readers  # nothing holds it in memory any more
    engine.close()


def test_loads_and_unloads_under_fire_make_no_wrong_answer(models: list[Served], home: Path):
    """Two models of one name take turns: an answer is that of the model which it names."""
    one, two = models[0], replace(models[2], name="a")
    wanted = {id(m): expected(home / n, TEXTS) for m, n in ((one, "a"), (two, "whole"))}
    engine = ServingEngine([models[3], one])
    stop = threading.Event()
    wrong: list[str] = []

    def ask(k: int) -> int:
        done = 0
        while not stop.is_set():
            try:
                answer = engine.classify("a", [TEXTS[k]])
            except Refusal as e:
                if e.fault != "unknown":
                    wrong.append(str(e))
                time.sleep(0.002)
                continue
            done += 1
            near = np.abs(answer.probabilities()[0] - wanted[id(answer.model)][k]).max()
            if near > 2e-5:
                wrong.append(f"{k}: {near}")
        return done

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask, k) for k in range(8)]
        for i in range(30):
            engine.load("a", lambda i=i: (two, one)[i % 2], replace=True)
            if i % 3 == 0:
                engine.unload("a")
        engine.load("a", lambda: one, replace=True)
        stop.set()
        done = sum(c.result() for c in clients)
    engine.close()
    assert not wrong
    assert done > 30


def test_a_name_that_is_taken_is_refused_unless_it_shall_be_replaced(engine: ServingEngine):
    model = engine.table["a"]
    with pytest.raises(Refusal) as refused:
        engine.load("a", lambda: model)
    assert refused.value.fault == "exists"
    engine.load("a", lambda: model, replace=True)


def test_a_model_that_scores_no_numbers_is_not_published(engine: ServingEngine):
    def nothing(asked: Sequence[tuple[Served, Sequence[Item]]]) -> list[np.ndarray]:
        return [np.full((len(items), 2), np.nan) for _, items in asked]

    bad = replace(engine.table["a"], name="bad", runner=nothing)
    with pytest.raises(Refusal, match="finite"):
        engine.load("bad", lambda: bad)
    assert "bad" not in engine.table.models


def test_adapters_of_one_base_share_its_weights(home: Path):
    loader = Loader()
    for name in ("a", "b"):
        check_scores(loader.open(NamedFolder(name, home / name)))
    assert len(loader._shared) == 1


# --- texts and folders ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "fault"), [([], "empty"), (["\ud800"], "invalid"), (["a", "b\udfff"], "invalid")]
)
def test_texts_that_are_none_are_refused(models: list[Served], texts: list[str], fault: str):
    with pytest.raises(Refusal) as refused:
        items_of(models[0], texts)
    assert refused.value.fault == fault


def test_a_long_text_is_cut_as_predict_cuts_it_or_refused_or_cut_on_the_left(models: list[Served]):
    reader, long = models[0].reader, "good " * 40 + "bad"
    (right,) = reader.read([long])
    (left,) = reader.read([long], left=True)
    (again,) = reader.read([long])
    assert len(right) == len(left) == reader.max_length
    assert not np.array_equal(left, right)
    assert np.array_equal(again, right)
    with pytest.raises(Refusal, match=r"less than 33 tokens\. Given: 43"):
        reader.read([long], cut=False)
    assert np.array_equal(reader.read([long])[0], right)


@pytest.mark.parametrize("path", ["..", ".", "../x", "/etc", "a/../..", "x\0y", "link"])
def test_nothing_outside_of_the_folder_is_loaded(tmp_path: Path, path: str):
    root = tmp_path / "adapters"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(Refusal) as refused:
        below(root, path)
    assert refused.value.fault == "forbidden"


@pytest.mark.parametrize(("first", "then"), [("b", "probe"), ("probe", "b")])
def test_what_stands_on_a_base_that_is_not_held_is_refused_at_run_time(
    home: Path, first: str, then: str
):
    """An adapter or an SVM on embeddings; on a base that either brought along, both are loaded."""
    loader = Loader()
    for name in ("a", "probe"):
        with pytest.raises(Refusal, match=f"^{name}: needs a base that the server does not hold"):
            loader.open_below(home, name, name)
    assert loader.open_below(home, "w", "whole").name == "w"
    loader.open(NamedFolder(first, home / first))
    made = loader.open_below(home, "new", then)
    (scores,) = made.runner([(made, made.reader.read(TEXTS))])
    np.testing.assert_allclose(made.probabilities(scores), expected(home / then, TEXTS), atol=2e-5)
    loader._bases = {"another": next(iter(loader._bases.values()))}
    with pytest.raises(Refusal, match="does not hold") as refused:
        loader.open_below(home, "a", "a")
    assert "/" not in str(refused.value)  # nor where the bases lie


@pytest.mark.parametrize("said", ["{", "[]", "\xff"])
def test_an_adapter_of_peft_whose_config_is_none_is_refused(tmp_path: Path, said: str):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "adapter_config.json").write_text(said, encoding="latin-1")
    with pytest.raises(tunelab.TunelabError, match=r"adapter_config\.json: (not valid|expected)"):
        Loader().open(NamedFolder("x", tmp_path / "x"))
    with pytest.raises(Refusal, match=r"^x/adapter_config\.json"):
        Loader().open_below(tmp_path, "x", "x")


def test_models_are_called_by_their_folders_or_as_is_said(tmp_path: Path):
    for name in ("x", "y/artifact"):
        (tmp_path / name).mkdir(parents=True)
    asked = [str(tmp_path / "x"), f"z={tmp_path / 'x'}", str(tmp_path / "y/artifact")]
    assert [m.name for m in named_folders(read_names(asked), lambda p: p)] == ["x", "z", "y"]
    with pytest.raises(tunelab.TunelabError, match="Two models would be called 'x'"):
        named_folders(read_names([asked[0], asked[0]]), lambda p: p)
