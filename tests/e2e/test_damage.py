"""A damaged file is named, in a line; what it hides is run again, and nothing else is lost."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import damages
from commands import Said, run_here
from studies import METHODS, make_study
from tunelab.analysis.corrected import Before
from tunelab.analysis.explanations import ExplainedMistakes
from tunelab.core import study_folder
from tunelab.core.errors import InputError
from tunelab.core.forms import AS_TRAINED, StudyExports, WinnersForm
from tunelab.core.text_lengths import TextLengths, TokenLimit
from tunelab.stats.looks import declare, looks_to_json
from tunelab.study.resolve import resolve_study

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before"
OF_STUDY = ("study.yaml", "data.json", "rows.parquet", *(f"{x}.json" for x in study_folder.EXTRAS))
OF_TRIAL = study_folder.TRIAL_FILES
COMMANDS = (
    ("runs", "show"), ("runs", "list"), ("report",), ("slices",), ("calibration",), ("recommend",),
    ("sensitivity",), ("rank",), ("behaviour",), ("predict",),
    ("extend", "--seeds", 9, "--dry-run"),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with every file that one may have. Not to be changed: copy it first."""
    study = make_study(tmp_path_factory.mktemp("whole"), methods=METHODS[2:], seeds=2, rows=24)
    for source, names in (("compared", ["behaviour"]), ("raced", ["race", "curves", "tuning"])):
        for name in (*names, "gate"):
            shutil.copy(BEFORE / source / f"{name}.json", study / f"{name}.json")
    shutil.copy(BEFORE / "compared" / "rows.parquet", study)
    first = json.loads((study / "data.json").read_text())["fingerprint"]
    study_folder.write_extra(
        study, "looks", {**looks_to_json(declare(20, 2, 2)), "fingerprint": first}
    )
    lengths = TextLengths("minilm", 512, 24, 24, (TokenLimit(64, 0.1, 0.5),), (64,))
    study_folder.write_extra(study, "lengths", lengths.to_json())
    study_folder.write_extra(study, "final", {"trials": [trial_in(study).name]})
    made = StudyExports(trial_in(study).name, "svm", "12 texts", (WinnersForm(AS_TRAINED, None),))
    study_folder.write_extra(study, "exports", made.to_json())
    before = Before("study", "accuracy", "svm", "svm", {"lora": "undecided"})
    study_folder.write_extra(study, "before", before.to_json())
    marked = ExplainedMistakes(trial_in(study).name, "svm", 0, {"test-1": ((0, 3, 0.25),)})
    study_folder.write_extra(study, "words", marked.to_json())
    assert run_here("runs", "show", study).code == 0
    return study


def trial_in(study: Path) -> Path:
    """The first of its trials."""
    return min((study / "trials").iterdir())


def file_in(study: Path, name: str) -> Path:
    return study / name if name in OF_STUDY else trial_in(study) / name


def say(study: Path, command: tuple[object, ...]) -> Said:
    verb, *more = command
    if command == ("runs", "list"):
        return run_here(*command, study.parent)
    if verb == "runs":
        return run_here(*command, study)
    return run_here(verb, study, *more, *(["a good film"] if verb == "predict" else []))


def check(study: Path, command: tuple[object, ...], what: object) -> None:
    """What is raised, beside our own errors, comes out of `say`: a traceback."""
    said = say(study, command)
    assert said.code in {0, 1, 2}, (what, command, said.err)
    assert "Traceback" not in said.out + said.err, (what, command)
    if said.code:
        assert len(said.faults) == 1, (what, command, said.err)


def copied(whole: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place / "study")
    return place / "study"


NAMES = ("missing", *damages.BYTES)
SOME = [
    (name, NAMES[k % len(NAMES)], COMMANDS[k % 3])
    for k, name in enumerate(x for name in (*OF_STUDY, *OF_TRIAL) for x in (name, name))
]


@pytest.mark.parametrize(("name", "damage", "command"), SOME)
def test_a_damaged_file_is_no_traceback(
    whole: Path, tmp_path: Path, name: str, damage: str, command: tuple[str, ...]
) -> None:
    study = copied(whole, tmp_path)
    damages.damaged(file_in(study, name), damage)
    check(study, command, (name, damage))


def _all_damages(study: Path) -> Iterator[tuple[str, object, Callable[[Path], None]]]:
    for name in (*OF_STUDY, *OF_TRIAL):
        for damage in NAMES:
            yield name, damage, lambda path, damage=damage: damages.damaged(path, damage)  # type: ignore[misc]
        tree = damages.tree_of(file_in(study, name))
        for place, other in itertools.product(damages.places(tree), (*damages.OTHERS, ...)):
            yield (
                name,
                (place, other),
                lambda path, place=place, other=other: damages.with_other(path, place, other),  # type: ignore[misc]
            )


