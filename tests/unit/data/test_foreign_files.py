"""Files as others write them: quotes, labels, kinds, folders, contents, single bad rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunelab import data
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset, DataSpec
from tunelab.data.alike import looks

WORDS = ("warm", "clumsy", "bright", "dull", "moving", "flat")
ROWS = [(f"the film number {i} is {WORDS[i % 6]}", ("good", "bad")[i % 2]) for i in range(24)]


def put(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def lines(rows: Sequence[tuple[object, ...]], separator: str, *header: str) -> list[str]:
    return [separator.join(map(str, row)) for row in ([header] if header else []) + list(rows)]


def csv_of(rows: Sequence[tuple[object, ...]], *header: str) -> str:
    return "\n".join(lines(rows, ",", *(header or ("text", "label")))) + "\n"


def size(dataset: Dataset) -> int:
    return sum(len(part) for part in dataset.parts.values())


def refused(path: str, **given: Any) -> str:
    with pytest.raises(DataError) as caught:
        data.load(DataSpec(path, **given))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(rows: Sequence[tuple[str, str]] = ROWS) -> pa.Table:
    return pa.table({"text": [t for t, _ in rows], "label": [k for _, k in rows]})


# --- quotes ---------------------------------------------------------------------------------


@pytest.fixture(params=["\t", ",", "|"])
def swallowing(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file in which a quote before a text is closed four rows below."""
    written = lines(ROWS, request.param, "text", "label")
    written[4] = '"' + written[4]
    written[8] = written[8].replace(request.param, '"' + request.param)
    return put(tmp_path, "r.tsv" if request.param == "\t" else "r.csv", "\n".join(written))


def test_a_quote_that_swallows_rows_is_refused_with_its_line(swallowing):
    message = refused(swallowing)
    assert "line 5" in message
    assert "line 9" in message
    assert "--quoting none" in message


def test_without_quoting_each_line_is_a_row(swallowing):
    dataset = data.load(DataSpec(swallowing, quoting="none"))
    assert size(dataset) == 24
    assert sum(t.startswith('"') for s in dataset.parts.values() for t in s.texts) == 1


def test_a_user_may_say_that_the_lines_are_one_text(swallowing):
    assert size(data.load(DataSpec(swallowing, quoting="double"))) == 20


def test_predictions_are_for_as_many_rows_as_a_file_has(tmp_path):
    rows = [(str(i), t) for i, (t, _) in enumerate(ROWS)]
    written = lines(rows, "\t", "id", "text")
    written[4] = written[4].replace("\t", '\t"')
    written[8] += '"'
    path = Path(put(tmp_path, "r.tsv", "\n".join(written)))
    with pytest.raises(DataError, match="--quoting none"):
        data.open_texts(path)
    assert data.open_texts(path, quoting="none").rows == 24


