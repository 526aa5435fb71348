"""Tables, figures, lab report, model cards, one study against another: true to the numbers."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from commands import run_here
from studies import METHODS, make_study
from tunelab.analysis import Summary, summarise, versus
from tunelab.analysis.common_rows import on_common_rows
from tunelab.core import artifact, study_folder
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord, read_study, trial_dir
from tunelab.core.values import Comparison, Estimate, Predictions
from tunelab.report import cards, evidence, paper
from tunelab.stats import Runs

Verdict = Literal["better", "worse", "equivalent", "undecided"]
NASTY = "a & b_c|d %$#{}~^\\ <script>"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return read_study(make_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def said(record: StudyRecord) -> Summary:
    return summarise(record)


def give_artifacts(record: StudyRecord, kind: str = "model") -> None:
    """An artifact's manifest for each trial: what a card needs of it."""
    for r in record.done:
        folder = study_folder.artifact_dir(record.directory, r.spec.trial_id)
        folder.mkdir()
        (folder / "weights.txt").write_text("weights", encoding="utf-8")
        facts = {"kind": kind, "label_names": ["negative", "positive"], "score_kind": "logit"}
        artifact.seal(folder, facts)


# --- tables ---------------------------------------------------------------------------------


def test_csv_has_every_number_of_the_summary(said: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(paper.csv_table(said))))
    assert [r["label"] for r in rows] == [r.label for r in said.rows]
    for row, known in zip(rows, said.rows, strict=True):
        for name, e in known.estimates.items():
            if e is not None:
                assert float(row[name]) == e.value
                assert row[f"{name}_low"] == ("" if e.low is None else str(e.low))


def test_markdown_table_has_a_line_a_method(said: Summary) -> None:
    lines = paper.markdown_table(said).splitlines()
    assert len(lines) == 2 + len(said.rows)
    assert len({line.count(" | ") for line in lines}) == 1


def test_latex_table_is_balanced_and_bold_where_the_mean_is_best(said: Summary) -> None:
    text = paper.latex_table(said)
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(said.rows)
    columns = len(re.search(r"\\begin\{tabular\}\{(l r*)\}", text.replace("{lr", "{l r"))[1]) - 1
    assert {line.count(" & ") for line in body} == {columns - 1}
    best = max(range(len(said.rows)), key=lambda i: said.rows[i].estimates["test_accuracy"].value)
    assert [r"\textbf" in line.split(" & ")[1] for line in body].index(True) == best
    unescaped = re.sub(r"\\.", "", text)
    assert unescaped.count("{") == unescaped.count("}")


def test_names_stay_text_in_latex_and_markdown(tmp_path: Path) -> None:
    methods = [replace(METHODS[3], label=NASTY), METHODS[2]]
    record = read_study(make_study(tmp_path, methods=methods, seeds=2))
    said = summarise(record)
    shown = paper.latex_table(said)
    assert r"a \& b\_c\textbar{}d \%\$\#\{\}\textasciitilde{}\textasciicircum{}" in shown
    lines = paper.markdown_table(said).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    text = paper.lab_report(record, said, evidence.plot_data(record, said))
    assert "<script>" not in text.replace(r"\<script\>", "")


# --- figures and the lab report -------------------------------------------------------------


def test_figures_in_three_formats(record: StudyRecord, said: Summary, tmp_path: Path) -> None:
    full = evidence.plot_data(record, said)
    few = replace(full, loss=(), validation=(), roc={}, precision_recall={}, confusion={})
    few = replace(few, costs=full.costs[:2], agreement={})
    paths = paper.write_figures(few, tmp_path, ("svg", "png", "pdf"))
    names = {p.stem for p in paths}
    assert names == {
        "differences", "cost-training-time", "cost-peak-memory", "costs", "calibration",
    }  # fmt: skip
    heads = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    assert len(paths) == 3 * len(names)
    for path in paths:
        assert path.read_bytes().startswith(heads[path.suffix[1:]])


