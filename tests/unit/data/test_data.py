"""Sources -> Dataset: reading, checking, splitting, counting, as users meet them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab import data
from tunelab.core.cells import safe_cell
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset, DataSpec, MethodSpec, Split
from tunelab.data import SOURCES, describe, duplicates, load, loading, write_table
from tunelab.data.card import count_duplicates, fingerprint_of
from tunelab.data.labels import NUMBER
from tunelab.data.split import _stratified_order
from tunelab.study.trial import make_spec, rows_for_trial

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def texts(n: int, word: str = "text") -> list[str]:
    return [f"{word} number {i} of them" for i in range(n)]


def labelled(counts: dict[object, int], word: str = "text") -> dict[str, list[object]]:
    labels = [label for label, n in counts.items() for _ in range(n)]
    return {"text": list(texts(len(labels), word)), "label": labels}


def folder_of(root: Path, suffix: str = "csv", **parts: dict[str, list[object]]) -> str:
    for part, columns in parts.items():
        write_table(root / f"{part}.{suffix}", columns)
    return str(root)


def put(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def csv_of(folder: Path, labels: list[object], name: str = "r.csv") -> str:
    lines = "".join(
        f"{t},{'' if y is None else y}\n" for t, y in zip(texts(len(labels)), labels, strict=True)
    )
    return put(folder, name, "text,label\n" + lines)


def refusal(source: str, **settings_: object) -> str:
    with pytest.raises(DataError) as caught:
        load(DataSpec(source, **settings_))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.validation), len(dataset.test)


def named(split: Split, names: tuple[str, ...]) -> dict[str, str]:
    return {t: names[y] for t, y in zip(split.texts, split.labels, strict=True)}


def everything(dataset: Dataset) -> dict[str, str]:
    return {t: y for s in dataset.parts.values() for t, y in named(s, dataset.label_names).items()}


def said(dataset: Dataset, *words: str) -> bool:
    return any(all(w in note for w in words) for note in dataset.notes)


# --- the bundled reviews --------------------------------------------------------------------


def test_demo_is_two_classes_split_as_promised():
    demo = load(DataSpec("demo"))
    assert demo.label_names == ("negative", "positive")
    assert sizes(demo) == (1344, 288, 288)
    for split in demo.parts.values():
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2
    assert said(demo, "480 rows with 3 stars left out", "not a benchmark")
    films = (Path(loading.__file__).parent / "demo" / "films.tsv").read_text("utf-8").split("\n")
    for split in demo.parts.values():
        for row_id, text, label in zip(split.ids, split.texts, split.labels, strict=True):
            if row_id.startswith("films:"):
                stars, _, line = films[int(row_id.removeprefix("films:")) - 1].split("\t")
                assert line == text
                assert (int(stars) > 3) == bool(label)


def test_demo_stars_is_five_classes():
    stars = load(DataSpec("demo:stars"))
    assert stars.label_names == ("1", "2", "3", "4", "5")
    assert sizes(stars) == (1680, 360, 360)


def test_an_unknown_demo_gets_the_nearest():
    assert "Did you mean 'demo:stars'" in refusal("demo:star")


def test_the_split_of_the_demo_is_the_same_on_every_machine():
    # A change here gives every user new splits and new trial ids: bump the release if it is meant.
    assert load(DataSpec("demo")).fingerprint.startswith("3fa2add6")


# --- one file -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_the_same_rows_give_the_same_dataset_from_every_format(tmp_path, suffix):
    rows = labelled({"b": 20, "a": 40})
    write_table(tmp_path / f"r.{suffix}", rows)
    dataset = load(DataSpec(str(tmp_path / f"r.{suffix}")))
    assert dataset.name == f"r.{suffix}"
    assert dataset.label_names == ("a", "b")
    assert sizes(dataset) == (42, 9, 9)
    assert everything(dataset) == dict(zip(rows["text"], rows["label"], strict=True))
    assert said(dataset, "text column: 'text' (guessed); label column: 'label' (guessed)")
    assert said(dataset, "no test part", "9 of 60")
    assert said(dataset, "no validation part", "9 of 60")


def test_ids_are_the_numbers_a_reader_counts(tmp_path):
    write_table(tmp_path / "r.csv", labelled({"a": 6, "b": 6}))
    lines = (tmp_path / "r.csv").read_text().split("\n")
    dataset = load(DataSpec(str(tmp_path / "r.csv")))
    for split in dataset.parts.values():
        for row_id, text in zip(split.ids, split.texts, strict=True):
            stem, line = row_id.split(":")
            assert stem == "r"
            assert lines[int(line) - 1].startswith(text)


def test_named_columns_are_used_and_not_called_guessed(tmp_path):
    rows = labelled({"a": 5, "b": 5})
    write_table(tmp_path / "r.csv", {**rows, "text 2": texts(10, "other"), "kind": list("xy") * 5})
    spec = DataSpec(str(tmp_path / "r.csv"), text_column="text 2", label_column="kind")
    dataset = load(spec)
    assert (dataset.text_column, dataset.label_column) == ("text 2", "kind")
    assert dataset.label_names == ("x", "y")
    assert "other number" in dataset.train.texts[0]
    assert dataset.notes[0] == "text column: 'text 2'; label column: 'kind'"


def test_the_sms_spam_file_as_people_have_it(tmp_path):
    rows = "".join(f"{'spam' if i % 4 == 0 else 'ham'},call \xa3{i} now ok,,\n" for i in range(40))
    path = put(tmp_path, "spam.csv", ("v1,v2,,\n" + rows).encode("latin-1"))
    assert "--encoding cp1252" in refusal(path)
    dataset = load(DataSpec(path, encoding="latin-1"))
    assert (dataset.text_column, dataset.label_column) == ("v2", "v1")
    assert dataset.label_names == ("ham", "spam")


# --- labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 2, 1], ("1", "2", "10")),
        ([0, -1, 1], ("-1", "0", "1")),
        ([2.0, 1.0, 10.0], ("1", "2", "10")),
        ([True, False, True], ("False", "True")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["neg", "Pos", "été"], ("Pos", "neg", "été")),
        (["007", "12", "3"], ("3", "007", "12")),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_label_names_and_their_order(tmp_path, suffix, labels, names):
    rows = {"text": texts(3 * len(labels)), "label": labels * 3}
    write_table(tmp_path / f"r.{suffix}", rows)
    dataset = load(DataSpec(str(tmp_path / f"r.{suffix}")))
    assert dataset.label_names == names
    wanted = {
        t: str(int(y)) if isinstance(y, float) else str(y)
        for t, y in zip(*rows.values(), strict=True)
    }
    assert everything(dataset) == wanted


def test_labels_of_different_types_in_the_parts_are_the_same_classes(tmp_path):
    write_table(tmp_path / "train.parquet", labelled({1.0: 5, 2.0: 5}))
    write_table(tmp_path / "val.csv", labelled({2: 2, 1: 2}, "v"))
    write_table(tmp_path / "test.jsonl", labelled({"1.0": 2, "2": 2}, "t"))
    dataset = load(DataSpec(str(tmp_path)))
    assert dataset.label_names == ("1", "2")
    assert [np.bincount(s.labels).tolist() for s in dataset.parts.values()] == [
        [5, 5],
        [2, 2],
        [2, 2],
    ]


def test_true_is_not_one(tmp_path):
    # In Python 1 == True == 1.0, so a careless dictionary makes one class of them.
    write_table(tmp_path / "r.jsonl", {"text": texts(16), "label": [True, 1, 1.0, "x"] * 4})
    dataset = load(DataSpec(str(tmp_path / "r.jsonl")))
    assert dataset.label_names == ("1", "True", "x")
    assert sum(y == "1" for y in everything(dataset).values()) == 8


def hub_parquet(path: Path, labels: list[int | None], names: list[str]) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    columns = {"text": texts(len(labels), path.stem), "label": labels}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)


def test_class_label_names_keep_their_order_and_unused_ones_go(tmp_path):
    hub_parquet(tmp_path / "train.parquet", [0, 2, 3] * 6, ["world", "unused", "arts", "10"])
    dataset = load(DataSpec(str(tmp_path)))
    assert dataset.label_names == ("world", "arts", "10")
    assert said(dataset, "left out", "'unused'")


def test_labels_alike_but_for_case_are_said(tmp_path):
    dataset = load(DataSpec(csv_of(tmp_path, ["Pos", "pos", "neg"] * 4)))
    assert len(dataset.label_names) == 3
    assert said(dataset, "alike", "'Pos' (4 rows), 'pos' (4 rows)", "--join-labels")


def test_labels_that_differ_in_blanks_are_one(tmp_path):
    path = csv_of(tmp_path, ["pos", "pos ", " pos", "neg", "other "] * 4)
    dataset = load(DataSpec(path))
    assert dataset.label_names == ("neg", "other ", "pos")
    assert sum(len(s) for s in dataset.parts.values()) == 20
    assert said(dataset, "blanks", "' pos', 'pos', 'pos '")
    other = data.load_other(DataSpec(path), ("neg", "other ", "pos"))
    assert np.bincount(other.split.labels).tolist() == [4, 4, 12]


@pytest.mark.parametrize("seed", range(3))
def test_a_small_train_part_divided_anew_has_every_class(tmp_path, seed):
    labels = ["rare" if i % 100 == 0 else "abc"[i % 3] for i in range(1000)]
    dataset = load(DataSpec(csv_of(tmp_path, labels), subset=30))
    found = data.redivided(dataset, seed)
    assert np.bincount(found.train.labels, minlength=4).min() == 1
    assert np.bincount(found.validation.labels, minlength=4).min() >= 1
    both = (*found.train.ids, *found.validation.ids)
    assert sorted(both) == sorted((*dataset.train.ids, *dataset.validation.ids))
    assert (len(found.train), len(found.validation)) == (30, len(dataset.validation))


def test_rows_divided_anew_are_held_apart_where_leaks_are_dropped(tmp_path):
    for part, numbers in (("train", (0, 200)), ("validation", (200, 260)), ("test", (250, 300))):
        lines = [
            f"a text whose number is {i * 7919} and {i * 104729},{'ab'[i % 2]}\n"
            for i in range(*numbers)
            for _ in range(2 if part == "train" else 1)
        ]
        put(tmp_path, f"{part}.csv", "text,label\n" + "".join(lines))
    spec = DataSpec(str(tmp_path), on_leak="drop")
    dataset = load(spec)

    def leaked(found):
        return [duplicates.match(p.texts, found.train.texts).found.sum()
                for p in (found.validation, found.test)]  # fmt: skip

    assert leaked(dataset) == [0, 0]
    again = data.redivided(dataset, 0)
    assert min(leaked(again)) > 5  # rows that stood twice in train, and validation's own
    lora = MethodSpec("lora", "lora", {})
    for on_leak in ("drop", "fail"):
        asked = make_spec(replace(spec, on_leak=on_leak), "f", None, lora, 0, vary_split=True)
        found = rows_for_trial(dataset, asked)
        assert leaked(found) == [0, 0]
        assert found.validation.ids == again.validation.ids
        plain = make_spec(spec, "f", None, lora, 0)
        assert rows_for_trial(dataset, plain) is dataset
    warned = make_spec(replace(spec, on_leak="warn"), "f", None, lora, 0, vary_split=True)
    assert warned.trial_id != asked.trial_id
    assert rows_for_trial(dataset, warned).train.ids == again.train.ids


def test_other_data_of_the_class_minus_one_alone_is_labelled(tmp_path):
    path = csv_of(tmp_path, ["-1"] * 4)
    other = data.load_other(DataSpec(path), ("-1", "1"))
    assert other.split.labels.tolist() == [0] * 4
    with pytest.raises(DataError, match="no labelled rows to score on"):
        data.load_other(DataSpec(path), ("0", "1"))


def test_a_label_that_looks_missing_is_said(tmp_path):
    dataset = load(DataSpec(csv_of(tmp_path, ["pos", "neg", "nan"] * 4)))
    assert dataset.label_names == ("nan", "neg", "pos")
    assert said(dataset, "'nan' (4 rows)", "--drop-classes")


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).filter(lambda s: s.strip() and not NUMBER.fullmatch(s))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(NAMES, min_size=2, max_size=4, unique_by=str.strip), nasty=TEXTS)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_nasty_texts_and_label_names_survive(tmp_path, suffix, names, nasty):
    rows = {"text": [f"{i}{nasty}x" for i in range(4 * len(names))], "label": names * 4}
    path = tmp_path / f"r.{suffix}"
    write_table(path, rows)
    if suffix in ("csv", "tsv"):  # no formulas: tests/unit/core/test_cells.py takes them back
        names = [str(safe_cell(n)) for n in names]
        rows["label"] = names * 4
    dataset = load(DataSpec(str(path)))
    assert dataset.label_names == tuple(sorted(names))
    assert everything(dataset) == dict(zip(rows["text"], rows["label"], strict=True))


# --- folders --------------------------------------------------------------------------------

TRAIN = labelled({"a": 60, "b": 40}, "train")
VALIDATION = labelled({"a": 6, "b": 4}, "validation")
TEST = labelled({"b": 12, "a": 8}, "test")


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_folder_in_the_hubs_layout_is_taken_as_it_is(tmp_path, validation, suffix):
    parts = {"train": TRAIN, validation: VALIDATION, "test": TEST}
    dataset = load(DataSpec(folder_of(tmp_path / "reviews", suffix, **parts)))
    assert dataset.name == "reviews"
    assert sizes(dataset) == (100, 10, 20)
    assert dataset.test.texts == tuple(TEST["text"])
    assert dataset.label_names == ("a", "b")
    assert len(dataset.notes) == 1


def test_shards_in_a_data_folder_are_one_part_with_unique_ids(tmp_path):
    for i in range(2):
        half = {c: v[i::2] for c, v in TRAIN.items()}
        write_table(tmp_path / "data" / f"train-0000{i}-of-00002.parquet", half)
    write_table(tmp_path / "data" / "test-00000-of-00001.parquet", TEST)
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "metadata.json").write_text("{}")
    dataset = load(DataSpec(str(tmp_path)))
    assert sizes(dataset) == (85, 15, 20)
    ids = [i for s in dataset.parts.values() for i in s.ids]
    assert len(set(ids)) == 120
    assert {i.split(":")[0] for i in ids} == {
        "train-00000-of-00002",
        "train-00001-of-00002",
        "test-00000-of-00001",
    }
    (tmp_path / "data" / "train-00001-of-00002.parquet").unlink()
    assert "expected 2 files" in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("present", "expected", "notes"),
    [
        (("train",), (70, 15, 15), ["no test part", "no validation part"]),
        (("train", "validation"), (85, 10, 15), ["no test part"]),
        (("train", "test"), (85, 15, 20), ["no validation part"]),
    ],
)
def test_missing_parts_are_split_off_train(tmp_path, present, expected, notes):
    parts = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    dataset = load(DataSpec(folder_of(tmp_path, **{p: parts[p] for p in present})))
    assert sizes(dataset) == expected
    for note in notes:
        assert said(dataset, note, "split seed 0")
    for split in dataset.parts.values():
        assert set(split.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("hidden", [-1, None])
def test_an_unlabelled_test_part_is_named_and_not_scored(tmp_path, hidden):
    unlabelled = {"text": texts(30, "test"), "label": [hidden] * 30}
    numbers = {"a": 0, "b": 1}
    parts = {
        "train": {**TRAIN, "label": [numbers[str(y)] for y in TRAIN["label"]]},
        "validation": {**VALIDATION, "label": [numbers[str(y)] for y in VALIDATION["label"]]},
        "test": unlabelled,
    }
    dataset = load(DataSpec(folder_of(tmp_path, "parquet", **parts)))
    assert dataset.label_names == ("0", "1")
    assert dataset.test.texts == tuple(VALIDATION["text"])
    assert sizes(dataset) == (85, 15, 10)
    assert said(dataset, "test part is unlabelled", "not scored")
    assert said(dataset, "validation part serves as test")

    del parts["validation"]
    (tmp_path / "validation.parquet").unlink()
    assert sizes(load(DataSpec(str(tmp_path)))) == (70, 15, 15)


def test_an_unlabelled_test_part_of_class_labels_and_of_a_file_without_the_column(tmp_path):
    hub_parquet(tmp_path / "train.parquet", [0, 1] * 20, ["no", "yes"])
    hub_parquet(tmp_path / "test.parquet", [-1] * 5, ["no", "yes"])
    assert said(load(DataSpec(str(tmp_path))), "test part is unlabelled")
    (tmp_path / "test.parquet").unlink()
    write_table(tmp_path / "test.csv", {"id": [1, 2], "text": ["a b", "c d"]})
    dataset = load(DataSpec(str(tmp_path)))
    assert said(dataset, "test part is unlabelled")
    assert sizes(dataset) == (28, 6, 6)


def test_minus_one_is_a_class_where_train_has_it(tmp_path):
    train = labelled({-1: 10, 1: 10})
    test = labelled({-1: 3}, "t")
    dataset = load(DataSpec(folder_of(tmp_path, train=train, test=test)))
    assert dataset.label_names == ("-1", "1")
    assert dataset.test.texts == tuple(test["text"])


def test_a_folder_with_one_other_file_is_split_and_strangers_are_named(tmp_path):
    write_table(tmp_path / "one" / "reviews.csv", TRAIN)
    assert said(load(DataSpec(str(tmp_path / "one"))), "one file, reviews.csv")
    folder = folder_of(tmp_path / "two", train=TRAIN, extra=TEST)
    assert said(load(DataSpec(folder)), "not used: 'extra.csv'")


def test_folders_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no data files" in refusal(str(tmp_path / "empty"))
    other = folder_of(tmp_path / "other", a=TRAIN, b=TEST)
    assert "'a.csv', 'b.csv'" in refusal(other)
    assert "no train file" in refusal(folder_of(tmp_path / "testonly", test=TRAIN, dev=TRAIN))
    twice = folder_of(tmp_path / "twice", train=TRAIN, val=TEST, dev=TEST)
    assert "more than one validation part: 'dev.csv', 'val.csv'" in refusal(twice)
    folder_of(tmp_path / "formats", "csv", train=TRAIN)
    assert "train.csv" in refusal(folder_of(tmp_path / "formats", "jsonl", train=TRAIN))


def test_a_part_without_the_column_is_named(tmp_path):
    parts = {"train": TRAIN, "validation": {"text": ["a"], "lable": ["b"]}}
    message = refusal(folder_of(tmp_path, **parts))
    assert "validation.csv: no column 'label'" in message
    assert "Did you mean 'lable'" in message


# --- the hub --------------------------------------------------------------------------------


def test_the_hub_is_read_by_datasets_offline(tmp_path):
    """Real `datasets.load_dataset` on a folder in the hub's layout; ids that cannot be fetched."""
    owner = tmp_path / "owner" / "name"
    owner.mkdir(parents=True)
    hub_parquet(owner / "big.parquet", [1, 0] * 20, ["neg", "pos"])
    hub_parquet(owner / "hidden.parquet", [-1] * 4, ["neg", "pos"])
    front = """\
        ---
        configs:
        - config_name: small
          data_files:
          - {split: train, path: big.parquet}
          - {split: test, path: hidden.parquet}
          - {split: unsupervised, path: hidden.parquet}
        - config_name: other
          data_files:
          - {split: everything, path: big.parquet}
        ---
        """
    (owner / "README.md").write_text(textwrap.dedent(front))
    program = """\
        import json
        from tunelab.data import SOURCES, load
        from tunelab.core.errors import DataError
        from tunelab.core.values import DataSpec

        def show(d):
            sizes = {p: len(s) for p, s in d.parts.items()}
            return [d.name, list(d.label_names), sizes, list(d.notes), d.train.ids[0]]

        def fault(source):
            try:
                load(DataSpec(source))
            except DataError as error:
                return str(error)

        as_hub = SOURCES["hub"](DataSpec("owner/name:small@main"))
        print(json.dumps({
            "local": show(load(DataSpec("owner/name:small"))),
            "one": show(load(DataSpec("owner/name:other"))),
            "hub": [as_hub.name, as_hub.revision, list(as_hub.parts),
                    as_hub.parts["train"][0].class_names["label"]],
            "config": fault("owner/name:smal"),
            "missing": fault("nobody/nothing@v1"),
            "alias": fault("rotten_tomatoes"),
        }))
        """
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    env.pop("HF_DATASETS_CACHE", None)
    env["PYTHONPATH"] = str(Path(loading.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)

    name, labels, parts, notes, first = out["local"]
    assert (name, labels) == ("name:small", ["neg", "pos"])
    assert parts == {"train": 28, "validation": 6, "test": 6}
    assert any("'unsupervised' (4 rows) is not used" in n for n in notes)
    assert any("test part is unlabelled" in n for n in notes)
    assert first.startswith("train:")
    assert out["one"][2] == {"train": 28, "validation": 6, "test": 6}
    assert out["hub"] == ["owner/name:small", "main", ["train", "test"], ["neg", "pos"]]
    assert "'smal' not found" in out["config"]
    assert "small" in out["config"]
    for key, dataset in (
        ("missing", "nobody/nothing"),
        ("alias", "cornell-movie-review-data/rotten_tomatoes"),
    ):
        assert repr(dataset) in out[key]
        assert "HF_HUB_OFFLINE" in out[key]
        assert "train.parquet" in out[key]
        assert "\n" not in out[key]


def test_a_local_path_wins_over_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "stanfordnlp" / "sst2", train=TRAIN)
    assert sizes(load(DataSpec("stanfordnlp/sst2"))) == (70, 15, 15)
    folder_of(tmp_path / "imdb", train=TRAIN)
    assert load(DataSpec("imdb")).name == "imdb"


