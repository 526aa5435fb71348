"""What is said about a study: order, choice, intervals, warnings, rounding, tables."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from studies import METHODS, make_study
from tunelab.analysis import Summary, caveats, numbers, summarise, summary, tradeoff
from tunelab.analysis.reading import values_by_seed
from tunelab.core import files, study_folder
from tunelab.core.details import Hardware
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord, read_study
from tunelab.core.values import Estimate, TrialResult
from tunelab.stats.racing import RaceRecord, race_to_json, start, statement


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return read_study(make_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def said(record: StudyRecord) -> Summary:
    return summarise(record)


def read(tmp_path: Path, **options: object) -> StudyRecord:
    return read_study(make_study(tmp_path, **options))  # type: ignore[arg-type]


# --- rounding -------------------------------------------------------------------------------


def of_column(name: str) -> Callable[[float], str]:
    return lambda value: numbers.format_value(value, numbers.column(name))


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (numbers.format_percent, 0.794, "79.4"),
        (numbers.format_percent, 1.0, "100.0"),
        (numbers.format_percent, -0.0001, "0.0"),
        (numbers.format_seconds, 0.449, "0.45 s"),
        (numbers.format_seconds, 4.44, "4.4 s"),
        (numbers.format_seconds, 44.4, "44 s"),
        (numbers.format_seconds, 119.4, "119 s"),
        (numbers.format_seconds, 126.0, "2.1 min"),
        (numbers.format_seconds, 3 * 3600.0, "3.0 h"),
        (of_column("latency_p50_seconds"), 0.006, "6.0 ms"),
        (of_column("latency_p50_seconds"), 1.5, "1.50 s"),
        (numbers.format_bytes, 512, "512 B"),
        (numbers.format_bytes, 1_200_000, "1.2 MB"),
        (numbers.format_bytes, 999_960, "1.0 MB"),
        (numbers.format_bytes, 91_000_000, "91.0 MB"),
        (numbers.format_bytes, 310_000_000, "310 MB"),
        (numbers.format_bytes, 1_430_000_000, "1.43 GB"),
        (numbers.format_parameters, 0, "0"),
        (numbers.format_parameters, 770, "770"),
        (numbers.format_parameters, 299_520, "0.30M"),
        (numbers.format_parameters, 22_713_986, "22.7M"),
        (numbers.format_parameters, 7_240_000_000, "7.2B"),
        (of_column("texts_per_second"), 840.2, "840"),
        (of_column("texts_per_second"), 9_400.0, "9,400"),
        (of_column("texts_per_second"), 3.21, "3.2"),
        (numbers.format_percent, None, numbers.MISSING),
    ],
)
def test_format(function: object, value: float | None, text: str) -> None:
    assert function(value) == text  # type: ignore[operator]


def _estimate(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value, low, high, 3, "test")


@pytest.mark.parametrize(
    ("estimate", "kind", "text"),
    [
        (_estimate(0.794, 0.776, 0.812), "percent", "79.4 ± 1.8"),
        (_estimate(0.794, 0.771, 0.802), "percent", "79.4 [77.1, 80.2]"),
        (_estimate(0.794, None, None), "percent", "79.4"),
        (_estimate(0.794, 0.794, 0.794), "percent", "79.4"),
        (_estimate(44.2, 40.1, 48.3), "seconds", "44 ± 4 s"),
        (_estimate(0.28, 0.27, 0.29), "number", "0.280 ± 0.010"),
        (None, "percent", numbers.MISSING),
    ],
)
def test_format_estimate(estimate: Estimate | None, kind: numbers.NumberKind, text: str) -> None:
    assert numbers.format_estimate(estimate, kind) == text


# --- rows, order, choice --------------------------------------------------------------------


def test_rows_are_best_first_on_test(said: Summary) -> None:
    means = [r.estimates["test_accuracy"] for r in said.rows]
    values = [e.value for e in means if e]
    assert len(values) == 4
    assert values == sorted(values, reverse=True)


def test_a_cost_has_an_interval_from_six_runs_on_and_of_fewer_its_range(
    tmp_path: Path, record: StudyRecord, said: Summary
) -> None:
    """Of three runs, Student's interval would have been printed as "84 [0, 186] s"."""
    few = said.row("lora").estimates["train_seconds"]
    assert few is not None
    values = [r.cost.train_seconds for r in record.done if r.spec.method.label == "lora"]
    assert (few.low, few.high, few.is_range) == (min(values), max(values), True)
    assert numbers.format_estimate(few, "seconds") == "44 (43 to 45) s"
    record = read(tmp_path, seeds=6)
    said = summarise(record)
    values = [r.cost.train_seconds for r in record.done if r.spec.method.label == "lora"]
    low, high = scipy_stats.t.interval(
        0.95, len(values) - 1, np.mean(values), scipy_stats.sem(values)
    )
    found = said.row("lora").estimates["train_seconds"]
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_interval_of_a_score_is_for_other_seeds_and_other_rows(
    record: StudyRecord, said: Summary
) -> None:
    values = [r.scores["test_accuracy"] for r in record.done if r.spec.method.label == "lora"]
    found = said.row("lora").estimates["test_accuracy"]
    assert found is not None
    assert found.value == pytest.approx(np.mean(values))  # type: ignore[arg-type]
    rows = 288
    by_rows = 1.96 * math.sqrt(found.value * (1 - found.value) / rows)
    assert found.low is not None
    assert found.high is not None
    assert 0.5 * by_rows < (found.high - found.low) / 2 < 3 * by_rows
    assert "seeds" in found.procedure
    assert "rows" in found.procedure
    # An SVM gives the same with every seed, and is not known exactly for that.
    svm = said.row("svm").estimates["test_accuracy"]
    assert svm is not None
    assert svm.low < svm.value < svm.high  # type: ignore[operator]


