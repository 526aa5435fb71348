"""What is asked of a study after its verdict: rows to label next, words that moved an answer."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunelab
from tunelab.cli.command_line import app
from tunelab.core.errors import InputError

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