def test_a_file_of_one_swallowed_row_is_refused(tmp_path):
    written = lines(ROWS, ",", "text", "label")
    written[1] = '"' + written[1]
    written[-1] = written[-1].replace(",", '",')
    assert "line 2" in refused(put(tmp_path, "r.csv", "\n".join(written)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_of_several_lines_are_read_and_said(tmp_path, end):
    rows = [
        (f'"first, of two{end}second {i}, third{end}{end}last"', k) for i, (_, k) in enumerate(ROWS)
    ]
    path = put(tmp_path, "r.csv", csv_of(rows).replace("\n", end) if end == "\r" else csv_of(rows))
    dataset = data.load(DataSpec(path))
    assert size(dataset) == 24
    assert any("24 rows stand in several lines" in n for n in dataset.notes)


def test_broken_quotes_say_how_to_read_without(tmp_path):
    assert "--quoting none" in refused(put(tmp_path, "r.csv", 'text,label\n"a" b,good\n'))


# --- labels ---------------------------------------------------------------------------------

LOOK_ALIKE = [
    ("good", "Good"), ("café", "cafe\u0301"), ("good", "go\u200bod"), ("very good", "very\xa0good"),
    ("1", "01"), ("good", '"good"'), ("good", "\uff47ood"), ("good", "g\u043e\u043ed"),
    ("a-b", "a\u2013b"),
    ("good", "good\ufeff"), ("straße", "STRASSE"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), LOOK_ALIKE)
def test_labels_that_look_alike_are_said_with_their_rows_and_joined_on_demand(tmp_path, one, other):
    labels = [one, one, other, "0"] * 6
    rows = [{"text": t, "label": k} for (t, _), k in zip(ROWS, labels, strict=True)]
    path = put(tmp_path, "r.jsonl", "\n".join(json.dumps(r) for r in rows))
    apart = data.load(DataSpec(path))
    assert len(apart.label_names) == 3
    (said,) = [n for n in apart.notes if "look alike" in n]
    assert "(12 rows)" in said
    assert "(6 rows)" in said
    assert "--join-labels" in said
    joined = data.load(DataSpec(path, join_labels=True))
    assert set(joined.label_names) == {one, "0"}
    assert size(joined) == 24


@pytest.mark.parametrize(
    ("one", "other"), [("good", "goods"), ("1", "10"), ("a b", "ab"), ("-1", "1")]
)
def test_labels_that_do_not_look_alike_are_left_in_peace(one, other):
    assert looks(one) != looks(other)


def test_blanks_between_a_comma_and_a_quote_are_no_part_of_a_label(tmp_path):
    text = "".join(f'"{t}, once", "{k}"\n' for t, k in ROWS)
    dataset = data.load(DataSpec(put(tmp_path, "r.csv", '"text", "label"\n' + text)))
    assert dataset.label_names == ("bad", "good")
    assert size(dataset) == 24


def test_a_header_that_is_repeated_is_named_or_dropped(tmp_path):
    content = csv_of(ROWS) + csv_of(ROWS[:3])
    path = put(tmp_path, "r.csv", content)
    assert "repeats the header" in refused(path).replace("repeat the", "repeats the")
    assert "line 26" in refused(path)
    assert size(data.load(DataSpec(path, on_bad_rows="drop"))) == 27


def test_classes_are_left_out_by_name_and_by_size(tmp_path):
    rows = [*ROWS, ("a film of its own", "odd"), ("another film", "odd"), ("no film", "rare")]
    path = put(tmp_path, "r.csv", csv_of(rows))
    named = data.load(DataSpec(path, drop_classes=["odd", "rare"]))
    assert named.label_names == ("bad", "good")
    sized = data.load(DataSpec(path, min_rows_per_class=3))
    assert (sized.label_names, size(sized)) == (("bad", "good"), 24)
    assert any("2 classes with 3 rows" in n and "'odd', 'rare'" in n for n in sized.notes)
    assert "Did you mean 'good'" in refused(path, drop_classes=["goood"])
    assert "no class is left" in refused(path, min_rows_per_class=100)


def test_data_to_score_on_have_their_labels_read_alike(tmp_path):
    rows = [(t, k.upper() if i % 3 else "odd") for i, (t, k) in enumerate(ROWS)]
    spec = DataSpec(put(tmp_path, "r.csv", csv_of(rows)), join_labels=True, drop_classes=["odd"])
    other = data.load_other(spec, ("bad", "good"))
    assert len(other.split) == 16
    with pytest.raises(DataError, match="'BAD', 'GOOD'"):
        data.load_other(DataSpec(spec.source, drop_classes=["odd"]), ("bad", "good"))


# --- kinds that are not supported -----------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question", "sentence"),
        ("text_a", "text_b"), ("Question 1", "Question 2"), ("query", "passage"),
    ],
)  # fmt: skip
def test_pairs_are_named_as_such(tmp_path, one, two):
    rows = [(t, f"{t} indeed", k) for t, k in ROWS]
    path = put(tmp_path, "r.csv", csv_of(rows, one, two, "label"))
    assert "pair of texts" in refused(path)
    dataset = data.load(DataSpec(path, text_column=two))
    assert any(f"{one!r} is not read" in n for n in dataset.notes)


