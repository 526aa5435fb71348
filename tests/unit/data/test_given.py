"""Rows that are given in Python: frames, Arrow tables, `datasets`, lists."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tunelab
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset

TEXTS = [f"a quiet film number {i}" if i % 2 else f"a loud mess number {i}" for i in range(40)]
LABELS = ["good" if i % 2 else "bad" for i in range(40)]
COLUMNS = {"text": TEXTS, "label": LABELS}
ROWS = [{"text": t, "label": n} for t, n in zip(TEXTS, LABELS, strict=True)]
FRAME = pd.DataFrame(COLUMNS)


class Streamed:
    """What polars and others give: columns, and a stream of Arrow."""

    columns = ("text", "label")

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        types = pa.schema([("text", pa.string_view()), ("label", pa.string_view())])
        return pa.table(COLUMNS).cast(types).__arrow_c_stream__(requested_schema)


ONE_PART = {
    "pandas": FRAME,
    "pandas, some of the rows": pd.concat([FRAME, FRAME])[:40],
    "categories": FRAME.astype({"label": "category"}),
    "objects": FRAME.astype(object),
    "arrow": pa.table(COLUMNS),
    "an Arrow stream": Streamed(),
    "datasets": datasets.Dataset.from_dict(COLUMNS),
    "columns": COLUMNS,
    "columns of arrays": {k: np.asarray(v) for k, v in COLUMNS.items()},
    "rows": ROWS,
}


@pytest.fixture(scope="module")
def from_a_file(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("file") / "rows.csv"
    FRAME.to_csv(path, index=False)
    return tunelab.load_data(path)


@pytest.mark.parametrize("form", ONE_PART)
def test_rows_are_the_same_in_whatever_form(form: str, from_a_file: Dataset) -> None:
    given = tunelab.load_data(ONE_PART[form])
    assert given.label_names == from_a_file.label_names
    for part, split in from_a_file.parts.items():
        assert given.parts[part].texts == split.texts
        assert [i.partition(":")[0] for i in given.parts[part].ids] == ["rows"] * len(split)
    assert given.fingerprint == tunelab.load_data(TEXTS, LABELS).fingerprint


def test_texts_and_labels_of_any_kind() -> None:
    first = tunelab.load_data(TEXTS, LABELS)
    for texts, labels in (
        (tuple(TEXTS), np.asarray(LABELS)),
        (FRAME["text"], FRAME["label"]),
        (datasets.Dataset.from_dict(COLUMNS)["text"], iter(LABELS)),
    ):
        assert tunelab.load_data(texts, labels).fingerprint == first.fingerprint
    numbers = tunelab.load_data(TEXTS, labels=[int(n == "good") for n in LABELS])
    assert numbers.label_names == ("0", "1")


def test_parts_that_are_given_stay_parts() -> None:
    parts = {"train": FRAME, "test": FRAME[::-1]}
    names = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["good", "bad"])
    )
    encoded = FRAME.assign(label=[int(n == "bad") for n in LABELS])
    both = datasets.DatasetDict(
        {
            part: datasets.Dataset.from_pandas(rows, features=names, preserve_index=False)
            for part, rows in (("train", encoded), ("test", encoded[::-1]))
        }
    )
    for given, classes in ((parts, ("bad", "good")), (both, ("good", "bad"))):
        data = tunelab.load_data(given)
        assert data.test.texts == tuple(TEXTS[::-1])
        assert data.label_names == classes  # a ClassLabel keeps its order
        assert [classes[k] for k in data.test.labels] == LABELS[::-1]
    shuffled = both["train"].shuffle(seed=1).select(range(30))
    seen = tunelab.load_data(shuffled).parts.values()
    assert sorted(t for s in seen for t in s.texts) == sorted(shuffled["text"])


def test_a_data_set_that_was_loaded_keeps_its_parts() -> None:
    first = tunelab.load_data(FRAME.assign(key=[f"k{i}" for i in range(40)]), id_column="key")
    again = tunelab.load_data(first)
    for part, split in first.parts.items():
        assert again.parts[part].texts == split.texts
        assert again.parts[part].columns["key"] == split.columns["key"]


def test_an_index_that_has_a_name_is_a_column() -> None:
    named = FRAME.set_index(pd.Index([f"t{i}" for i in range(40)], name="id"))
    assert tunelab.load_data(named).id_column == "id"


@pytest.mark.parametrize(
    ("given", "labels", "said"),
    [
        (TEXTS, None, r"a list of 40 strings and no labels. .*labels=\[...\]"),
        (TEXTS, LABELS[:39], "labels: 39 for 40 texts, expected one for each text"),
        ("reviews.csv", LABELS, "labels: found beside data 'reviews.csv'.*label_column='label'"),
        (FRAME, LABELS, "texts: found DataFrame, expected a list"),
        (FRAME.assign(text=[*TEXTS[:39], 5]), None, "DataFrame: column 'text' .*strings, numbers"),
        (
            FRAME.rename(columns={"text": "label"}),
            None,
            "DataFrame: two columns are called 'label'",
        ),
        (FRAME[:0], None, "DataFrame: no rows"),
        (TEXTS, 3, "labels: found int, expected a list"),
        ({"dev": FRAME, "test": FRAME}, None, "parts: no train part; found 'dev', 'test'"),
        (
            {"text": TEXTS, "label": LABELS[1:]},
            None,
            "rows: column 'label' has 39 rows, .*'text' 40",
        ),
        ([*ROWS, "a text"], None, "rows: row 40 is strings, expected a mapping"),
        (3, None, "data: found int, expected a file's name, a DataFrame"),
        (FRAME.assign(label=None), None, "DataFrame: "),
    ],
)
def test_what_holds_no_rows_is_refused_in_a_line(given: object, labels: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        tunelab.load_data(given, labels)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_a_frame_without_the_column_that_is_named_is_refused_by_what_it_is() -> None:
    with pytest.raises(DataError, match=r"^DataFrame: no column 'review'"):
        tunelab.load_data(FRAME, text_column="review")


def test_what_load_data_gave_keeps_several_labels_and_refuses_what_rows_do_not_say() -> None:
    texts = [f"text {i} of {i * 7}" for i in range(60)]
    sets = [["late", "rude"] if i % 3 else ["rude"] for i in range(60)]
    several = tunelab.load_data(pd.DataFrame({"text": texts, "labels": sets}))
    again = tunelab.load_data(several)
    assert (again.task, again.label_names) == ("multilabel", several.label_names)
    stars = pd.DataFrame({"text": texts, "label": [i % 4 for i in range(60)]})
    with pytest.raises(DataError, match="of a scale, which rows alone do not say"):
        tunelab.load_data(tunelab.load_data(stars, task="ordinal"))