def test_best_is_chosen_on_validation_not_on_test(record: StudyRecord) -> None:
    """Swap the test scores of the best and the worst: the order changes, the choice does not."""
    before = summarise(record)
    worst = before.rows[-1].label
    results = []
    for r in record.results:
        score = {before.best: 0.1, worst: 0.99}.get(r.spec.method.label)
        scores = r.scores if score is None else {**r.scores, "test_accuracy": score}
        results.append(replace(r, scores=scores))
    after = summarise(replace(record, results=tuple(results)))
    assert after.best == before.best
    assert after.rows[0].label == worst
    assert any(worst in w and "test chooses nothing" in w for w in after.warnings)


def test_a_method_that_ran_where_every_score_was_high_is_not_best_for_that(
    record: StudyRecord,
) -> None:
    # lora is two points ahead with every seed; full has only seed 0, in which all are high.
    values = {"full": 0.80, "lora": 0.82}
    some = [
        r
        for r in record.results
        if r.spec.method.label == "lora" or (r.spec.method.label == "full" and r.spec.seed < 1)
    ]

    def scored(by_seed: float) -> StudyRecord:
        results = (
            replace(r, scores={**r.scores, "eval_accuracy": values[r.spec.method.label]
                               + by_seed * (r.spec.seed < 1)})
            for r in some
        )  # fmt: skip
        return replace(record, results=tuple(results))

    assert len({r.spec.seed for r in some}) > 2
    found = summarise(scored(0.05))
    means = {r.label: r.estimates["eval_accuracy"] for r in found.rows}
    assert means["full"] is not None
    assert means["lora"] is not None
    assert means["full"].value > means["lora"].value
    assert found.best == "lora"
    assert summarise(scored(0.0)).best == "lora"
    # Where no seed is shared, means are all there is.
    apart = [
        r for r in scored(0.05).results if (r.spec.method.label == "full") == (r.spec.seed < 1)
    ]
    assert summarise(replace(record, results=tuple(apart))).best == "full"


@pytest.mark.parametrize("slow", ["lora", "svm"])
def test_equal_scores_are_in_the_order_of_names_whatever_was_timed(
    record: StudyRecord, slow: str
) -> None:
    same = {"test_accuracy": 0.8, "eval_accuracy": 0.8}
    results = [
        replace(
            r,
            scores={**r.scores, **same},
            cost=replace(r.cost, train_seconds=9.0 if r.spec.method.label == slow else 1.0),
        )
        for r in record.results
    ]
    said = summarise(replace(record, results=tuple(results)))
    assert [r.label for r in said.rows] == sorted(record.methods)
    assert said.best == min(record.methods)