@pytest.mark.parametrize("form", ["{}", "['{}']"])
@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_several_labels_a_text_are_named_as_such(tmp_path, separator, form):
    sets = [("a",), ("a", "b"), ("b", "c"), ("c",), ("a", "c"), ("b",)]
    rows = [
        {"text": t, "labels": form.format(separator.join(sets[i % 6]))}
        for i, (t, _) in enumerate(ROWS)
    ]
    path = put(tmp_path, "r.jsonl", "\n".join(json.dumps(r) for r in rows))
    assert "multi-label" in refused(path)


@pytest.mark.parametrize(
    "labels",
    [
        ["food|good", "food|bad", "staff|good", "staff|bad"],
        ["Boston, MA", "Austin, TX", "Reno, NV"],
        ["sports", "sports;football", "sports;tennis", "news;local"],
        ["yes", "no", "don't know; other"],
    ],
)
def test_classes_with_separators_in_their_names_are_classes(tmp_path, labels):
    rows = [{"text": t, "label": labels[i % len(labels)]} for i, (t, _) in enumerate(ROWS)]
    path = put(tmp_path, "r.jsonl", "\n".join(json.dumps(r) for r in rows))
    assert set(data.load(DataSpec(path)).label_names) == set(labels)


def test_columns_of_0_and_1_are_named_as_such(tmp_path):
    rows = [(t, i % 2, i % 3 % 2) for i, (t, _) in enumerate(ROWS)]
    path = put(tmp_path, "r.csv", csv_of(rows, "text", "toxic", "rude"))
    assert "multi-label" in refused(path)
    assert data.load(DataSpec(path, label_column="rude")).label_names == ("0", "1")
    hot = [(t, i % 2, 1 - i % 2) for i, (t, _) in enumerate(ROWS)]
    assert "one-hot" in refused(put(tmp_path, "h.csv", csv_of(hot, "text", "good", "bad")))


@pytest.mark.parametrize("number", ["{}.5", "0.{}1", "{}e-1", "{},25", "1{}00"])
def test_a_quantity_is_named_as_such(tmp_path, number):
    rows = [{"text": t, "score": 0, "label": number.format(i)} for i, (t, _) in enumerate(ROWS)]
    path = put(tmp_path, "r.jsonl", "\n".join(json.dumps(r) for r in rows))
    assert "regression" in refused(path)


def test_numbers_that_may_be_classes_are_read_and_those_that_may_not_be_said(tmp_path):
    texts = [f"film {i}, {t}" for i in range(10) for t, _ in ROWS]
    counted = [(t.replace(",", ""), i % 30) for i, t in enumerate(texts)]
    notes = data.load(DataSpec(put(tmp_path, "c.csv", csv_of(counted)))).notes
    assert not any("regression" in n for n in notes)
    ages = [(t.replace(",", ""), 18 + i % 30) for i, t in enumerate(texts)]
    notes = data.load(DataSpec(put(tmp_path, "a.csv", csv_of(ages)))).notes
    assert any("30 whole numbers from 18 to 47" in n and "regression" in n for n in notes)
    named = [(t.replace(",", ""), "9" * 5000 + str(i % 2)) for i, t in enumerate(texts)]
    assert len(data.load(DataSpec(put(tmp_path, "n.csv", csv_of(named)))).label_names) == 2


# --- folders --------------------------------------------------------------------------------


def test_shards_with_a_hash_are_read(tmp_path):
    for part, count in (("train", 2), ("test", 1)):
        for i in range(count):
            name = f"data/{part}-0000{i}-of-0000{count}-a5e3aa5c0b0dbb6{i}.parquet"
            (tmp_path / "data").mkdir(exist_ok=True)
            pq.write_table(table(), tmp_path / name)
    dataset = data.load(DataSpec(str(tmp_path)))
    assert (len(dataset.test), size(dataset)) == (24, 72)
    pq.write_table(table(), tmp_path / "data/test-00000-of-00001-ffffffffffffffff.parquet")
    assert "another version" in refused(str(tmp_path))