def test_lab_report_says_what_the_summary_says(record: StudyRecord, said: Summary) -> None:
    data = evidence.plot_data(record, said)
    figures = ["figures/roc.png", "figures/cost-peak-memory.png"]
    text = paper.lab_report(record, said, data, figures)
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == ["Introduction", "Data", "Method", "Results", "Discussion", "Reproduction"]
    bare = text.replace("\\", "")
    for line in (*said.sentences, *said.warnings):
        assert line.rstrip(".") in bare
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == [figures[1], figures[0]]
    assert "1,344 train" in text
    assert "None" not in text


# --- model cards ----------------------------------------------------------------------------


def test_cards_are_read_by_the_hub_library(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=2))
    give_artifacts(record)
    said = summarise(record)
    paths = cards.write_cards(record, said)
    assert len(paths) == len(record.done)
    for result, path in zip(record.done, paths, strict=True):
        card = ModelCard.load(path)
        assert card.data.pipeline_tag == "text-classification"
        assert card.data.library_name == "transformers"
        if result.spec.base:
            assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
        else:
            assert card.data.base_model is None
        results = {e.metric_type: e for e in card.data.eval_results}
        assert results["accuracy"].metric_value == round(result.scores["test_accuracy"], 5)
        assert results["accuracy"].dataset_split == "test"
        assert results["f1"].metric_value == round(result.scores["test_f1_macro"], 5)
        assert result.spec.trial_id in card.text
        assert "None" not in card.text


def test_a_card_may_be_edited_and_the_artifact_still_opens(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=1))
    give_artifacts(record, "adapter")
    path = cards.write_cards(record, summarise(record))[0]
    card = ModelCard.load(path)
    assert card.data.library_name == "peft"
    assert cards.lines_of_use("adapter") in card.text  # tests/e2e/test_elsewhere.py runs them
    path.write_text(path.read_text(encoding="utf-8") + "Mine.\n", encoding="utf-8")
    assert artifact.open_artifact(path.parent).manifest["kind"] == "adapter"


def test_a_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=1, source=str(tmp_path / "my reviews.csv")))
    give_artifacts(record)
    specs = [
        replace(r.spec, base=replace(r.spec.base, name=str(tmp_path / "base")))
        for r in record.done
        if r.spec.base
    ]
    results = tuple(
        replace(r, spec=s) for r, s in zip(record.done[1:], specs, strict=False) if r.spec.base
    )
    there = replace(record, results=results, data={**record.data, "name": record.data["name"]})
    for path in cards.write_cards(there, summarise(record)):
        text = path.read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert "my reviews.csv" in text


# --- one study against another --------------------------------------------------------------


@pytest.fixture
def twins(tmp_path: Path) -> tuple[StudyRecord, StudyRecord]:
    one = make_study(tmp_path / "a", seeds=2)
    better = replace(METHODS[3], skill=2.0)
    other = make_study(tmp_path / "b", seeds=2, methods=[*METHODS[1:3], better])
    return read_study(one), read_study(other)


def test_versus_pairs_the_methods_that_both_have(
    twins: tuple[StudyRecord, StudyRecord],
) -> None:
    found = versus.between(*twins, "accuracy")
    assert [s.label for s in found.shared] == ["svm", "full", "lora"]
    assert found.only_here == ("svm-tfidf",)
    assert (found.here, found.there) == ("runs/study", "runs/study")
    by_label = {s.label: s for s in found.shared}
    same, changed = by_label["full"].comparison, by_label["lora"].comparison
    assert same is not None
    assert same.difference.value == 0.0
    assert changed is not None
    expected = by_label["lora"].here.value - by_label["lora"].there.value
    assert changed.difference.value == pytest.approx(expected)
    assert changed.difference.high < 0
    text = versus.markdown(found)
    assert "lora" in text
    assert f"{100 * expected:+.1f}" in text


def test_six_seeds_and_two_methods_tell_a_large_difference(tmp_path: Path) -> None:
    """The correction for two methods made the sign-flip over six seeds impossible to pass: a
    difference of 13 points was "undecided", whatever the seeds said.
    """
    worse = [replace(m, skill=m.skill - 0.6) for m in METHODS[2:]]
    one = read_study(make_study(tmp_path / "one", seeds=6, rows=300, methods=METHODS[2:]))
    other = read_study(make_study(tmp_path / "other", seeds=6, rows=300, methods=worse))
    found = versus.between(one, other, "accuracy")
    assert [s.standing for s in found.shared] == ["better", "better"]
    for s in found.shared:
        assert s.comparison is not None
        assert s.comparison.difference.value > 0.1
        assert "after Holm's correction for 2 methods; by more than" in s.comparison.sentence