def test_sources_are_a_plain_dict():
    assert list(SOURCES) == ["demo", "file", "folder", "hub"]


# --- the split ------------------------------------------------------------------------------


def test_splitting_agrees_with_scikit_learn_on_the_counts(tmp_path):
    from sklearn.model_selection import train_test_split

    counts = {"a": 531, "b": 77, "c": 260, "d": 7}
    rows = labelled(counts)
    write_table(tmp_path / "r.parquet", rows)
    dataset = load(DataSpec(str(tmp_path / "r.parquet")))
    n = len(rows["label"])
    held = round(0.15 * n)
    assert sizes(dataset) == (n - 2 * held, held, held)
    _, theirs = train_test_split(rows["label"], test_size=held, stratify=rows["label"])
    for part in ("validation", "test"):
        ours = Counter(named(dataset.parts[part], dataset.label_names).values())
        assert all(abs(ours[c] - Counter(theirs)[c]) <= 1 for c in counts)


@settings(max_examples=40, deadline=None)
@given(
    sizes_=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(-3, 2**40),
    order=st.randoms(use_true_random=False),
)
def test_every_prefix_of_the_stratified_order_is_stratified(sizes_, seed, order):
    labels = [c for c, n in enumerate(sizes_) for _ in range(n)]
    order.shuffle(labels)
    codes = np.asarray(labels, dtype=np.int64)
    rows = _stratified_order(codes, seed, "x")
    assert sorted(rows.tolist()) == list(range(len(labels)))
    for n in range(len(sizes_), len(labels) + 1):
        taken = np.bincount(codes[rows[:n]], minlength=len(sizes_))
        assert taken.min() >= 1
        # Webster's criterion: no row beyond a class's first was taken before one more deserving.
        last = [(got - 0.5) / size for size, got in zip(sizes_, taken, strict=True) if got > 1]
        left = [(got + 0.5) / size for size, got in zip(sizes_, taken, strict=True) if got < size]
        assert max(last, default=0.0) <= min(left, default=1.0)


