"""How long trials are expected to take, after whatever has run before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tunelab import study
from tunelab.core import machine
from tunelab.core.values import Provenance, TrialResult, TrialSpec
from tunelab.study import durations, resolve
from tunelab.study.durations import Duration


@pytest.fixture
def plans(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, study.Plan]:
    """The same methods on a tiny model and on one that is 250 times larger, both BERTs."""
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "has_card", lambda: False)
    monkeypatch.setattr(durations, "_measured_speed", lambda: 1e11)
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: False)
    flags = {"data.source": "demo", "methods": ["lora", "full", "svm"], "tuning": False,
             "seeds": 1, "folds": "off"}  # fmt: skip
    return {
        name: study.plan(
            resolve.resolve_study(
                None,
                {**flags, "model": str(model), "output_dir": str(tmp_path / name)},
                {"max_length": 64},
            )
        )
        for name, model in (("tiny", tiny_bert), ("minilm", "minilm"))
    }


def expected(plan: study.Plan) -> dict[str, Duration]:
    """By method."""
    todo = study.expand(plan)
    out = durations.estimate(todo, (), plan.dataset, plan.base, threads=1)
    return {t.method.name: out[t.trial_id] for t in todo}


def ran(plan: study.Plan, method: str, seconds: float) -> None:
    durations.learn(result(plan, method, seconds), plan.dataset, plan.base, 1)


def result(plan: study.Plan, method: str, seconds: float) -> TrialResult:
    return TrialResult(trial(plan, method), "done", provenance=Provenance(seconds=seconds))


def trial(plan: study.Plan, method: str) -> TrialSpec:
    return next(t for t in study.expand(plan) if t.method.name == method)


def test_what_a_tiny_model_takes_says_nothing_of_a_large_one(plans: dict[str, study.Plan]) -> None:
    before = expected(plans["minilm"])
    for seconds in (5.0, 48.0, 5000.0):  # start-up, a busy machine, a machine that slept
        ran(plans["tiny"], "lora", seconds)
        ran(plans["tiny"], "full", seconds)
    after = expected(plans["minilm"])
    # But that it starts slowly here, in seconds and no more than so many times.
    for method, d in after.items():
        assert d.seconds == pytest.approx(before[method].seconds + 7)
    assert after["lora"].factor > 2  # nothing is known: said as a range


def test_a_trial_is_remembered_as_often_as_it_was_off_within_bounds(
    plans: dict[str, study.Plan],
) -> None:
    plan = plans["minilm"]
    before = expected(plan)
    work = {k: d.seconds - 1.2 for k, d in before.items()}  # what is not fixed
    ran(plan, "lora", 1.0 + 3 * work["lora"])
    after = expected(plan)
    assert after["lora"].seconds == pytest.approx(1.2 + 3 * work["lora"])
    assert after["lora"].factor < 2 < before["lora"].factor
    # What holds of one method is likely to hold of others, less surely so.
    assert after["full"].seconds == pytest.approx(1.2 + 3 * work["full"])
    assert after["full"].factor > after["lora"].factor
    # One odd run among several is not believed, and none beyond its bounds.
    for seconds in (1.0 + 3 * work["lora"], 1e6):
        ran(plan, "lora", seconds)
    assert expected(plan)["lora"].seconds == pytest.approx(1.2 + 3 * work["lora"])
    for _ in range(20):
        ran(plan, "lora", 1e6)
    assert expected(plan)["lora"].seconds == pytest.approx(1.2 + 8 * work["lora"])


def test_what_comes_from_a_cache_is_not_learned(plans: dict[str, study.Plan]) -> None:
    plan = plans["minilm"]
    before = expected(plan)
    kept = result(plan, "svm", 1e3)
    kept = replace(kept, details=replace(kept.details, from_cache=True))
    durations.learn(kept, plan.dataset, plan.base, 1)
    assert expected(plan) == before


def test_files_of_before_and_broken_ones_cost_the_knowledge_and_nothing_else(
    plans: dict[str, study.Plan], tmp_path: Path
) -> None:
    plan = plans["minilm"]
    before = expected(plan)
    folder = tmp_path / "cache/machine"
    folder.mkdir(parents=True)
    (folder / "speeds.json").write_text('{"p/2/all/bert/lora": {"work": 1.0, "seconds": 9e9}}')
    for text in ("{", "[]\n1\nnull", '{"off": 3}', "\x00"):
        (folder / "durations.jsonl").write_text(text)
        assert expected(plan) == before
    ran(plan, "lora", 100.0)
    assert expected(plan) != before


def test_work_grows_with_rows_epochs_and_the_model(plans: dict[str, study.Plan]) -> None:
    plan = plans["minilm"]
    t = trial(plan, "full")
    twice = replace(t, method=replace(t.method, settings={**t.method.settings,
                                                          "num_train_epochs": 6}))  # fmt: skip
    half = replace(t, train_rows=len(plan.dataset.train) // 2)
    out = [
        durations.estimate([x], (), plan.dataset, plan.base, threads=1)[t.trial_id].seconds - 1.2
        for x in (t, twice, half)
    ]
    assert out[1] == pytest.approx(2 * out[0], rel=0.05)
    assert 0.5 < out[2] / out[0] < 0.65  # scoring stays
    small, large = (expected(plans[k])["full"].seconds for k in ("tiny", "minilm"))
    assert large > 20 * small


def test_studies_at_the_same_time_lose_none_of_each_others_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    run = durations._PastRun("here", "bert/auto/auto", "lora", 1000, 1.5)

    def add(_: int) -> None:
        for _ in range(20):
            durations._add_seen(run)

    with ThreadPoolExecutor(8) as several:
        list(several.map(add, range(8)))
    assert durations._read_seen() == (run,) * 160
    monkeypatch.setattr(durations, "_MOST_BYTES", 1000)
    monkeypatch.setattr(durations, "_MOST_SEEN", 10)
    durations._add_seen(run)
    assert len((tmp_path / "machine" / "durations.jsonl").read_text().splitlines()) == 10
    (tmp_path / "machine" / "durations.jsonl").unlink()
    (tmp_path / "other").touch()
    (tmp_path / "machine" / "durations.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):  # noqa: PT011  a link is not followed to a file of this user's
        durations._add_seen(run)