def told(p: float, verdict: Verdict = "better") -> Comparison:
    d = Estimate(0.13, 0.01, 0.25, 6, "")
    return Comparison("a", "b", "accuracy", d, verdict, p, None, "", "a is better than b")


def test_verdicts_against_another_study_are_corrected_once_for_all_methods() -> None:
    given = [(told(p), "") for p in (0.001, 0.03, 0.04)]
    found = [c for c, _ in versus._corrected([*given, (None, "no common seed")]) if c is not None]
    assert [c.p_value for c in found] == pytest.approx([0.003, 0.06, 0.06])
    assert [c.verdict for c in found] == ["better", "undecided", "undecided"]
    assert found[1].sentence == (
        "a is ahead of b: +13.0 points, 95% interval +1.0 to +25.0, but p = 0.06 after Holm's "
        "correction for 3 methods"
    )
    ((alone, _),) = versus._corrected([(told(0.03), "")])
    assert alone == told(0.03)
    ((same, _),) = versus._corrected([(told(0.9, "equivalent"), "")])
    assert same is not None
    assert same.verdict == "equivalent"  # a test of its own, of each pair


def with_rows(record: StudyRecord, first: int) -> StudyRecord:
    """The study as if of other data: of its test rows the `first` are others, under other ids."""
    for r in record.done:
        path = trial_dir(record.directory, r.spec.trial_id) / "predictions.parquet"
        table = pq.read_table(path)
        ids = pa.array([f"moved:{i}" if first else i for i in table["id"].to_pylist()])
        pq.write_table(table.set_column(table.column_names.index("id"), "id", ids), path)
    p = record.predictions(record.done[0].spec.trial_id)["test"]
    texts = [f"text {i}" if i >= first else f"other {i}" for i in range(len(p.ids))]
    rows = {"part": "test", "id": p.ids, "label": p.labels, "text": texts}
    pd.DataFrame(rows).to_parquet(record.directory / "rows.parquet")
    data = {**record.data, "fingerprint": f"{first}" * 64}
    return replace(record, data=data)  # type: ignore[arg-type]


def test_versus_of_other_training_rows_pairs_the_test_rows_by_content(
    twins: tuple[StudyRecord, StudyRecord],
) -> None:
    same = {s.label: s.comparison for s in versus.between(*twins, "accuracy").shared}
    found = versus.between(with_rows(twins[0], 0), with_rows(twins[1], 5), "accuracy")
    paired = "Paired on the 283 rows that both tested with the same seed"
    assert f"{paired} (of 288 here and 288 there)" in found.notes
    for s in found.shared:
        before = same[s.label]
        assert s.comparison is not None
        assert before is not None
        assert s.comparison.difference.value == pytest.approx(before.difference.value, abs=0.02)
    none = versus.between(with_rows(twins[0], 0), with_rows(twins[1], 270), "accuracy")
    assert all(s.comparison is None for s in none.shared)
    assert "not paired, because only 18 test rows are the same" in versus.markdown(none)
    assert f"tunelab evaluate {twins[0].directory}" in none.notes[-1]