def test_parts_are_disjoint_complete_and_decided_by_the_seed_alone(tmp_path):
    path = csv_of(tmp_path, ["a", "b", "b"] * 40)
    first, again, other = (load(DataSpec(path, split_seed=s)) for s in (7, 7, 8))
    ids = [i for split in first.parts.values() for i in split.ids]
    assert len(ids) == len(set(ids)) == 120
    assert first.fingerprint == again.fingerprint
    assert first.test.ids != other.test.ids
    assert set(first.test.ids) != set(first.validation.ids)


def test_test_rows_do_not_depend_on_how_the_rows_of_a_class_are_arranged(tmp_path):
    # Files are often sorted by label or by length: a prefix of a class would be a biased sample.
    dataset = load(DataSpec(csv_of(tmp_path, ["a"] * 500 + ["b"] * 500)))
    lines = [int(i.split(":")[1]) for i in dataset.test.ids if int(i.split(":")[1]) < 502]
    assert 200 < np.mean(lines) < 300


def test_the_validation_part_is_never_more_than_5000_rows(tmp_path):
    write_table(tmp_path / "r.parquet", labelled({"a": 20_000, "b": 20_000}))
    assert sizes(load(DataSpec(str(tmp_path / "r.parquet")))) == (29_000, 5_000, 6_000)


