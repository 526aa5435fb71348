"""What is asked of a study after its verdict: rows to label next, why, and when not to answer."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunelab
from studies import make_study
from tunelab.analysis.abstaining import abstaining_of
from tunelab.analysis.reading import read_runs
from tunelab.cli.command_line import app
from tunelab.core.errors import InputError
from tunelab.core.study_folder import read_study
from tunelab.report import write_report

GOOD = ["superb", "lovely", "charming", "brilliant", "warm", "funny", "moving"]
BAD = ["dull", "awful", "boring", "lifeless", "weak", "clumsy", "tedious"]
FILL = ["film", "plot", "actor", "scene", "story", "music", "script", "ending", "cast", "camera"]


def texts(n: int, seed: int, words: list[str]) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        " ".join([*rng.choice(FILL, 6), *rng.choice(words, 2), f"n{seed}x{i}"]) for i in range(n)
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suggest")
    rows = [(t, "good") for t in texts(60, 1, GOOD)] + [(t, "bad") for t in texts(60, 2, BAD)]
    # A few wrong labels, of which some are tested.
    other = {"good": "bad", "bad": "good"}
    rows = [(t, other[label] if i % 8 == 0 else label) for i, (t, label) in enumerate(rows)]
    with (folder / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    tunelab.compare(
        folder / "data.csv", methods="svm-tfidf", seeds=2, folds="off", engine="inline",
        train_sizes="20,all", output_dir=folder / "study",
    )  # fmt: skip
    return folder / "study"


def test_texts_between_the_classes_come_first_and_the_curve_has_its_word(study: Path):
    between = [f"{a} {b}" for a, b in zip(texts(5, 3, GOOD), texts(5, 4, BAD), strict=True)]
    clear = texts(20, 5, GOOD) + texts(20, 6, BAD)
    known = texts(3, 1, GOOD)
    said = tunelab.suggest(study, [*clear, *known, *between, ""], 5)
    assert len({r.text for r in said.rows} & set(between)) >= 3
    assert [r.uncertainty for r in said.rows] == sorted(r.uncertainty for r in said.rows)[::-1]
    assert said.of == 48
    assert "5 more rows like those before would change svm-tfidf by about" in said.outlook
    whole = tunelab.suggest(study, [*clear, *known, *between, ""], 100)
    assert not {r.text for r in whole.rows} & set(known)
    assert whole.notes[0].startswith(f"{len(whole.rows)} texts instead of 100: ")
    assert whole.table().columns.tolist()[:2] == ["text", "predicted_label"]


def test_the_command_writes_rows_as_they_were_and_says_how_to_get_a_curve(
    study: Path, tmp_path: Path
):
    pool = tmp_path / "pool.csv"
    with pool.open("w", newline="") as stream:
        rows = [(f"p{i}", t, "web") for i, t in enumerate(texts(9, 7, GOOD + BAD))]
        csv.writer(stream).writerows([("id", "text", "from"), *rows])
    asked = ["suggest", str(study), "--from", str(pool), "--n", "4"]
    plain = CliRunner().invoke(app, asked, catch_exceptions=False)
    lines = [line.split("\t") for line in plain.stdout.splitlines()]
    assert [len(line) for line in lines] == [5] * 4
    out = tmp_path / "next.csv"
    wrote = CliRunner().invoke(app, [*asked, "--output-file", str(out)], catch_exceptions=False)
    assert wrote.exit_code == 0
    assert "4 texts of 9 written to" in wrote.stderr
    with out.open(newline="") as stream:
        kept = list(csv.DictReader(stream))
    assert [row["id"] for row in kept] == [line[0] for line in lines]
    assert {(row["id"], row["text"], row["from"]) for row in kept} <= set(rows)


def test_nothing_to_ask_or_to_choose_from_is_one_line(study: Path):
    with pytest.raises(InputError, match="expected texts without labels, found none"):
        tunelab.suggest(study, ["", " "])
    with pytest.raises(InputError, match="expected strings or a file, found 3"):
        tunelab.suggest(study, ["a", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="n: expected 1 or more, found 0"):
        tunelab.suggest(study, ["a"], 0)


# --- why ------------------------------------------------------------------------------------


def test_predict_explains_in_columns_json_and_a_file(study: Path, tmp_path: Path):
    text = "lovely charming but tedious"
    asked = ["predict", str(study), "--explain"]
    plain = CliRunner().invoke(app, [*asked, text], catch_exceptions=False).stdout
    label, _, said, why = plain.rstrip("\n").split("\t")
    assert (label, said) == ("good", text)
    moved = dict(part.rsplit(" ", 1) for part in why.split(", "))
    assert float(moved["lovely"]) > 0 > float(moved["tedious"])
    lines = CliRunner().invoke(app, [*asked, "--json", text], catch_exceptions=False).stdout
    words = {w["word"]: w["moved"] for w in json.loads(lines)["words"]}
    assert set(words) == set(text.split())
    (direct,) = tunelab.load(study).explain(text)
    assert [w.moved for w in direct.words] == [words[w] for w in text.split()]
    (tmp_path / "in.txt").write_text(f"{text}\n")
    out = tmp_path / "out.csv"
    given = [*asked, "--file", str(tmp_path / "in.txt"), "--output-file", str(out)]
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    with out.open(newline="") as stream:
        assert next(csv.DictReader(stream))["moved_by"] == why


def test_the_report_marks_the_words_that_moved_its_mistakes(study: Path, tmp_path: Path):
    said = tunelab.Study(study)
    assert not said.record.words
    tunelab.Study(study).report(output_dir=tmp_path, explain=True)
    page = (tmp_path / "report.html").read_text()
    wrong = json.loads(
        re.search(r'id="mistakes-data">(.*?)</script>', page)[1]  # type: ignore[index]
    )
    kept = json.loads((study / "words.json").read_text())
    assert kept["label"] == "svm-tfidf"
    marked = [row for row in wrong["rows"] if row["words"]]
    assert {row["id"] for row in marked} == set(kept["rows"])
    assert marked
    start, stop, moved = max(marked[0]["words"], key=lambda w: w[2])
    assert moved > 0
    assert marked[0]["text"][start:stop].strip()
    assert "Marked are the words that moved svm-tfidf (seed" in page


# --- when not to answer ---------------------------------------------------------------------


def test_predict_leaves_texts_without_a_label_of_which_it_is_too_little_sure(
    study: Path, tmp_path: Path
):
    unsure = [f"{a} {b}" for a, b in zip(texts(9, 3, GOOD), texts(9, 4, BAD), strict=True)]
    some = [*texts(9, 5, GOOD), *unsure]
    own = tunelab.load(study)
    told = own.predict_or_abstain(some, 0.1)
    assert None in told
    assert [t for t in told if t] == [x for x, t in zip(own.predict(some), told, strict=True) if t]
    assert list(own.answers(own.predict_proba(some), 0.1)) == [t is not None for t in told]
    asked = ["predict", str(study), "--abstain", "0.1"]
    plain = CliRunner().invoke(app, [*asked, *some], catch_exceptions=False)
    assert [line.split("\t")[0] for line in plain.stdout.splitlines()] == [t or "" for t in told]
    assert f"{told.count(None)} of 18 texts got no label, so that at most 10%" in plain.stderr
    lines = CliRunner().invoke(app, [*asked, "--json", *some]).stdout.splitlines()
    assert [json.loads(line)["label"] for line in lines] == told
    (tmp_path / "in.txt").write_text("\n".join(some))
    out = tmp_path / "out.csv"
    given = [*asked, "--file", str(tmp_path / "in.txt"), "--output-file", str(out)]
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    with out.open(newline="") as stream:
        assert [r["predicted_label"] or None for r in csv.DictReader(stream)] == told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--abstain", "0.001"], "an error of 0.001 takes 999 validation rows, found 18"),
        (["--abstain", "0.1", "--raw"], "--abstain and --raw contradict each other"),
    ],
)
def test_what_cannot_be_promised_is_one_line(study: Path, more: list[str], said: str):
    done = CliRunner().invoke(app, ["predict", str(study), "a", *more])
    assert said in str(done.exception)
    with pytest.raises(InputError, match="at its temperature"):
        replace(tunelab.load(study), temperature=3.0).predict_or_abstain("a", 0.1)


def test_the_report_shows_what_is_answered_and_what_of_it_is_wrong(tmp_path: Path):
    record = read_study(make_study(tmp_path, seeds=2, rows=300))
    runs = read_runs(record)
    said = {(s.label, s.error): s for s in abstaining_of(runs)}
    assert {label for label, _ in said} == {"full", "lora"}  # SVMs have margins here
    for s in said.values():
        assert s.wrong <= s.error + 0.03
        assert s.wrong < s.answered <= 1
    assert said["lora", 0.01].answered < said["lora", 0.1].answered
    page = write_report(record, tmp_path / "report.html").read_text()
    assert "When not to answer" in page
    assert "At most 5% wrong" in page


# --- other ----------------------------------------------------------------------------------

FAR = ["0x7f3a -> mov eax, [ebp+8]; xor ecx, ecx", "§§§ 99/2 §§ 14,7 kV @@ QZXW"]


def test_texts_that_read_like_no_training_text_are_other(study: Path):
    near = texts(6, 5, GOOD)
    own, rates = tunelab.familiarity(study, 0.1)
    assert own.others(FAR, 0.1).all()
    assert own.others(near, 0.1).mean() < 0.5
    assert rates.rows == 18
    assert rates.wrongly is not None
    assert rates.wrongly <= 0.3  # two of nineteen are expected at most
    done = CliRunner().invoke(app, ["predict", str(study), "--other", "0.1", *FAR, near[0]])
    labels = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert labels[:2] == ["other", "other"]
    assert "Of 18 test rows, none of which is other," in " ".join(done.stderr.split())


def test_where_other_cannot_be_told_it_is_one_line(study: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"a share of 0\.01 takes 99 validation rows, found 18"):
        tunelab.familiarity(study, 0.01)
    alone = tmp_path / "alone"
    shutil.copytree(tunelab.Study(study).best().directory, alone)
    with pytest.raises(InputError, match="its data cannot be read any more"):
        tunelab.familiarity(alone)