def test_a_method_that_a_race_dropped_is_not_best(record: StudyRecord) -> None:
    race = replace(start(record.methods, 6), alive=("svm", "svm-tfidf"))
    stored = RaceRecord("accuracy", None, "seeds", race, statement(race), 12, 18, 1.0, 1.0)
    raced = replace(record, race=race_to_json(stored))
    assert summarise(record).best not in race.alive
    assert summarise(raced).best in race.alive
    assert {r.label for r in summarise(raced).rows} == set(record.methods)
    assert summarise(raced, "f1_macro").best == summarise(record, "f1_macro").best


@pytest.mark.parametrize(("alike", "pairs"), [(True, 6), (False, 0)])
def test_rows_that_differ_by_seed_are_paired_where_methods_share_them(
    tmp_path: Path, alike: bool, pairs: int
) -> None:
    folder = make_study(tmp_path, score_test=False)
    for r in read_study(folder).results:
        name = r.spec.trial_id
        ((part, p),) = study_folder.read_predictions(folder, name).items()
        whose = r.spec.seed if alike else name
        own = replace(p, ids=tuple(f"{whose}:{i}" for i in p.ids))
        with study_folder.new_trial(folder, name) as directory:
            study_folder.write_trial(directory, r, (), {part: own})
    found = summarise(read_study(folder))
    assert found.part == "eval"
    assert found.best == found.rows[0].label
    assert len(found.comparisons) == pairs
    assert tradeoff.recommend(read_study(folder)).choice == found.best


def test_log_loss_ranks_the_smallest_first_and_leaves_out_margins(record: StudyRecord) -> None:
    said = summarise(record, "log_loss")
    assert {r.label for r in said.rows[:2]} == {"full", "lora"}
    first, second = (r.estimates["test_log_loss"] for r in said.rows[:2])
    assert first is not None
    assert second is not None
    assert first.value < second.value
    assert said.row("svm").estimates["test_log_loss"] is None
    assert said.row("svm").reasons["test_log_loss"].startswith("needs probabilities")
    assert [{c.a, c.b} for c in said.comparisons] == [{"full", "lora"}]
    assert numbers.column("test_log_loss").kind == "number"


def test_unknown_metric_names_the_nearest(record: StudyRecord) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        summarise(record, "acuracy")


def test_every_pair_is_compared_and_sentences_are_about_the_best(said: Summary) -> None:
    assert len(said.comparisons) == 6
    against = said.against_best()
    assert [c.b for c in against] == [r.label for r in said.rows if r.label != said.best]
    assert said.sentences[: len(against)] == tuple(c.sentence for c in against)


def test_what_is_only_within_noise_is_not_recommended(tmp_path: Path) -> None:
    """A wide interval is no reason to take something cheaper: its loss must be shown small."""
    slow, fast = (m for m in METHODS if m.name in {"full", "lora"})
    same = replace(fast, name="full", label="other", skill=slow.skill)
    said = summarise(read(tmp_path, methods=[slow, same]))
    standings = {said.standing(c) for c in said.against_best()}
    assert standings == {"within noise"}
    assert said.answer.take == said.best
    assert not any("cheapest within noise" in s for s in (*said.sentences, said.answer.sentence))
    assert "within noise, first on validation" in said.answer.why


def test_an_equal_mean_on_test_is_not_the_highest(said: Summary) -> None:
    other = next(r for r in said.rows if r.label != said.best)
    own = replace(said.row(str(said.best)), estimates=other.estimates)
    assert not caveats._ahead_on_test(replace(said, rows=(other, own)))
    e = other.estimates["test_accuracy"]
    assert e is not None
    worse = replace(own, estimates={**own.estimates, "test_accuracy": replace(e, value=0.1)})
    assert caveats._ahead_on_test(replace(said, rows=(other, worse)))


def test_summary_is_the_same_twice(record: StudyRecord, said: Summary) -> None:
    assert json.dumps(summary.summary_to_json(summarise(record))) == json.dumps(
        summary.summary_to_json(said)
    )