def test_three_rows_of_a_class_are_enough_and_two_are_not(tmp_path):
    dataset = load(DataSpec(csv_of(tmp_path, ["a"] * 50 + ["b"] * 3)))
    assert [Counter(s.labels.tolist())[1] for s in dataset.parts.values()] == [1, 1, 1]
    message = refusal(csv_of(tmp_path, ["a"] * 50 + ["b"] * 2))
    assert "'b' (2)" in message
    assert "at least 3" in message


def test_with_all_parts_given_two_rows_of_a_class_in_train_are_enough(tmp_path):
    parts = {"train": labelled({"a": 9, "b": 2}), "test": TEST, "validation": VALIDATION}
    assert len(load(DataSpec(folder_of(tmp_path, **parts))).train) == 11
    folder_of(tmp_path, train=labelled({"a": 9, "b": 1}))
    assert "'b' (1)" in refusal(str(tmp_path))


# --- subset ---------------------------------------------------------------------------------


def test_subsets_are_stratified_nested_and_leave_the_other_parts_alone(tmp_path):
    path = csv_of(tmp_path, ["a", "a", "a", "b"] * 100 + ["c"] * 4)
    whole = load(DataSpec(path))
    before: set[str] = set()
    for n in (3, 10, 11, 40, 100, 200):
        part = load(DataSpec(path, subset=n))
        assert len(part.train) == n
        assert before < set(part.train.ids) < set(whole.train.ids)
        assert (part.validation.ids, part.test.ids) == (whole.validation.ids, whole.test.ids)
        assert part.fingerprint != whole.fingerprint
        assert said(part, f"subset: {n} of {len(whole.train)} train rows")
        share = np.bincount(part.train.labels) / n
        if n >= 40:
            np.testing.assert_allclose(share[:2], [0.75, 0.25], atol=0.03)
        before = set(part.train.ids)


