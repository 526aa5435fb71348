"""Plan, Progress and Schedule: what is meant, what is on disk, what runs when."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from tunelab import api, study
from tunelab.core import study_folder
from tunelab.study import resolve
from tunelab.study.durations import seconds_to_import


@pytest.fixture
def plan(tmp_path: Path, reviews_csv: Path) -> study.Plan:
    flags = {
        "data.source": str(reviews_csv),
        "methods": ["svm-tfidf", {"name": "svm-tfidf", "label": "words", "char_ngrams": 0}],
        "seeds": 2,
        "train_sizes": [20, 1000],
        "jobs": 1,
        "output_dir": str(tmp_path / "study"),
    }
    return study.plan(resolve.resolve_study(None, flags))


def test_a_plan_is_frozen_and_writes_nothing(plan: study.Plan) -> None:
    assert not plan.spec.output_dir.exists()
    assert plan.sizes == (20,)
    offered, sizes = plan.notes
    assert offered.startswith("one test part of 24 rows: with --seeds 6 all 160 rows would be")
    assert sizes == "train sizes of 112 rows and more are all rows: [1000]"
    for value in (plan, study.read_progress(plan), study.scheduled(plan)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.notes = ()  # type: ignore[misc]
    assert not plan.spec.output_dir.exists()


def test_progress_is_what_is_on_disk_when_it_was_read(plan: study.Plan) -> None:
    before = study.read_progress(plan)
    assert (len(before.trials), len(before.curve), len(before.todo)) == (4, 4, 8)
    assert not before.results
    first = study.scheduled(plan)
    study.write(first.progress, "test")
    running = study.run(first, lambda _: None, engine="inline")
    ran = list(itertools.islice(running, 2))
    after = study.read_progress(plan)
    assert set(after.results) == {r.spec.trial_id for r in ran}
    assert {t.trial_id for t in after.todo} == {t.trial_id for t in before.todo} - set(
        after.results
    )
    assert (after.trials, after.curve) == (before.trials, before.curve)
    assert len(before.todo) == 8  # what was read does not change


def test_a_schedule_has_seconds_for_all_that_is_still_to_run(plan: study.Plan) -> None:
    schedule = study.scheduled(plan)
    assert set(schedule.seconds) == {t.trial_id for t in schedule.progress.todo}
    # One at a time: all trials, after what the first one waits for.
    waits = seconds_to_import(schedule.progress.todo)
    assert schedule.total_seconds == pytest.approx(sum(schedule.seconds.values()) + waits)
    api.run_study(schedule, "test", lambda _: None, engine="inline")
    done = study.scheduled(plan)
    assert done.seconds == {}
    assert done.progress.todo == ()
    assert len(study_folder.read_study(plan.spec.output_dir).results) == 4