@pytest.mark.parametrize("below", ["", "data/"])
def test_a_folder_a_part_is_read(tmp_path, below):
    for part, pieces in (("train", ["0000", "0001"]), ("validation", ["0000"]), ("test", ["0000"])):
        for piece in pieces:
            put(tmp_path, f"{below}{part}/{piece}.csv", csv_of(ROWS))
    dataset = data.load(DataSpec(str(tmp_path)))
    assert [len(p) for p in dataset.parts.values()] == [48, 24, 24]
    put(tmp_path, f"{below}train/other.csv", csv_of(ROWS))
    assert "other.csv" in refused(str(tmp_path))


def test_pieces_of_one_table_are_read(tmp_path):
    for i in range(3):
        put(tmp_path, f"t.csv/part-0000{i}-3c1b-c000.csv.gz", gzip.compress(csv_of(ROWS).encode()))
        put(tmp_path, f"t.csv/.part-0000{i}-3c1b-c000.csv.gz.crc", b"crc")
    put(tmp_path, "t.csv/_SUCCESS", b"")
    dataset = data.load(DataSpec(str(tmp_path / "t.csv")))
    assert size(dataset) == 72


@pytest.mark.parametrize("parts", [["train"], ["train", "test"]])
def test_what_datasets_saved_is_read(tmp_path, parts):
    import datasets

    rows = datasets.Dataset(table())
    names = datasets.ClassLabel(names=["good", "bad"])
    rows = rows.cast_column("label", names)
    if len(parts) == 1:
        rows.save_to_disk(tmp_path / "saved")
    else:
        datasets.DatasetDict(dict.fromkeys(parts, rows)).save_to_disk(tmp_path / "saved")
    dataset = data.load(DataSpec(str(tmp_path / "saved")))
    assert dataset.label_names == ("good", "bad")
    assert size(dataset) == 24 * len(parts)
    next((tmp_path / "saved").rglob("*.arrow")).unlink()
    assert "is not there" in refused(str(tmp_path / "saved"))


def test_a_configuration_is_read_and_of_several_one_is_to_be_given(tmp_path):
    put(tmp_path, "plain/train-00000-of-00001.csv", csv_of(ROWS))
    assert size(data.load(DataSpec(str(tmp_path)))) == 24
    put(tmp_path, "other/train.csv", csv_of(ROWS))
    assert "'other', 'plain'" in refused(str(tmp_path))


# --- contents -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"text,label\n", mtime=0), "gzip"),
        (b"PK\x03\x04\x14\0\0\0\0\0" + b"[Content_Types].xml", "Excel"),
        (b"PK\x03\x04\x14\0\0\0\0\0reviews.csv", "ZIP"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html>", "web page"),
        (b"<?xml version='1.0'?><rows/>", "XML"),
        (b"\x28\xb5\x2f\xfd\x04", "Put .zst behind"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x80\x04\x95\x10\0\0\0", "pickle"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.json", "r.parquet", "r.txt"])
