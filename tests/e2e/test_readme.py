"""The README's commands and its Python run as they stand, on a small model and few rows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run_here
from tiny import reviews, write_csv

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SMALL = ["--subset", "20", "--seeds", "1", "--max-length", "32", "--num-train-epochs", "1"]
ONCE = ["--subset", "20", "--max-length", "32", "--num-train-epochs", "1"]


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [shlex.split(x, comments=True)[1:] for x in lines if x.startswith("tunelab ")]


def small(args: list[str]) -> list[str]:
    """The same command on few rows; without a model of its own, on the tiny one."""
    if args[0] not in {"compare", "train"}:
        return args
    model = [] if "--model" in args else ["--model", "tiny"]
    return [*args, *model, *(ONCE if args[0] == "train" else SMALL)]


@pytest.fixture
def workplace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tiny_distilbert: Path
) -> Path:
    """A folder with what the README speaks of. What lies here wins over the hub."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bert, "tiny")
    shutil.copytree(tiny_distilbert, "distilbert-base-uncased")
    write_csv(Path("reviews.csv"), reviews(160), ["text", "label"])
    write_csv(Path("texts.csv"), [[t] for t, _ in reviews(5)], ["text"])
    Path("rotten_tomatoes").mkdir()
    for i, part in enumerate(("train", "validation", "test")):
        write_csv(Path("rotten_tomatoes") / f"{part}.csv", reviews(60, i), ["text", "label"])
    (study,) = blocks("yaml")
    Path("study.yaml").write_text(study)
    return tmp_path


@pytest.mark.slow
def test_every_command_runs(workplace: Path) -> None:
    # What `make demo` would have left.
    demo = ["compare", "--data", "demo", "--methods", "svm-tfidf,full", "--output-dir", "runs/demo"]
    found = [demo, *commands()]
    assert len(found) > 12
    for args in found:
        said = run_here(*small(args))
        assert said.code == 0, (args, said.err)
    assert (workplace / "labelled.csv").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_the_python_runs() -> None:
    (code,) = blocks("python")
    assert "seeds=3" in code
    code = code.replace("seeds=3", "seeds=1, model='tiny', subset=20, max_length=32")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