def test_settings_shown_are_those_that_differ(tmp_path: Path) -> None:
    lora = METHODS[3]
    variants = [
        replace(lora, label=f"lora r={r}", settings={**lora.settings, "r": r}) for r in (8, 16)
    ]
    only = replace(lora, label="lora r=16, biased", settings={**lora.settings, "bias": "all"})
    said = summarise(read(tmp_path, methods=[*variants, only, METHODS[2]], seeds=2))
    assert said.row("lora r=8").settings == {"r": 8}
    assert said.row("lora r=16").settings == {"r": 16}
    assert said.row("lora r=16, biased").settings == {"r": 8, "bias": "all"}
    assert said.row("full").settings == {}


def test_best_trial_is_the_best_seed_of_the_best_method(record: StudyRecord, said: Summary) -> None:
    best = summary.best_trial(record, said)
    assert best is not None
    mine = [r.scores["eval_accuracy"] for r in record.done if r.spec.method.label == said.best]
    assert best.spec.method.label == said.best
    assert best.scores["eval_accuracy"] == max(v for v in mine if v is not None)


# --- warnings -------------------------------------------------------------------------------


def test_warnings_of_an_ordinary_demo(said: Summary) -> None:
    text = " ".join(said.warnings)
    assert "not a benchmark" in text
    assert "3 test texts also stand in train" in text
    assert "1 text carries more than one label" in text
    assert "3 seeds a method: at least 6 are needed" in text


def test_a_clean_study_with_enough_seeds_has_no_warnings(tmp_path: Path) -> None:
    none = {"total": 0, "within": {}, "across": {"train/test": 0}, "conflicting": 0}
    clean = {"duplicates": {**none, "examples": []}}
    strong = [replace(METHODS[3], skill=1.6), replace(METHODS[2], skill=0.4)]
    said = summarise(read(tmp_path, seeds=6, source="a.csv", data=clean, methods=strong))
    assert said.warnings == ()
    assert said.answer.sentence == (
        "Take lora: better than full; also the cheapest (training time)"
    )


def test_failed_and_missing_trials_are_named(tmp_path: Path) -> None:
    record = read(tmp_path, fail=[("lora", 1)], missing=[("full", 2), ("svm", 0)])
    said = summarise(record)
    assert said.warnings[0].startswith("lora (seed 1) failed: RuntimeError: the loss is not finite")
    assert said.warnings[1].startswith("2 of 12 trials have not been run")
    assert (said.row("lora").n_seeds, said.row("lora").n_failed) == (2, 1)
    assert "Failed" in summary.summary_for_display(said)[0]


def test_trials_that_were_not_computed_alike_are_said(record: StudyRecord) -> None:
    before = summarise(record).warnings

    def on(r: TrialResult) -> TrialResult:
        late = r.spec.seed == 0
        hardware = Hardware("new" if late else "old", cores=2)
        precision = "bfloat16" if late and r.spec.method.label == "lora" else "float32"
        trained = replace(r.details.trained, precision=precision)
        return replace(
            r,
            provenance=replace(r.provenance, hardware=hardware),
            details=replace(r.details, trained=trained),
        )

    mixed = replace(record, results=tuple(map(on, record.results)))
    said = summarise(mixed)
    assert [w for w in said.warnings if w not in before] == [
        "Trials ran on different machines (new, 2 cores; old, 2 cores): times, rates and memory "
        f"are those of {2 * len(said.rows)} of {3 * len(said.rows)} trials, on old, 2 cores.",
        "lora was trained in bfloat16 and float32: its seeds differ by that too. Set precision to "
        "have one.",
    ]
    # Costs are of one kind of machine; what no machine changes is of all.
    assert {r.estimates["train_seconds"].n for r in said.rows if r.estimates["train_seconds"]} == {
        2
    }
    assert {
        r.estimates["artifact_bytes"].n for r in said.rows if r.estimates["artifact_bytes"]
    } == {3}
    assert set(values_by_seed(mixed, "train_seconds")["lora"]) == {1, 2}


def test_a_method_that_always_failed_is_last_and_compared_with_nothing(tmp_path: Path) -> None:
    said = summarise(read(tmp_path, fail=[("lora", s) for s in range(3)]))
    last = said.rows[-1]
    assert (last.label, last.n_seeds, last.n_failed) == ("lora", 0, 3)
    assert last.reasons["test_accuracy"] == "no trial of this method finished"
    assert not any("lora" in (c.a, c.b) for c in said.comparisons)


