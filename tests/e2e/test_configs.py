"""The ready studies in configs/: each is read, planned and run to its end.

The base is tiny and random, the data few rows of a study's own number of classes and columns; the
methods, their settings and what is tuned are those of the file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from families import make_family
from tiny import reviews, write_csv
from tunelab import api, study
from tunelab.study import resolve
from tunelab.study.spec import StudySpec

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
CLASSES = {"emotion": 6, "stars": 5}
# Only what a tiny model has no room for (64 positions, 32 wide), and what makes it slow.
SHORT = {"max_length": 32, "num_train_epochs": 1, "per_device_train_batch_size": 16}
QUICK = {"rotten-tomatoes", "sst2"}
RUN = [
    pytest.param(p, marks=[] if p.stem in QUICK else [pytest.mark.slow], id=p.stem) for p in CONFIGS
]


def names_of(path: Path) -> list[str]:
    return [m.label for m in resolve.resolve_study(path, {}).methods]


def in_small(path: Path, folder: Path) -> StudySpec:
    """The study on a tiny base and few rows, one seed; each method on the first of its tries."""
    asked = resolve.resolve_study(path, {})
    classes = CLASSES.get(path.stem, 2)
    text = asked.data.text_column or "text"
    rows = [(said, f"class {i % classes}") for i, (said, _) in enumerate(reviews(24 * classes))]
    data = write_csv(folder / "rows.csv", rows, [text, "label"])
    base = make_family(folder / "base", "gpt2" if asked.model == "gpt2" else "bert")
    flags = {
        "data.source": str(data), "model": str(base), "seeds": [0], "jobs": 1,
        "output_dir": str(folder / "study"),
    }  # fmt: skip
    given = {k: v for k, v in SHORT.items() if any(k in m.settings for m in asked.methods)}
    spec = resolve.resolve_study(path, flags, given)
    few = {m: {k: (v[0],) for k, v in s.items()} for m, s in _spaces(spec).items()}
    return replace(spec, tuning=replace(spec.tuning, spaces=few))


def _spaces(spec: StudySpec) -> dict[str, dict[str, tuple[object, ...]]]:
    """What each method tries: lists all; no ready study asks for a range, which needs Optuna."""
    return {
        m: {k: v for k, v in space.items() if isinstance(v, tuple)}
        for m, space in spec.tuning.spaces.items()
    }


def test_a_grid_names_its_points() -> None:
    by_file = {p.stem: names_of(p) for p in CONFIGS}
    assert [f"lora[r={r}]" for r in (4, 8, 16, 32)] == [
        n for n in by_file["rank"] if n.startswith("lora[")
    ]
    assert all(len(set(names)) == len(names) for names in by_file.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_ready_study_says_how_it_is_run(path: Path) -> None:
    said = [x for x in path.read_text(encoding="utf-8").splitlines() if x.startswith("#")]
    assert any(f"tunelab compare configs/{path.name}" in x for x in said)
    assert resolve.resolve_study(path, {}).output_dir == Path("runs") / path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_ready_study_plans(path: Path, tmp_path: Path) -> None:
    asked = resolve.resolve_study(path, {})
    planned = study.read_progress(study.plan(in_small(path, tmp_path)))
    assert [t.method.label for t in planned.trials] == names_of(path)
    assert {t.method.label for t in planned.tries} == set(asked.tuning.spaces)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("path", RUN)
def test_a_ready_study_runs(path: Path, tmp_path: Path) -> None:
    spec = in_small(path, tmp_path)
    schedule = study.scheduled(study.plan(spec))
    api.run_study(schedule, "test", lambda _: None, engine="inline")
    done = api.Study(tmp_path / "study")
    assert [r.error for r in done.record.results if r.status != "done"] == []
    assert [r.spec.method.label for r in done.record.results] == names_of(path)
    tuned = (done.record.tuning or {"methods": {}})["methods"]
    assert {m: len(entry["tries"]) for m, entry in tuned.items()} == dict.fromkeys(
        spec.tuning.spaces, 1
    )
    assert done.summary.metric == resolve.resolve_study(path, {}).metric
    assert (tmp_path / "study" / "report.html").stat().st_size > 100_000
    labels = done.record.data["label_names"]
    assert len(labels) == CLASSES.get(path.stem, 2)
    assert set(api.load(done.best()).predict(["a good film", "a dull plot"])) <= set(labels)