def test_a_subset_that_is_too_large_is_said_and_one_too_small_is_refused(tmp_path):
    path = csv_of(tmp_path, ["a", "b", "c"] * 10)
    whole = load(DataSpec(path))
    large = load(DataSpec(path, subset=10_000))
    assert large.fingerprint == whole.fingerprint
    assert said(large, "subset 10,000", "all are used")
    for n in (2, 0, -1):
        assert "at least 3" in refusal(path, subset=n)


# --- bad rows -------------------------------------------------------------------------------

BAD = "text,label\n" + "".join(f"text {i} x,{'ab'[i % 2]}\n" for i in range(20))
BAD += ",a\n   ,b\nno label,\n"


def test_bad_rows_fail_with_their_lines_and_both_faults(tmp_path):
    message = refusal(put(tmp_path, "r.csv", BAD))
    assert "2 rows without text in column 'text' (lines 22, 23)" in message
    assert "1 row without label in column 'label' (line 24)" in message
    assert "--on-bad-rows drop" in message


def test_bad_rows_are_dropped_on_request_and_counted(tmp_path):
    dataset = load(DataSpec(put(tmp_path, "r.csv", BAD + "too,many,fields\n"), on_bad_rows="drop"))
    assert len(everything(dataset)) == 20
    assert said(dataset, "dropped 2 rows without text", "(lines 22, 23)", "1 row without label")
    assert said(dataset, "dropped 1 row", "fields", "line 25")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_nulls_and_nan_are_missing_in_typed_formats(tmp_path, suffix):
    nan = float("nan")
    rows = {"text": [*texts(20), None, "fine"], "label": [1.0, 2.0] * 10 + [1.0, nan]}
    write_table(tmp_path / f"r.{suffix}", rows)
    message = refusal(str(tmp_path / f"r.{suffix}"))
    unit = "line" if suffix == "jsonl" else "row"
    assert f"1 row without text in column 'text' ({unit} 21)" in message
    assert f"1 row without label in column 'label' ({unit} 22)" in message


