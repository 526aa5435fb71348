"""Sensitivity: the exact split against statsmodels, the forest on a known truth, what is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from studies import METHODS, make_study
from tunelab.analysis import sensitivity, setting_effects
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord, read_study

LORA = METHODS[3]


def study(
    tmp_path: Path,
    grid: dict[str, list[object]],
    value: Callable[..., float],
    *,
    seeds: int = 4,
    leave_out: int = 0,
) -> StudyRecord:
    """A study of lora settings whose test accuracy is `value(settings, seed, rng)`."""
    combos = [dict(zip(grid, v, strict=True)) for v in itertools.product(*grid.values())]
    methods = [
        replace(LORA, label=f"lora[{i}]", settings={**LORA.settings, **c})
        for i, c in enumerate(combos)
    ]
    record = read_study(make_study(tmp_path, methods=methods, seeds=seeds, rows=8))
    rng = np.random.default_rng(0)
    results = []
    for r in record.results:
        y = value(r.spec.method.settings, r.spec.seed, rng)
        scores = {**r.scores, "test_accuracy": y}
        cost = replace(r.cost, train_seconds=10.0 * r.spec.method.settings.get("r", 1))
        results.append(replace(r, scores=scores, cost=cost))
    return replace(record, results=tuple(results[leave_out:]))


def noisy(settings: dict[str, object], seed: int, rng: np.random.Generator) -> float:
    r, bias = settings["r"], settings["bias"]
    together = 0.02 if (r == 16 and bias == "all") else 0.0
    return 0.8 + 0.001 * r + 0.005 * seed + together + 0.004 * rng.normal()  # type: ignore[operator]


GRID: dict[str, list[object]] = {"r": [4, 8, 16], "bias": ["none", "all"], "dropout": [0.0, 0.1]}


@pytest.mark.parametrize("names", [["r"], ["r", "bias"], ["r", "bias", "dropout"]])
def test_sums_of_squares_are_those_of_anova_lm(tmp_path: Path, names: list[str]) -> None:
    grid = {n: GRID[n] for n in names}
    record = study(tmp_path, grid, lambda s, seed, g: noisy({"bias": "none"} | s, seed, g))
    (found,) = sensitivity.analyse(record)
    frame = pd.DataFrame(
        [
            {n: str(r.spec.method.settings[n]) for n in names}
            | {"seed": str(r.spec.seed), "y": r.scores["test_accuracy"]}
            for r in record.done
        ]
    )
    model = smf.ols(f"y ~ {' * '.join(f'C({n})' for n in names)} + C(seed)", frame).fit()
    expected = sm.stats.anova_lm(model, typ=2)
    for e in (*found.effects, *found.interactions):
        rows = [i for i in expected.index if set(i.split(":")) == {f"C({n})" for n in e.settings}]
        row = expected.loc[rows[0]]
        assert e.sum_squares == pytest.approx(row["sum_sq"])
        assert e.df == row["df"]
        assert e.f == pytest.approx(row["F"])
        assert e.p_value == pytest.approx(row["PR(>F)"])
    assert len(found.effects) == len(names)


def test_components_add_up_and_are_orthogonal() -> None:
    grid = np.random.default_rng(0).normal(size=(3, 2, 4))
    parts = setting_effects.anova_components(grid)
    assert np.allclose(sum(parts.values()), grid)
    for s, part in parts.items():
        for a in s:
            assert np.allclose(part.sum(axis=a), 0)
    spread = sum((np.broadcast_to(c, grid.shape) ** 2).sum() for s, c in parts.items() if s)
    assert spread == pytest.approx(((grid - grid.mean()) ** 2).sum())


def test_shares_add_up_and_find_what_matters(tmp_path: Path) -> None:
    (found,) = sensitivity.analyse(study(tmp_path, GRID, noisy))
    assert {e.name for e in found.effects} == {"r", "bias", "dropout"}
    assert found.effects[0].name == "r"
    assert found.effects[-1].name == "dropout"
    dropout = found.effects[-1]
    assert dropout.share.value < 0.05
    assert dropout.p_value is not None
    assert dropout.p_value > 0.05
    assert found.interactions[0].name == "r x bias"
    assert found.interactions[0].p_value is not None
    assert found.interactions[0].p_value < 0.05
    assert found.seeds is not None
    total = sum(e.share.value for e in (*found.effects, *found.interactions))
    assert total + found.seeds + found.higher + found.residual == pytest.approx(1.0)
    for e in found.effects:
        assert 0 <= e.share.low <= e.share.value <= e.share.high <= 1  # type: ignore[operator]
    best = found.effects[0]
    assert [v.value for v in best.levels] == ["4", "8", "16"]
    assert best.span is not None
    assert best.span.low is not None
    assert best.span.low > 0
    assert "r explains" in found.sentences[0]
    assert "best 16" in found.sentences[0]
    assert any("dropout" in s and "no effect is shown" in s for s in found.sentences)
    assert any("r x bias act together" in s for s in found.sentences)
    headings, rows = sensitivity.sensitivity_for_display(found)
    assert all(len(row) == len(headings) for row in rows)


def test_interval_of_a_share_covers_it_in_simulation(tmp_path: Path) -> None:
    """y = effect of r + noise, 3 x 2 cells, 5 seeds: lambda = sum of effects squared / sigma^2."""
    rng = np.random.default_rng(0)
    record = study(tmp_path, {"r": [4, 8, 16], "bias": ["none", "all"]}, noisy, seeds=5)
    effect = {4: -0.01, 8: 0.0, 16: 0.01}
    sigma, n = 0.01, 30
    lam = n * np.mean([e**2 for e in effect.values()]) / sigma**2
    hits = 0
    for _ in range(200):
        results = tuple(
            replace(
                r,
                scores={
                    "test_accuracy": effect[r.spec.method.settings["r"]] + sigma * rng.normal()
                },
            )
            for r in record.results
        )
        (found,) = sensitivity.analyse(replace(record, results=results))
        share = next(e.share for e in found.effects if e.name == "r")
        hits += share.low <= lam / (lam + n) <= share.high  # type: ignore[operator]
    assert hits / 200 > 0.88  # 0.95 less three standard errors, and the other shares are estimates


def test_a_cost_of_a_grid_whose_seeds_change_nothing(tmp_path: Path) -> None:
    record = study(tmp_path, {"r": [4, 8], "bias": ["none", "all"]}, noisy)
    (found,) = sensitivity.analyse(record, "train_seconds")
    assert found.of == "train_seconds"
    shares = {e.name: e.share for e in found.effects}
    assert shares["r"].value == pytest.approx(1.0)
    assert shares["r"].low is None
    assert shares["bias"].value == pytest.approx(0.0)
    assert "best 4 (40 s), worst 8 (80 s)" in found.sentences[0]


def test_settings_that_always_change_together_are_one(tmp_path: Path) -> None:
    methods = [
        replace(LORA, label=f"lora r={r}", settings={**LORA.settings, "r": r, "lora_alpha": 2 * r})
        for r in (4, 8, 16)
    ]
    record = read_study(make_study(tmp_path, methods=[*methods, METHODS[2]], seeds=3))
    (found,) = sensitivity.analyse(record)
    assert [e.name for e in found.effects] == ["r with lora_alpha"]


def test_one_seed_takes_the_highest_interaction_for_noise(tmp_path: Path) -> None:
    (found,) = sensitivity.analyse(study(tmp_path, GRID, noisy, seeds=1))
    assert found.seeds is None
    assert "one seed" in found.notes[0]
    assert found.effects[0].p_value is not None
    (alone,) = sensitivity.analyse(study(tmp_path / "one", {"r": [4, 8]}, noisy_r, seeds=1))
    assert alone.effects[0].p_value is None
    assert "cannot be told" in alone.notes[0]


def noisy_r(settings: dict[str, object], seed: int, rng: np.random.Generator) -> float:
    return noisy({"bias": "none"} | settings, seed, rng)


def test_a_grid_with_holes_is_split_by_a_forest(tmp_path: Path) -> None:
    record = study(tmp_path, GRID, noisy, leave_out=5)
    (found,) = sensitivity.analyse(record)
    assert "random forest" in found.procedure
    assert found.effects[0].name == "r"
    assert found.effects[0].share.value > 0.2
    assert next(e for e in found.effects if e.name == "dropout").share.value < 0.1
    whole = sum(e.share.value for e in (*found.effects, *found.interactions))
    assert whole + found.higher + found.residual == pytest.approx(1.0, abs=1e-6)
    assert "of trials it has not seen" in found.notes[0]
    assert found == sensitivity.analyse(record)[0]
    few = replace(record, results=record.results[:7])
    (found,) = sensitivity.analyse(few)
    assert found.effects == ()
    assert "at least 10 are needed" in found.notes[0]


def test_nothing_varies_and_unknown_quantities(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path))
    assert sensitivity.analyse(record) == ()
    assert sensitivity.quantity(record, "f1_macro") == "test_f1_macro"
    assert sensitivity.quantity(record, "eval_accuracy") == "eval_accuracy"
    with pytest.raises(ConfigError, match=r"no trial has 'train_second'.*train_seconds"):
        sensitivity.analyse(record, "train_second")