def test_a_pair_is_of_the_rows_that_both_tested_with_the_same_seed() -> None:
    """Of folds against one test part, too: each seed's own rows, in one order."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)

    def asked(rows: Sequence[int]) -> Predictions:
        own = np.array(rows)
        return Predictions(
            tuple(f"r{i}" for i in rows), truth[own], np.eye(2)[truth[own]], "probability"
        )

    folds = Runs("a", {s: asked(range(100 * s, 100 * s + 100)) for s in range(3)})
    whole = Runs("b", {s: asked(range(299, 49, -1)) for s in range(3)})
    here, there, note = on_common_rows(folds, whole, (None, None), (["n", "y"], ["n", "y"]))
    assert [len(here.by_seed[s].ids) for s in range(3)] == [50, 100, 100]
    assert all(here.by_seed[s].ids == there.by_seed[s].ids for s in range(3))
    assert all((there.by_seed[s].labels == here.by_seed[s].labels).all() for s in range(3))
    assert note == (
        "Paired on the 250 rows that both tested with the same seed (of 300 here and 250 there)"
    )
    # Classes in another order, by other ids: text and label decide.
    keys = {f"r{i}": ("t", i) for i in range(300)}
    turned = Runs("c", {0: replace(asked(range(100)), labels=1 - truth[:100])})
    _, there, _ = on_common_rows(folds, turned, (keys, keys), (["n", "y"], ["y", "n"]))
    assert (there.by_seed[0].labels == truth[:100]).all()
    assert (there.by_seed[0].predicted == 1 - truth[:100]).all()
    with pytest.raises(ValueError, match="no test row is the same"):
        on_common_rows(Runs("a", {0: asked(range(100))}), Runs("b", {0: asked(range(200, 300))}),
                       (None, None), (["n", "y"], ["n", "y"]))  # fmt: skip


def test_versus_without_a_common_method_is_refused(tmp_path: Path) -> None:
    one = read_study(make_study(tmp_path / "a", seeds=1, methods=METHODS[:1]))
    other = read_study(make_study(tmp_path / "b", seeds=1, methods=METHODS[2:3]))
    with pytest.raises(InputError, match=r"expected a method that .* has too \(svm-tfidf\)"):
        versus.between(one, other, "accuracy")


# --- the command ----------------------------------------------------------------------------


def test_the_command_writes_what_is_asked_for(
    twins: tuple[StudyRecord, StudyRecord], tmp_path: Path
) -> None:
    study, other = (r.directory for r in twins)
    out = tmp_path / "out"
    done = run_here(
        "report", study, "--compare", other, "--format", "html,markdown,csv,latex",
        "--output-dir", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert {p.name for p in out.iterdir()} == {
        "report.html", "report.md", "table.md", "table.csv", "table.tex",
    }  # fmt: skip
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="versus"' in page
    answer = summarise(twins[0]).answer
    assert done.out.startswith(f"{answer.sentence}.\n{answer.sure}\n")
    first = (out / "report.md").read_text(encoding="utf-8").splitlines()[2]
    assert first == f"**{answer.sentence}.**"
    assert "against runs/study" in (out / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--format", "pdf"], "Unknown format 'pdf'. Known: html, markdown, csv, latex."),
        (["--figures", "pgn"], "Unknown figure format 'pgn'. Did you mean 'png'?"),
        (["--metric", "acuracy"], "'acuracy' is not a metric. Did you mean 'accuracy'?"),
        (["--compare", "nowhere"], "nowhere is not a study"),
    ],
)
def test_the_command_refuses_in_one_line(
    record: StudyRecord, arguments: list[str], line: str
) -> None:
    done = run_here("report", record.directory, *arguments)
    assert done.code == 2
    assert len(done.faults) == 1
    assert line in done.err


def test_watching_ends_with_the_study_and_refreshes_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(tmp_path, seeds=1, methods=METHODS[:2])
    last = sorted((folder / "trials").iterdir())[-1]
    aside = tmp_path / last.name
    shutil.move(last, aside)
    seen = []

    def wait(_: float) -> None:
        seen.append((folder / "report.html").read_text(encoding="utf-8"))
        shutil.move(aside, last)

    monkeypatch.setattr("time.sleep", wait)
    done = run_here("report", folder, "--watch")
    assert done.code == 0, done.err
    assert len(seen) == 1
    assert '<meta http-equiv="refresh"' in seen[0]
    assert "1 of 2 trials are here" in seen[0]
    assert '<meta http-equiv="refresh"' not in (folder / "report.html").read_text(encoding="utf-8")
    assert [line.partition(": ")[2][:6] for line in done.out.splitlines()] == ["1 of 2", "2 of 2"]


def test_a_study_without_trials_is_refused(tmp_path: Path) -> None:
    folder = make_study(tmp_path, seeds=1, missing=[(m.name, 0) for m in METHODS])
    done = run_here("report", folder)
    assert done.code == 2
    assert "no trial has been run yet" in done.err
    assert json.loads((folder / "data.json").read_text(encoding="utf-8"))
