"""Study files that are meant to break their reader: one line each, in no time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tunelab.core.errors import ConfigError
from tunelab.study import resolve

BASE = "data: demo\nmethods: [svm-tfidf]\nseeds: 1\n"
LAUGHS = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n" + "".join(
    f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MANY = list(range(1, 99))


def refused(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        resolve.resolve_study(path, {})
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    assert len(message) < 20_000
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS + BASE, "100,000 values"),
        ("a: &a [*a]\n" + BASE, "holds itself"),
        (BASE + "training: &t {learning_rate: *t}\n", "holds itself"),
        (BASE + "x: " + "[" * 5000 + "]" * 5000, "in more than 50 others"),
        (BASE + "x: " + "{a: " * 3000 + "1" + "}" * 3000, "in more than 50 others"),
        (BASE.replace("seeds: 1", f"seeds: {'9' * 5000}"), "cannot be read"),
        (BASE.replace("seeds: 1", f"seeds: [{2**70}]"), "63 bits"),
        (BASE.replace("seeds: 1", "seeds: 1000000000"), "at most 10,000"),
        (BASE + "tuning: {seeds: 1000000000}\n", "at most 10,000"),
        (BASE + "tuning: 99999999999\n", "at most 10,000"),
        (BASE + "true: 1\n", "the key True"),
        (BASE + "1: 2\n", "the key 1"),
        (BASE + "null: 2\n", "the key None"),
        (BASE + "x: 2001-99-99\n", "cannot be read"),
        (BASE + "x: !!bool perhaps\n", "cannot be read"),
        (BASE + "x: !!int ''\n", "cannot be read"),
        (BASE + "x: !!timestamp never\n", "cannot be read"),
        (BASE.replace("svm-tfidf", "{name: [a]}"), "is not a method"),
        (BASE.replace("svm-tfidf", "{name: {a: 1}}"), "is not a method"),
        (BASE.replace("svm-tfidf", "{name: lora, tune: {r: [1, {a: 1}]}}"), "plain values"),
        (BASE.replace("svm-tfidf", "{name: lora, tune: {r: [[[1]]]}}"), "r: expected"),
        (
            BASE.replace("svm-tfidf", f"{{name: lora, r: {MANY}, lora_alpha: {MANY}}}"),
            "combinations",
        ),
        (BASE + f"train_sizes: {list(range(2, 3000))}\n", "at most 1,000 sizes"),
        (BASE + "train_sizes: ['\u00b2']\n", "train_sizes"),
        (BASE.replace("[svm-tfidf]", str([{"name": "no"}] * 3000)), "more faults"),
    ],
)
def test_a_hostile_study_file_is_one_fault(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file"):
        resolve.resolve_study(Path("/dev/zero"), {})


def test_aliases_within_bounds_stay(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("data: demo\nmethods: [{name: svm-tfidf, c: &c [1, 2]}, {name: svm, c: *c}]\n")
    one, other = resolve.resolve_study(path, {}).methods
    assert one.settings["c"] == other.settings["c"] == [1, 2]