@pytest.mark.slow
@pytest.mark.parametrize("digests", [True, False], ids=["digests", "of before"])
def test_no_damage_of_any_file_is_a_traceback(whole: Path, tmp_path: Path, digests: bool) -> None:
    tried = 0
    wrong: dict[tuple[object, ...], tuple[object, ...]] = {}
    some = itertools.islice(_all_damages(whole), int(digests), None, 32)
    for (name, what, damage), command in zip(some, itertools.cycle(COMMANDS), strict=False):
        study = copied(whole, tmp_path)
        if not digests:
            (trial_in(study) / "digests.json").unlink()
        if digests or name != "digests.json":
            damage(file_in(study, name))
            for asked in (command, ("runs", "list")):
                tried += 1
                try:
                    check(study, asked, (name, what))
                except Exception as e:  # all of them are wanted, each once
                    at = traceback.extract_tb(e.__traceback__)[-1]
                    wrong[type(e), at.filename, at.lineno] = (name, what, asked, str(e))
    assert tried > 180
    assert not wrong, "\n".join(f"{k}: {v}" for k, v in wrong.items())


def test_no_flipped_bit_of_a_study_file_is_believed(tmp_path: Path) -> None:
    study_folder.write_extra(tmp_path, "looks", {"looks": [3, 6], "n\u00fcmber": 0.1, "of": None})
    path = tmp_path / "looks.json"
    content, written = path.read_bytes(), study_folder.read_extra(tmp_path, "looks")
    believed = 0
    for at, bit in itertools.product(range(len(content)), range(8)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        with suppress(InputError):
            believed += study_folder.read_extra(tmp_path, "looks") != written
    assert not believed


def test_study_files_of_before_digests_are_read(whole: Path, tmp_path: Path) -> None:
    study = copied(whole, tmp_path)
    for name in ("lengths", "looks"):
        value = json.loads((study / f"{name}.json").read_text())
        del value["sha256"]
        (study / f"{name}.json").write_text(json.dumps(value))
    record = study_folder.read_study(study)
    assert record == dataclasses.replace(study_folder.read_study(whole), directory=study)


@pytest.mark.parametrize("name", ["predictions.parquet", "result.json", "spec.json"])
def test_a_flipped_bit_in_a_trial_is_found_and_said(whole: Path, tmp_path: Path, name: str) -> None:
    study = copied(whole, tmp_path)
    damages.damaged(trial_in(study) / name, "flipped")
    record = study_folder.read_study(study)
    assert record.missing == (trial_in(study).name,)
    said = run_here("runs", "show", study)
    assert said.code == 0
    assert f"{trial_in(study).name}/{name}" in " ".join(said.out.split())
    assert "counts as not run" in " ".join(said.out.split())


def test_a_spec_of_another_trial_is_found(whole: Path, tmp_path: Path) -> None:
    study = copied(whole, tmp_path)
    one, other = sorted((study / "trials").iterdir())[:2]
    shutil.copy(other / "spec.json", one / "spec.json")
    (one / "digests.json").unlink()  # as a trial of before
    record = study_folder.read_study(study)
    assert record.missing == (one.name,)
    assert f"that of another trial ({other.name})" in record.damaged[0]


def test_a_study_that_cannot_be_read_hides_no_other(whole: Path, tmp_path: Path) -> None:
    copied(whole, tmp_path / "a")
    broken = copied(whole, tmp_path / "b")
    (broken / "data.json").write_bytes(b"")
    said = run_here("runs", "list", tmp_path)
    assert said.code == 0
    assert "full" in said.out
    assert f"Note: {broken / 'data.json'}: cannot be read" in said.err


def test_a_run_mends_what_is_damaged_and_keeps_the_rest(reviews_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    again = ("compare", reviews_csv, "--methods", "svm-tfidf", "--seeds", 2, "--folds", "off",
             "--jobs", 1, "--output-dir", out)  # fmt: skip
    assert run_here(*again).code == 0
    one, other = sorted((out / "trials").iterdir())
    inode = (other / "result.json").stat().st_ino
    before = study_folder.read_predictions(out, one.name)["test"]
    damages.damaged(one / "predictions.parquet", "flipped")
    damages.damaged(out / "gate.json", "truncated")
    damages.damaged(out / "data.json", "empty")
    (out / "study.yaml").unlink()
    said = run_here(*again)
    assert said.code == 0, said.err
    after = study_folder.read_predictions(out, one.name)["test"]
    assert (after.scores == before.scores).all()
    assert (other / "result.json").stat().st_ino == inode
    assert not study_folder.read_study(out).damaged


# --- folders --------------------------------------------------------------------------------


def test_a_folder_whose_first_write_failed_is_used_again(reviews_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    (out / "trials").mkdir(parents=True)
    (out / ".study.yaml.k2j9x_1a").touch()
    plan = ("compare", reviews_csv, "--methods", "svm-tfidf", "--seeds", 1, "--output-dir", out)
    assert run_here(*plan, "--dry-run").code == 0
    (out / "thesis.doc").touch()
    refused = run_here(*plan, "--dry-run")
    assert refused.code == 2
    assert refused.faults[0].startswith(f"tunelab: {out}: not empty, and not a study")


def test_a_study_that_was_moved_goes_on_where_it_lies(whole: Path, tmp_path: Path) -> None:
    study = copied(whole, tmp_path)
    flags = {"methods": ["svm-tfidf"], "seeds": 1}
    assert resolve_study(study / "study.yaml", flags).output_dir == study
    other = resolve_study(study / "study.yaml", {**flags, "output_dir": "elsewhere"})
    assert other.output_dir == Path("elsewhere")
    template = shutil.copy(study / "study.yaml", tmp_path / "study.yaml")  # of no study
    assert resolve_study(Path(template), flags).output_dir == Path("runs/study")