def test_nothing_finished(tmp_path: Path) -> None:
    said = summarise(read(tmp_path, seeds=1, fail=[(m.name, 0) for m in METHODS]))
    assert said.best is None
    assert said.comparisons == ()
    assert said.answer.sentence == "No trial finished, so there is nothing to take"
    assert len(summary.table(said)) == 4


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    said = summarise(read(tmp_path, seeds=1))
    e = said.rows[0].estimates["test_accuracy"]
    assert e is not None
    assert (e.low, e.high, e.n) == (None, None, 1)
    assert "±" not in "".join(c for row in summary.summary_for_display(said)[1] for c in row)


def test_one_method_is_compared_with_nothing(tmp_path: Path) -> None:
    said = summarise(read(tmp_path, methods=METHODS[3:]))
    assert said.sentences == ()
    assert (
        said.answer.why == "the only method that finished, so there is nothing to compare it with"
    )


def test_an_unscored_test_part_falls_back_to_validation_and_says_so(tmp_path: Path) -> None:
    said = summarise(read(tmp_path, score_test=False))
    assert said.part == "eval"
    assert said.comparisons
    assert any("its labels are all -1" in w for w in said.warnings)
    assert "accuracy on validation, on which it was chosen, so that it flatters" in said.answer.sure


# --- tables ---------------------------------------------------------------------------------


def test_table_has_means_and_intervals_as_numbers(said: Summary) -> None:
    frame = summary.table(said)
    assert list(frame["label"]) == [r.label for r in said.rows]
    for name in ("test_accuracy", "eval_accuracy", "train_seconds", "peak_memory_bytes"):
        for column in (name, f"{name}_low", f"{name}_high"):
            assert pd.api.types.is_float_dtype(frame[column]), column
    lora = frame.set_index("label").loc["lora"]
    assert lora["test_accuracy_low"] < lora["test_accuracy"] < lora["test_accuracy_high"]
    assert math.isnan(frame.set_index("label").loc["svm", "test_log_loss"])
    assert frame.attrs["headings"]["test_accuracy"] == "Test accuracy, %"


def test_display_has_a_cell_for_each_heading(said: Summary) -> None:
    headings, cells = summary.summary_for_display(said)
    assert headings[:3] == ["Method", "Test accuracy, %", "Validation accuracy, %"]
    assert {"Adapter params", "Head params"} <= set(headings)
    assert all(len(row) == len(headings) for row in cells)


def test_columns_that_nobody_measured_are_left_out(record: StudyRecord) -> None:
    results = tuple(
        replace(r, cost=replace(r.cost, peak_memory_bytes=None)) for r in record.results
    )
    said = summarise(replace(record, results=results))
    assert "Peak memory" not in summary.summary_for_display(said)[0]
    assert said.rows[0].reasons["peak_memory_bytes"] == "not measured"


def test_to_json_is_plain_and_round_trips(tmp_path: Path, said: Summary) -> None:
    files.write_json(tmp_path / "comparison.json", summary.summary_to_json(said))
    back = json.loads((tmp_path / "comparison.json").read_text())
    assert back["best"] == said.best
    assert back["part"] == "test"
    assert [r["label"] for r in back["rows"]] == [r.label for r in said.rows]
    first = said.comparisons[0]
    assert back["comparisons"][0]["difference"]["value"] == first.difference.value


@pytest.mark.slow
def test_a_study_of_fifty_trials_is_summarised_in_seconds(tmp_path: Path) -> None:
    """54 trials on 1,066 rows: about 2 s of processor time where it was written."""
    variants = [replace(METHODS[3], label=f"lora {i}") for i in range(6)]
    record = read(tmp_path, methods=[*METHODS[:3], *variants], seeds=6, rows=1066)
    began = time.process_time()
    said = summarise(record)
    assert time.process_time() - began < 20
    assert len(said.comparisons) == 36
    assert all(c.simultaneous is not None for c in said.comparisons)


def test_a_rare_class_is_named_where_classes_are_averaged(tmp_path: Path):
    folder = make_study(tmp_path, rows=30)
    record = study_folder.read_study(folder)
    said = [w for w in summarise(record, "f1_macro").warnings if "too short to be believed" in w]
    assert len(said) == 1
    assert "rows)" in said[0]
    assert not [w for w in summarise(record, "accuracy").warnings if "too short" in w]