def test_many_bad_rows_are_counted_and_the_first_five_shown(tmp_path):
    message = refusal(csv_of(tmp_path, ["a", "b"] * 10 + [None] * 1234))
    assert "1,234 rows without label" in message
    assert "lines 22, 23, 24, 25, 26 and 1,229 more" in message


def test_a_class_that_dropping_makes_too_small_is_refused(tmp_path):
    content = BAD.replace("no label,\n", ",c\nrare text,c\nrarer text,c\n")
    assert "'c' (2)" in refusal(put(tmp_path, "r.csv", content), on_bad_rows="drop")


# --- what else is refused -------------------------------------------------------------------


def test_a_missing_file_gets_the_look_alike(tmp_path, monkeypatch):
    csv_of(tmp_path, ["a", "b"] * 4, "reviews.csv")
    assert "no such file" in refusal(str(tmp_path / "review.csv"))
    monkeypatch.chdir(tmp_path)
    assert "Did you mean 'reviews.csv'?" in refusal("review.csv")
    assert "Did you mean 'reviews.csv'?" in refusal("Reviews.cvs")
    assert "there is no folder" in refusal("nowhere/reviews.csv")
    assert "Download it" in refusal("https://example.org/reviews.csv")
    for source in ("", "  ", "x" * 5_000 + ".csv", "a\0b", "what a lovely film"):
        assert refusal(source)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 9, ["every row has the label 'a'", "two classes"]),
        ([-1] * 9, ["no labels"]),
        ([None] * 9, ["no labels"]),
        ([0.5, 1.5, 2.5] * 3, ["not whole", "regression"]),
        (["1.5", "2", "3"] * 3, ["not whole", "1.5"]),
        (list(range(1_001)) * 3, ["1,001 classes", "wrong column", "--label-column"]),
        ([f"c{i}" for i in range(9)], ["9 classes have too few rows", "and 4 more"]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_that_are_no_classes(tmp_path, suffix, labels, words):
    write_table(tmp_path / f"r.{suffix}", {"text": texts(len(labels)), "label": labels})
    message = refusal(str(tmp_path / f"r.{suffix}"))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ('["a", "b"]', ["lists", "line 9"]),
        ('{"a": 1}', ["objects", "line 9"]),
        ("1e400", ["not whole", "line 9"]),
        ('"\\ud800"', ["surrogate"]),
    ],
)
def test_labels_that_are_no_values(tmp_path, label, words):
    lines = [f'{{"text": "text {i} x", "label": "{"ab"[i % 2]}"}}\n' for i in range(8)]
    path = put(tmp_path, "r.jsonl", "".join(lines) + f'{{"text": "x", "label": {label}}}\n')
    message = refusal(path)
    for word in words:
        assert word in message


def test_a_class_label_outside_its_names_is_refused(tmp_path):
    import pyarrow.parquet as pq

    hub_parquet(tmp_path / "train.parquet", [0, 1] * 4, ["neg", "pos"])
    table = pq.read_table(tmp_path / "train.parquet")
    columns = {"text": table["text"], "label": [0, 1] * 3 + [2, 5]}
    strange = type(table).from_pydict(columns, metadata=table.schema.metadata)
    pq.write_table(strange, tmp_path / "train.parquet")
    assert "outside its 2 class names (row 7: 2)" in refusal(str(tmp_path))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_label_that_train_never_has_is_named(tmp_path, part):
    parts = {"train": TRAIN, part: labelled({"a": 3, "zebra": 1}, "v")}
    message = refusal(folder_of(tmp_path, **parts))
    assert f"'zebra' stands in the {part} part and never in train" in message


