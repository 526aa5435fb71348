"""Looking again: seeds are added until the best is told from the others, and looks are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tunelab
from commands import Said
from tiny import reviews, write_csv
from tunelab.core import study_folder
from tunelab.core.errors import ConfigError

CHARS = {"label": "chars", "word_ngrams": 1, "char_ngrams": 3}
# Terms that nearly every review has: nothing to learn from.
BLIND = {"label": "blind", "word_ngrams": 1, "char_ngrams": 0, "min_df": 50}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of two seeds, `close` and `apart`, in a folder that nobody changes."""
    home = tmp_path_factory.mktemp("finished")
    write_csv(home / "r.csv", reviews(300), ["text", "label"])
    for name, other in (("close", CHARS), ("apart", BLIND)):
        tunelab.compare(
            home / "r.csv",
            methods=[{"name": "svm-tfidf", "label": "words"}, {"name": "svm-tfidf", **other}],
            seeds=2,
            output_dir=home / name,
            engine="inline",
        )
    return home


@pytest.fixture
def study(cli: Callable[..., Said], finished: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of them, in the folder that the command line runs in."""

    def copied(name: str) -> Path:
        shutil.copytree(finished / name, tmp_path / "out")
        return tmp_path / "out"

    return copied


def test_seeds_are_added_until_there_are_as_many_as_declared(
    cli: Callable[..., Said], study: Callable[[str], Path]
) -> None:
    """Two methods that predict the same on these rows are never told apart."""
    folder = study("close")
    ahead = cli("extend", "out", "--until", "decided", "--max-seeds", 8, "--dry-run")
    assert "it would be looked at with 6, 8" in ahead.err
    assert not (folder / "looks.json").exists()
    said = cli("extend", "out", "--until", "decided", "--max-seeds", 8)
    assert said.code == 0, said.err
    assert "undecided, on to 6 seeds" in said.err
    assert "Looked 2 times, with 6, 8 of at most 8 seeds" in said.out
    assert json.loads((folder / "looks.json").read_text())["seeds"] == [6, 8]
    assert "Looked 2 times" in (folder / "report.html").read_text()
    # Reading again is no look, and more seeds than were declared are refused.
    tunelab.Study(folder).table()
    assert json.loads((folder / "looks.json").read_text())["seeds"] == [6, 8]
    more = cli("extend", "out", "--seeds", 9)
    assert more.code == 2
    assert "its looks were declared with at most 8 seeds" in more.err
    other = cli("extend", "out", "--until", "decided", "--max-seeds", 12)
    assert other.code == 2
    assert "found --max-seeds 12" in other.err


def test_nothing_is_run_where_all_is_decided(
    cli: Callable[..., Said], study: Callable[[str], Path]
) -> None:
    """Methods that no seed changes are compared over rows: decided with the two seeds there are."""
    folder = study("apart")
    done = tunelab.Study(folder).extend(until="decided", max_seeds=8, engine="inline")
    record = study_folder.read_study(folder)
    assert len(record.results) == 4
    (pair,) = done.summary.comparisons
    assert pair.verdict == "better"
    assert record.looks is not None
    assert record.looks["seeds"] == []  # rows alone were judged: the test is the same at every look
    # A plain extension of a study whose looks are counted is a look, from six seeds on.
    assert cli("extend", "out", "--seeds", 6).code == 0
    assert json.loads((folder / "looks.json").read_text())["seeds"] == [6]


def test_a_plain_extension_says_what_looking_again_does(
    cli: Callable[..., Said], study: Callable[[str], Path]
) -> None:
    study("apart")
    said = cli("extend", "out", "--seeds", 3, "--dry-run")
    assert "--until decided counts its looks" in said.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "until decided (--until decided) to extend it, found"),
        (
            ("--seeds", 4, "--until", "decided"),
            "until decided (--until decided) to extend it, found",
        ),
        (("--seeds", 4, "--max-seeds", 9), "--max-seeds and --step go with --until decided"),
        (("--until", "decided", "--max-seeds", 2), "expected --max-seeds above that, found 2"),
    ],
)
def test_bad_flags_are_told_in_one_line(
    cli: Callable[..., Said],
    study: Callable[[str], Path],
    flags: tuple[object, ...],
    says: str,
) -> None:
    folder = study("apart")
    said = cli("extend", "out", *flags)
    assert said.code == 2
    assert says in said.err
    assert not (folder / "looks.json").exists()


def test_bad_keywords_are_told(study: Callable[[str], Path]) -> None:
    found = tunelab.Study(study("apart"))
    with pytest.raises(ConfigError, match="found neither"):
        found.extend()
    with pytest.raises(ConfigError, match="--max-seeds and --step go with"):
        found.extend(1, max_seeds=9)