def test_content_that_is_not_what_its_name_says_is_named(tmp_path, name, content, what):
    if what == "Parquet" and name == "r.parquet":
        return
    path = put(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        data.open_texts(Path(path))
    assert f"{name}: it holds" in str(caught.value)
    assert what in str(caught.value)


def test_rows_under_a_key_are_read(tmp_path):
    rows = [{"text": t, "label": k} for t, k in ROWS]
    for i, document in enumerate(
        (
            json.dumps({"version": 1, "data": rows}),
            json.dumps({"data": rows}, indent=1),
            json.dumps(rows, indent=2),
        )
    ):
        assert size(data.load(DataSpec(put(tmp_path, f"{i}.json", document)))) == 24
    several = put(tmp_path, "s.json", json.dumps({"train": rows, "test": rows}))
    assert "'train', 'test'" in refused(several)


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_other_separators_and_one_behind_the_last_field_are_read(tmp_path, separator):
    content = "\n".join(lines(ROWS, separator, "text", "label"))
    assert size(data.load(DataSpec(put(tmp_path, "r.csv", content)))) == 24
    trailing = content.replace("good", f"good{separator}").replace("bad", f"bad{separator}")
    dataset = data.load(DataSpec(put(tmp_path, "t.csv", trailing)))
    assert (size(dataset), dataset.label_names) == (24, ("bad", "good"))


# --- one bad row ----------------------------------------------------------------------------

GOOD = [json.dumps({"text": t, "label": k}).encode() for t, k in ROWS]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("r.jsonl", b'{"text": "half \\ud83d", "label": "good"}'),
        ("r.jsonl", b'{"text": "half", "label": "\\ud83d"}'),
        ("r.jsonl", b'{"text": "cut", "lab'),
        ("r.jsonl", b'["text", "label"]'),
        ("r.jsonl", b'{"text": 5, "label": "good"}'),
        ("r.jsonl", b'{"text": "list", "label": ["good"]}'),
        ("r.jsonl", b'{"text": "byte \xff", "label": "good"}'),
        ("r.jsonl", b'{"text": "nul \x00", "label": "good"}'),
        ("r.csv", b"nul \x00,good"),
        ("r.csv", b"byte \xff,good"),
        ("r.csv", b"one,two,three"),
        ("r.csv", b"text,label"),
        ("r.csv", b",good"),
        ("r.csv", b"no label,"),
    ],
)
def test_one_bad_row_is_refused_or_dropped_and_counted(tmp_path, name, bad):
    good = GOOD if name == "r.jsonl" else csv_of(ROWS).encode().splitlines()
    path = put(tmp_path, name, b"\n".join([*good[:9], bad, *good[9:]]))
    refused(path)
    dataset = data.load(DataSpec(path, on_bad_rows="drop"))
    assert size(dataset) == 24
    assert any("1 row" in n and "line 10" in n for n in dataset.notes)


def test_bytes_that_are_no_text_are_dropped_from_parquet(tmp_path):
    texts = pa.array([t.encode() for t, _ in ROWS] + [b"byte \xff"], pa.binary())
    broken = pa.table(
        {"text": texts.cast(pa.string(), safe=False), "label": ["good", "bad"] * 12 + ["bad"]}
    )
    pq.write_table(broken, tmp_path / "r.parquet")
    assert "not UTF-8" in refused(str(tmp_path / "r.parquet"))
    dataset = data.load(DataSpec(str(tmp_path / "r.parquet"), on_bad_rows="drop"))
    assert size(dataset) == 24


def test_an_encoding_that_is_wrong_is_no_bad_row(tmp_path):
    path = put(tmp_path, "r.csv", csv_of([(f"schöner {t}", k) for t, k in ROWS]).encode("cp1252"))
    assert "--encoding" in refused(path, on_bad_rows="drop")


# --- bounds ---------------------------------------------------------------------------------


def test_what_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tunelab.data.limits._UNPACKED", 1 << 20)
    bomb = gzip.compress(b"text,label\n" + b"a,b\n" * (1 << 20))
    assert "times its size" in refused(put(tmp_path, "r.csv.gz", bomb))
    small = gzip.compress(csv_of(ROWS).encode())
    assert size(data.load(DataSpec(put(tmp_path, "s.csv.gz", small)))) == 24


def test_a_value_that_a_small_file_repeats_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("tunelab.data.columnar.LARGEST_VALUE", 1 << 16)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 24, pa.int32()), ["a" * (1 << 17)])
    pq.write_table(pa.table({"text": long, "label": table()["label"]}), tmp_path / "r.parquet")
    assert "expected at most" in refused(str(tmp_path / "r.parquet"))


def test_columns_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("tunelab.data.limits.MOST_COLUMNS", 3)
    path = put(tmp_path, "r.csv", csv_of([(*r, 1, 2) for r in ROWS], "text", "label", "a", "b"))
    assert "4 columns, expected at most 3" in refused(path)