def test_texts_that_are_numbers_are_refused(tmp_path):
    labels = ["a", "b"] * 4
    write_table(tmp_path / "r.csv", {"text": [str(i * 1.5) for i in range(8)], "label": labels})
    assert "'text' holds numbers only" in refusal(str(tmp_path / "r.csv"))
    write_table(tmp_path / "r.parquet", {"text": list(range(8)), "label": labels})
    assert "'text' holds numbers (row 1: 0)" in refusal(str(tmp_path / "r.parquet"))
    write_table(tmp_path / "m.csv", {"text": [*texts(7), "1984"], "label": labels})
    assert "1984" in everything(load(DataSpec(str(tmp_path / "m.csv"))))


def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path):
    content = "".join(f'{{"text": "text {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(8))
    path = put(tmp_path, "r.jsonl", content + '{"text": "bad \\udc80", "label": "a"}\n')
    message = refusal(path)
    assert "line 9" in message
    assert "udc80" in message


def test_settings_that_nobody_offers_are_refused(tmp_path):
    path = csv_of(tmp_path, ["a", "b"] * 4)
    assert "'fail' or 'drop'" in refusal(path, on_bad_rows="skip")
    broken = put(tmp_path, "h.csv", '"te\nxt",label\na b,c\n')
    assert "Columns: te xt, label." in refusal(broken, text_column="x")
    message = refusal(path, text_column="txt")
    assert "no column 'txt' (--text-column)" in message
    assert "Did you mean 'text'? Columns: text, label." in message


# --- duplicates, fingerprint, card ----------------------------------------------------------


def test_duplicates_are_counted_by_part_and_across():
    def split(*rows: tuple[str, int]) -> Split:
        ids = tuple(str(i) for i in range(len(rows)))
        return Split(ids, tuple(t for t, _ in rows), np.array([y for _, y in rows]))

    found = count_duplicates(
        {
            "train": split(("a", 0), ("a", 0), ("a", 1), ("b", 0), ("A", 0), ("a ", 0)),
            "validation": split(("a", 0), ("a", 0), ("c", 0)),
            "test": split(("b", 1), ("c", 0), ("d", 0)),
        }
    )
    assert found.within == {"train": 2, "validation": 1, "test": 0}
    assert found.across == {"train/validation": 2, "train/test": 1, "validation/test": 1}
    assert found.conflicting == 2
    assert found.total == 7


def small(tmp_path: Path, **change: object) -> Dataset:
    path = csv_of(tmp_path, ["a", "b"] * 10)
    return load(DataSpec(path, **change))  # type: ignore[arg-type]


def test_the_fingerprint_hears_every_change(tmp_path):
    dataset = small(tmp_path)
    parts = dataset.parts
    train = dataset.train
    flipped = train.labels.copy()
    flipped[0] = 1 - flipped[0]
    joined = (train.texts[0] + train.texts[1][0], train.texts[1][1:], *train.texts[2:])
    changes = [
        (dataset.label_names, parts),
        (("a", "B"), parts),
        (("ab", ""), parts),
        (dataset.label_names, {**parts, "train": replace(train, labels=flipped)}),
        (dataset.label_names, {**parts, "train": replace(train, texts=joined)}),
        (dataset.label_names, {**parts, "train": replace(train, ids=train.ids[::-1])}),
        (dataset.label_names, {**parts, "test": parts["validation"], "validation": parts["test"]}),
    ]
    prints = [fingerprint_of(names, p) for names, p in changes]
    assert prints[0] == dataset.fingerprint
    assert len(set(prints)) == len(changes)


def test_the_fingerprint_is_the_same_in_another_process(tmp_path):
    dataset = small(tmp_path)
    program = (
        "import sys; from tunelab.data import load; from tunelab.core.values import DataSpec;"
        "print(load(DataSpec(sys.argv[1])).fingerprint);"
        "print(sorted({'torch', 'transformers', 'pandas', 'datasets'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "123"}
    env["PYTHONPATH"] = str(Path(loading.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "r.csv")],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == [dataset.fingerprint, "[]"]


def test_the_card_is_plain_json_and_adds_up(tmp_path):
    rows = [(f"{'word ' * (1 + i % 7)}{i}", "ab"[i % 2]) for i in range(40)]
    rows += [("twice", "a"), ("twice", "b"), ("y" * 500, "b")]
    lines = "".join(f"{t},{y}\n" for t, y in rows)
    dataset = load(DataSpec(put(tmp_path, "r.csv", "text,label\n" + lines)))
    card = json.loads(json.dumps(describe(dataset), allow_nan=False))
    assert card["fingerprint"] == dataset.fingerprint
    assert sum(card["sizes"].values()) == 43
    for part, split in dataset.parts.items():
        assert sum(card["label_counts"][part].values()) == card["sizes"][part] == len(split)
        words = [len(t.split()) for t in split.texts]
        assert card["words"][part]["mean"] == pytest.approx(np.mean(words))
        assert card["words"][part]["p95"] == pytest.approx(np.percentile(words, 95))
        assert card["characters"][part]["max"] == max(len(t) for t in split.texts)
    assert card["duplicates"]["conflicting"] == 1
    assert card["duplicates"]["total"] == dataset.duplicates.total == 1
    (example,) = card["duplicates"]["examples"]
    assert example["text"] == "twice"
    assert {r["label"] for r in example["rows"]} == {"a", "b"}
    assert list(card["samples"]) == ["a", "b"]
    assert all(1 <= len(s) <= 3 for s in card["samples"].values())
    shown = itertools.chain(*card["samples"].values())
    assert max(map(len, shown)) <= 200
    assert card["notes"] == list(dataset.notes)


def test_a_hundred_thousand_rows_are_read_without_fuss(tmp_path):
    lines = "".join(f'"a text, number {i} of many",{i % 7}\n' for i in range(100_000))
    dataset = load(DataSpec(put(tmp_path, "r.csv", "text,label\n" + lines)))
    assert sizes(dataset) == (80_000, 5_000, 15_000)
    assert dataset.label_names == tuple("0123456")


# --- real data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected", "classes"),
    [
        ("rotten_tomatoes", (8530, 1066, 1066), 2),
        ("sst2", (57_247, 872, 10_102), 2),
        ("imdb_3k", (2226, 477, 477), 2),
        ("emotion", (16_000, 2_000, 2_000), 6),
    ],
)
def test_real_datasets(name, expected, classes):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no ../shared/data/{name} beside the project")
    dataset = load(DataSpec(str(folder)))
    assert sizes(dataset) == expected
    assert len(dataset.label_names) == classes


# --- leaks and further columns --------------------------------------------------------------


def leaky(tmp_path: Path) -> str:
    rows = {"text": texts(40), "label": ["a", "b"] * 20, "site": [i % 3 for i in range(40)]}
    held = {"text": texts(10, "unseen"), "label": ["a", "b"] * 5, "site": [None] * 10}
    held["text"][0] = "TEXT number 7, of them!"
    return folder_of(tmp_path, train=rows, test=held, validation=labelled({"a": 5, "b": 5}, "new"))


def test_on_leak(tmp_path: Path):
    source = leaky(tmp_path)
    with_all = load(DataSpec(source))
    dropped = load(DataSpec(source, on_leak="drop"))
    assert set(with_all.train.ids) - set(dropped.train.ids) >= {"train:9"}  # a header, then row 7
    gone = [t for t in with_all.train.texts if t not in dropped.train.texts]
    assert "text number 7 of them" in gone
    assert len(gone) == 1  # "text number 17 of them" has the template of all, and is another text
    assert dropped.test.texts == with_all.test.texts
    assert dropped.fingerprint != with_all.fingerprint
    assert said(dropped, "1 row of the train part", "dropped from train")
    message = refusal(source, on_leak="fail")
    assert "--on-leak drop" in message
    assert "train:9" in message
    assert "on_leak is 'no'" in refusal(source, on_leak="no")


def test_on_leak_where_there_is_none(tmp_path: Path):
    rows = {"text": list("abcdefgh"), "label": [0, 1] * 4}
    held = {"text": list("ijkl"), "label": [0, 1] * 2}
    source = folder_of(tmp_path, train=rows, test=held, validation={**held, "text": list("mnop")})
    plain = load(DataSpec(source))
    for choice in ("drop", "fail"):
        assert load(DataSpec(source, on_leak=choice)).fingerprint == plain.fingerprint  # type: ignore[arg-type]


def test_on_leak_drop_refuses_to_empty_a_class(tmp_path: Path):
    rows = {"text": ["one", "two", "three", "four"], "label": [0, 1] * 2}
    held = {"text": ["One!", "two", "x"], "label": [0, 1, 1]}
    source = folder_of(tmp_path, train=rows, test=held, validation={**held, "text": list("abc")})
    assert "expected at least 2" in refusal(source, on_leak="drop")


def test_further_columns_stay_with_their_rows(tmp_path: Path):
    n = 60
    rows = {
        "text": texts(n),
        "label": ["a", "b", "c"] * 20,
        "domain": [f"d{i}" for i in range(n)],
        "stars": [float(i) for i in range(n)],
        "notes": ["x" * 500] * n,
        "nothing": [None] * n,
        "many": [[i] for i in range(n)],
    }
    write_table(tmp_path / "r.parquet", rows)
    dataset = load(DataSpec(str(tmp_path / "r.parquet"), subset=20))
    for split in dataset.parts.values():
        assert set(split.columns) == {"domain", "stars"}
        numbers = [t.split()[2] for t in split.texts]
        assert split.columns["domain"] == tuple(f"d{i}" for i in numbers)
        assert split.columns["stars"] == tuple(float(i) for i in numbers)
    assert load(DataSpec("demo")).test.columns["phenomenon"]


def test_rows_of_a_study_come_back(tmp_path: Path):
    from tunelab.core import study_folder

    dataset = load(DataSpec(leaky(tmp_path)))
    assert study_folder.read_rows(tmp_path) is None
    study_folder.write_rows(tmp_path, dataset)
    for part in ("validation", "test"):
        rows, split = study_folder.read_rows(tmp_path, part), dataset.parts[part]
        assert rows is not None
        assert (rows.ids, rows.texts) == (split.ids, split.texts)
        assert np.array_equal(rows.labels, split.labels)
    mixed = replace(dataset.test, columns={"c": (1, "x", None, 2.5, True, 1, 2, 3, 4, 5)})
    study_folder.write_rows(tmp_path, replace(dataset, test=mixed))
    rows = study_folder.read_rows(tmp_path, "test")
    assert rows is not None
    assert rows.columns["c"] == ("1", "x", None, "2.5", "True", "1", "2", "3", "4", "5")
