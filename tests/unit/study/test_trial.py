"""A trial's identity and seeds: what its result depends on, and nothing else."""

from __future__ import annotations

import ast
from dataclasses import astuple, replace
from pathlib import Path

from tunelab.core.events import Note
from tunelab.core.values import BaseRef, DataSpec, MethodSpec, TrialSpec
from tunelab.methods import METHODS
from tunelab.study import StudyEvent, durations, estimate
from tunelab.study.alone import remove_others
from tunelab.study.trial import failed, make_spec, named_seeds

DATA = DataSpec("reviews.csv", subset=100)
BASE = BaseRef("minilm", "a" * 64)
SVM = MethodSpec("svm-tfidf", "svm-tfidf", {"c": [0.1, 1.0]})
LORA = MethodSpec("lora", "lora", {"r": 8, "learning_rate": 5e-4})


def spec(**changes: object) -> TrialSpec:
    given = {"spec": DATA, "fingerprint": "f", "base": BASE, "method": LORA, "seed": 0} | changes
    return make_spec(**given)  # type: ignore[arg-type]


def test_of_the_last_seed_the_longest_trials_start_first() -> None:
    todo = [spec(seed=k, method=m) for k in (3, 7, 1) for m in (SVM, LORA)]
    seconds = {t.trial_id: 1.0 if t.method == SVM else 20.0 for t in todo}
    assert durations.starting_order(todo, seconds, 2) == [*todo[:4], todo[5], todo[4]]
    assert durations.starting_order(todo, seconds, 1) == todo  # a core alone is never waited for
    assert durations.starting_order(todo, {}, 2) == todo
    assert durations.starting_order([], {}, 2) == []
    small, large = [replace(todo[4], train_rows=50), replace(todo[5], train_rows=50)], todo[4:]
    assert durations.starting_order([*small, *large], seconds, 2) == [*small, *large[::-1]]


def test_what_changes_a_result_changes_the_id() -> None:
    ids = {
        spec().trial_id,
        spec(fingerprint="g").trial_id,
        spec(spec=replace(DATA, subset=50)).trial_id,
        spec(spec=replace(DATA, split_seed=1)).trial_id,
        spec(base=BaseRef("minilm", "b" * 64)).trial_id,
        spec(method=replace(LORA, settings={"r": 4, "learning_rate": 5e-4})).trial_id,
        spec(seed=1).trial_id,
        spec(method=SVM, base=None).trial_id,
        spec(method=SVM, base=None, metric="f1_macro").trial_id,  # its C is chosen by it
    }
    assert len(ids) == 9


def test_what_does_not_change_a_result_does_not_change_the_id() -> None:
    moved = replace(DATA, source="elsewhere/reviews.csv")
    renamed = replace(LORA, label="my lora")
    assert spec(spec=moved).trial_id == spec(method=renamed).trial_id == spec().trial_id
    other_order = replace(LORA, settings={"learning_rate": 5e-4, "r": 8})
    assert spec(method=other_order).trial_id == spec().trial_id
    assert spec(base=BaseRef("/models/minilm", BASE.sha256)).trial_id == spec().trial_id
    assert spec(metric="f1_macro").trial_id == spec().trial_id
    # Studies from before the metric counted are read as they are.
    assert spec(method=SVM, base=None).trial_id == "svm-tfidf-6af78a193ec3"


def test_named_seeds_are_fixed_different_and_fit_everywhere() -> None:
    first = named_seeds(0)
    assert named_seeds(0) == first
    drawn = [s for n in range(50) for s in astuple(named_seeds(n))]
    assert len(set(drawn)) == 150
    assert all(0 <= s < 2**32 for s in drawn)


def test_a_failure_is_one_line_and_a_stranger_keeps_its_traceback() -> None:
    try:
        {}["two\nlines"]
    except KeyError as e:
        result = failed(spec(), e, {})
    assert result.status == "failed"
    assert result.error is not None
    assert "\n" not in result.error
    assert result.error.startswith("KeyError")
    assert "Traceback" in result.details["traceback"]


def test_what_a_method_costs_stands_in_its_row_alone() -> None:
    tree = ast.parse(Path(estimate.__file__).read_text(encoding="utf-8"))
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert not texts & set(METHODS)
    assert {n: (c.work, c.weight_copies) for n in ("full", "probe", "svm", "lora", "bitfit")
            for c in [METHODS[n].costs]} == {
        "full": (6.0, 5.0), "probe": (2.0, 2.0), "svm": (3.5, 2.0), "lora": (4.5, 2.0),
        "bitfit": (4.5, 2.0),
    }  # fmt: skip
    for method in METHODS.values():
        # Without a base there are no weights to count by; with one, words are nothing of their own.
        by_word = (method.costs.work_per_word > 0, method.costs.bytes_per_character > 0)
        assert by_word == (not method.needs_base, not method.needs_base), method.name


def test_a_checkpoint_of_another_training_into_a_folder_is_removed_and_said(
    tmp_path: Path,
) -> None:
    kept = tmp_path / ".out.checkpoints"
    for name in ("lora-1", "lora-2", ".lora-2.draft"):
        (kept / name).mkdir(parents=True)
    said: list[StudyEvent] = []
    remove_others(kept, ["lora-1"], said.append)
    assert [p.name for p in kept.iterdir()] == ["lora-1"]
    (note,) = said
    assert isinstance(note, Note)
    assert note.text.startswith(".out.checkpoints: holds a checkpoint of other data or settings")
    remove_others(kept, [], said.append)
    assert not kept.exists()
