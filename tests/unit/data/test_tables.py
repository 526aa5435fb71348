"""Files of rows: what users' files hold, what is refused, and that writing loses nothing."""

from __future__ import annotations

import csv
import gc
import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab.core.cells import safe_cell
from tunelab.core.errors import DataError
from tunelab.data import decode, open_texts, read_texts, texts, write_table
from tunelab.data.columns import choose_columns
from tunelab.data.formats import read_file
from tunelab.data.table import ReadOptions, table_of_columns
from tunelab.data.write import write_windows
from workbooks import workbook

FORMATS = ["csv", "tsv", "jsonl", "parquet"]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path: Path, encoding: str = "utf-8", drop: bool = False) -> dict[str, list[object]]:
    table = read_file(path, ReadOptions(encoding, drop))
    return {c: table.get(c) for c in table.columns}


def refusal(path: Path, encoding: str = "utf-8") -> str:
    with pytest.raises(DataError) as caught:
        read(path, encoding)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message or "encoding" in message
    return message


# --- reading --------------------------------------------------------------------------------


def test_csv_keeps_texts_exactly_and_counts_lines_as_an_editor_does(tmp_path):
    content = 'text,label\r\n"a\r\nb, ""c""",pos\r\n  é🙂\u202e ,neg\r\n\r\nlast,pos'
    table = read_file(put(tmp_path, "r.csv", content), ReadOptions())
    assert table.get("text") == ['a\r\nb, "c"', "  é🙂\u202e ", "last"]
    assert table.get("label") == ["pos", "neg", "pos"]
    assert list(table.numbers) == [2, 4, 6]


def test_csv_agrees_with_pandas(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(
        {"text": ['say "hi"', "a,b", "x\ny", " pad ", "NA", "5"], "label": list("aabbab")}
    )
    frame.to_csv(tmp_path / "p.csv", index=False)
    assert read(tmp_path / "p.csv") == frame.to_dict("list")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with BOM"])
def test_a_utf8_mark_is_not_part_of_the_first_column_name(tmp_path, mark):
    path = put(tmp_path, "b.csv", mark + "text,label\nschön,a\n".encode())
    assert read(path) == {"text": ["schön"], "label": ["a"]}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_are_read_when_named(tmp_path, encoding):
    path = put(tmp_path, "e.csv", "text,label\nschön café,a\n".encode(encoding))
    assert read(path, encoding)["text"] == ["schön café"]


@pytest.mark.parametrize(("separator", "shown"), [(";", "';'"), ("\t", "tab")])
def test_another_separator_is_noticed_and_said(tmp_path, separator, shown):
    path = put(tmp_path, "s.csv", f"text{separator}label\ngood, really{separator}1\n")
    table = read_file(path, ReadOptions())
    assert table.get("text") == ["good, really"]
    assert any(shown in note for note in table.notes)


def test_pandas_index_column_gets_a_name(tmp_path):
    assert list(read(put(tmp_path, "i.csv", ",text,label\n0,a,b\n"))) == [
        "Unnamed: 0",
        "text",
        "label",
    ]


def test_a_field_larger_than_the_csv_modules_limit_is_read_and_the_limit_put_back(tmp_path):
    before = csv.field_size_limit()
    long = "word " * 60_000
    assert read(put(tmp_path, "l.csv", f"text,label\n{long},a\n"))["text"] == [long]
    assert csv.field_size_limit() == before


def zstandard(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.csv.zst", "a.jsonl.zst"])
def test_what_is_packed_is_looked_through(tmp_path, name):
    plain = "text,label\nfine,a\n" if "csv" in name else '{"text": "fine", "label": "a"}\n'
    pack = gzip.compress if name.endswith("gz") else zstandard
    path = put(tmp_path, name, pack(plain.encode()))
    assert read(path) == {"text": ["fine"], "label": ["a"]}
    assert read_file(path, ReadOptions()).stem == "a"


def test_the_first_sheet_of_a_workbook_is_read_as_excel_counts(tmp_path):
    rows = [["text", "label", None], ["fine", 3, "x"], [None, None, None], ["bad & <odd>", 1.5]]
    path = put(tmp_path, "a.xlsx", workbook({"none": [], "here": rows, "more": [["b"], [1]]}))
    table = read_file(path, ReadOptions())
    assert table.notes == ("a.xlsx: read is its sheet 'here', not 'more'",)
    assert (list(table.numbers), table.unit, table.stem) == ([2, 4], "row", "a")
    expected = {"text": ["fine", "bad & <odd>"], "label": [3.0, 1.5], "column 3": ["x", None]}
    assert {c: table.get(c) for c in table.columns} == expected
    windows = list(open_texts(path).windows(1))
    assert [w.texts for w in windows] == [["fine"], ["bad & <odd>"]]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
def test_json_lines_and_a_list_of_objects(tmp_path, name):
    rows = [{"text": "a\u2028b\u0085c", "label": 1}, {"text": "d", "extra": None}]
    expected = {"text": ["a\u2028b\u0085c", "d"], "label": [1, None], "extra": [None, None]}
    lines = "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    assert read(put(tmp_path, name, lines)) == expected
    assert read(put(tmp_path, name, json.dumps(rows, indent=1))) == expected
    put(tmp_path, name, lines)
    assert list(read_file(tmp_path / name, ReadOptions()).numbers) == [1, 3]


def test_parquet_gives_class_names_as_datasets_writes_them(tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    rows.to_parquet(tmp_path / "h.parquet")
    table = read_file(tmp_path / "h.parquet", ReadOptions())
    assert table.class_names == {"label": ("z", "a")}
    assert table.get("label") == [1, 0]


def test_parquet_dictionary_columns_give_their_values(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"text": ["x", "y"], "label": pd.Categorical(["b", "a"])})
    frame.to_parquet(tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet")["label"] == ["b", "a"]


# --- refusing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", b"", ["empty"]),
        ("e.jsonl", b" \n\n", ["empty"]),
        ("e.parquet", b"", ["empty"]),
        ("e.json", b"[]", ["empty list"]),
        ("h.csv", b"text,label\n", ["header", "no rows", "'text'"]),
        ("h.csv", b"text,label", ["no rows"]),
        (
            "u.csv",
            b"text,label\nok,a\nsch\xf6n,b\n",
            ["line 3", "19", "0xf6", "--encoding cp1252"],
        ),
        ("u.csv", b"text,label\nok,a\nsch\xf6n\x81,b\n", ["--encoding latin-1"]),
        ("s.csv", b"sep=;\r\n", ["no header"]),
        ("j.json", b'{"text": ["a"], "label": ["b"]}', ["one object of", "orient='records'"]),
        ("j.json", b'{"a": [{"text": "a"}], "b": [{"text": "b"}]}', ["under 'a', 'b'"]),
        ("w.csv", "text,label\nok,a\n".encode("utf-16"), ["UTF-16", "--encoding utf-16"]),
        ("w.csv", "text,label\nok,a\n".encode("utf-32"), ["UTF-32", "--encoding utf-32"]),
        ("n.csv", b"text,label\nok,a\nb\0d,b\n", ["NUL", "line 3"]),
        (
            "r.csv",
            b"text,label\nok,a\none, two,b\nx\n",
            ["line 3", "3 fields", "expected 2", "1 more"],
        ),
        ("r.tsv", b"text\tlabel\nok\n", ["line 2", "1 fields", "tab"]),
        ("q.csv", b'text,label\nok,a\n"never closed,b\nmore,a\n', ["line 3", "never closed"]),
        ("q.csv", b'text,label\n"a" b,c\n', ["line 2", "separator was expected"]),
        ("d.csv", b"text,label,text\na,b,c\n", ["'text'", "more than once"]),
        ("j.jsonl", b'{"text": "a"}\n{"text": \n', ["line 2", "not JSON"]),
        ("j.jsonl", b'{"text": "a"}\n["a"]\n', ["line 2", "lists", "an object"]),
        ("j.json", b'[{"text": "a"}, 3]', ["row 2", "numbers"]),
        ("j.json", b'[{"text": "a"},\n {"text"]', ["line 2", "not JSON"]),
        ("j.json", b"[" * 100_000, ["cannot be read as JSON"]),
        ("p.parquet", b"PAR1 this is not one", ["cannot be read as Parquet"]),
        ("z.csv.gz", b"text,label\n", ["gzip"]),
        ("z.csv.gz", gzip.compress(b"text,label\nok,a\n" * 50, mtime=0)[:40], ["gzip"]),
        ("z.csv.zst", b"text,label\n", ["Zstandard"]),
        ("z.csv.zst", zstandard(b"text,label\nok,a\n" * 50)[:20], ["Zstandard"]),
        ("x.xlsx", b"PK", ["Excel", "CSV"]),
        ("x.xlsx", workbook({"one": [["text"]]})[:-9], ["Excel", "CSV"]),
        ("x.xlsx", workbook({"one": []}), ["empty"]),
        ("x.xlsx", workbook({"one": [["text", "label"]]}), ["'text', 'label'", "no rows"]),
        ("x.xlsx", workbook({"one": [["a", "a"], [1, 2]]}), ["'a'", "more than once"]),
        ("x.xls", b"\xd0\xcf\x11\xe0", ["'.xls'", ".csv", ".xlsx"]),
        ("x", b"text", ["no ending", ".csv"]),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, words):
    message = refusal(put(tmp_path, name, content))
    for word in words:
        assert word in message


def test_the_byte_offset_is_the_one_of_the_bad_byte(tmp_path):
    content = b"text,label\nok,a\nsch\xf6n,b\n"
    message = refusal(put(tmp_path, "u.csv", content))
    assert f"byte offset {content.index(0xF6)} " in message


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Bardzo dobry film, świetna gra aktorów i żal, że się skończył.", "cp1250"),
        ("Это очень хороший фильм, и мы смотрели его всей семьёй.", "cp1251"),  # noqa: RUF001
        ("Η ταινία ήταν πολύ μεγάλη αλλά η μουσική μου άρεσε πολύ.", "cp1253"),  # noqa: RUF001
        ("Der Film war schön, aber die Plätze äußerst unbequem.", "cp1252"),
    ],
)
def test_the_encoding_that_is_proposed_reads_the_file(tmp_path, text, encoding):
    path = put(tmp_path, "e.csv", f"text,label\n{text.replace(',', ' ')},a\n".encode(encoding))
    assert f"--encoding {encoding}" in refusal(path)
    assert read(path, encoding)["text"] == [text.replace(",", " ")]


@pytest.mark.parametrize("encoding", ["utf-99", "rot13"])
def test_an_unknown_encoding_names_common_ones(tmp_path, encoding):
    message = refusal(put(tmp_path, "u.csv", "text,label\na,b\n"), encoding)
    assert encoding in message
    assert "latin-1" in message


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_line_that_excel_writes_above_the_header_names_the_separator(tmp_path, first):
    path = put(tmp_path, "x.csv", f"{first}\r\ntext, or so;label\r\na, b;good\r\nc;bad\r\n")
    table = read_file(path, ReadOptions())
    assert table.columns == ("text, or so", "label")
    assert table.get("label") == ["good", "bad"]
    assert list(table.numbers) == [3, 4]
    assert any("';'" in note for note in table.notes)


def test_ragged_rows_can_be_dropped_and_are_counted(tmp_path):
    path = put(tmp_path, "r.csv", "text,label\nok,a\none, two,b\nfine,b\nx\n")
    table = read_file(path, ReadOptions(drop_ragged=True))
    assert table.get("text") == ["ok", "fine"]
    assert list(table.numbers) == [2, 4]
    assert any("2 rows" in note and "lines 3, 5" in note for note in table.notes)


def test_an_empty_parquet_table_has_no_rows(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "e.parquet")
    assert "no rows" in refusal(tmp_path / "e.parquet")


# --- columns --------------------------------------------------------------------------------


def chosen(columns: dict[str, list[object]], text=None, label=None) -> tuple[str, str]:
    table = table_of_columns("f.csv", "f", columns, range(1, 10_000), "line")
    return choose_columns(table, text, label)[:2]


LONG = [f"this is a text about thing number {i}" for i in range(8)]
FEW: list[object] = ["a", "b"] * 4
IDS: list[object] = list(range(8))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["text", "label"], ("text", "label")),
        (["Review", "Sentiment"], ("Review", "Sentiment")),
        (["SENTENCE", "Target"], ("SENTENCE", "Target")),
        (["content", "class"], ("content", "class")),
        (["review text", "Class Index"], ("review text", "Class Index")),
        (["body of mail", "kind of mail"], ("body of mail", "kind of mail")),
    ],
)
def test_columns_are_guessed_by_name_and_else_by_content(names, expected):
    assert chosen({"id": IDS, names[1]: FEW, names[0]: LONG}) == expected


def test_the_plain_name_wins_over_the_others():
    assert chosen({"review": LONG, "text": LONG, "class": FEW, "label": FEW}) == ("text", "label")


def test_one_named_column_leaves_the_other_to_be_guessed():
    assert chosen({"review": LONG, "content": LONG, "label": FEW}, text="content") == (
        "content",
        "label",
    )


@pytest.mark.parametrize(
    ("columns", "flag"),
    [
        ({"review": LONG, "content": LONG, "label": FEW}, "--text-column"),
        ({"x": LONG, "y": LONG, "label": FEW}, "--text-column"),
        ({"text": LONG, "a": FEW, "b": FEW}, "--label-column"),
        ({"text": LONG, "id": IDS}, "--label-column"),
        ({"text": LONG, "class": FEW, "target": FEW}, "--label-column"),
    ],
)
def test_ambiguous_columns_are_listed_with_the_flag(columns, flag):
    with pytest.raises(DataError) as caught:
        chosen(columns)
    assert flag in str(caught.value)
    for name in columns:
        assert repr(name) in str(caught.value)


def test_an_unknown_column_gets_the_nearest_name():
    with pytest.raises(DataError, match=r"'lable'.*--label-column.*Did you mean 'label'"):
        chosen({"text": LONG, "label": FEW}, label="lable")


def test_the_same_column_twice_is_refused():
    with pytest.raises(DataError, match="both 'text'"):
        chosen({"text": LONG, "label": FEW}, text="text", label="text")


def test_a_file_without_a_header_is_noticed():
    with pytest.raises(DataError, match="looks like a row"):
        chosen({"what a good film": LONG, "a": FEW})


# --- unlabelled files -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_read_texts_gives_back_the_whole_table(tmp_path, suffix):
    columns = {"id": ["1", "2", "3"], "review": ["fine", "", " "], "when": ["x", "y", "z"]}
    write_table(tmp_path / f"t.{suffix}", columns)
    table = read_texts(tmp_path / f"t.{suffix}")
    assert (table.columns, table.text_column) == (columns, "review")
    assert (table.texts, table.blank) == (["fine", "", ""], 2)


def test_read_texts_of_plain_lines_keeps_every_line(tmp_path):
    table = read_texts(put(tmp_path, "t.txt", "one\u2028still one\r\n\nthree\n"))
    assert (table.texts, table.blank) == (["one\u2028still one", "", "three"], 1)
    assert table.text_column == "text"


def test_read_texts_of_one_column_keeps_empty_lines_between_rows(tmp_path):
    table = read_texts(put(tmp_path, "t.csv", "anything\na\n\nb\n\n"))
    assert table.texts == ["a", "", "b"]


def test_read_texts_takes_a_null_as_blank_and_refuses_numbers(tmp_path):
    path = put(tmp_path, "t.jsonl", '{"text": null}\n{"text": "a"}\n{"other": 1}\n')
    assert read_texts(path).texts == ["", "a", ""]
    with pytest.raises(DataError, match=r"'text' holds numbers \(line 2: 5\)"):
        read_texts(put(tmp_path, "n.jsonl", '{"text": "a"}\n{"text": 5}\n'))


def test_read_texts_refuses_what_it_cannot_decide(tmp_path):
    put(tmp_path, "texts.csv", "text\na\n")
    with pytest.raises(DataError, match=r"no such file.*Did you mean .*texts\.csv"):
        read_texts(tmp_path / "text.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_texts(tmp_path)
    with pytest.raises(DataError, match=r"'reviw'.*Did you mean 'review'"):
        read_texts(put(tmp_path, "a.csv", "review,b\na,b\n"), "reviw")
    with pytest.raises(DataError, match="--text-column"):
        read_texts(put(tmp_path, "b.csv", "a,b\n1,2\n"))


# --- writing --------------------------------------------------------------------------------

# What UTF-8 can say, without NUL, which no text file may hold.
NASTY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
SPIKED = st.one_of(
    NASTY,
    st.sampled_from(
        [
            '"',
            '""',
            ",",
            "\t",
            "\r",
            "\n",
            "\r\n",
            "\u2028",
            "\x85",
            "\ufeff",
            "null",
            "NaN",
            "=1+1",
            "\\",
        ]
    ),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(SPIKED, SPIKED), min_size=1, max_size=8))
@pytest.mark.parametrize("suffix", FORMATS)
def test_nasty_strings_come_back_from_every_format(tmp_path, suffix, rows):
    columns = {"text": [a for a, _ in rows], "label": [b for _, b in rows]}
    path = tmp_path / f"n.{suffix}"
    write_table(path, columns)
    if suffix in ("csv", "tsv"):  # no formulas: tests/unit/core/test_cells.py takes them back
        columns = {c: [str(safe_cell(v)) for v in values] for c, values in columns.items()}
    assert read(path) == columns


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_values_other_than_strings_come_back_from_typed_formats(tmp_path, suffix):
    columns = {"text": ["a", None], "score": [0.25, 1.0], "n": [1, 2], "ok": [True, False]}
    write_table(tmp_path / f"v.{suffix}", columns)
    assert read(tmp_path / f"v.{suffix}") == columns


def test_csv_writes_none_as_nothing(tmp_path):
    write_table(tmp_path / "v.csv", {"text": ["a", None], "score": [0.25, 1]})
    assert (tmp_path / "v.csv").read_bytes() == b"text,score\na,0.25\n,1\n"


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "v.parquet"
    write_table(path, {"text": ["a"]})
    before = path.read_bytes()
    with pytest.raises(DataError, match="Parquet"):
        write_table(path, {"text": ["a", object()]})
    with pytest.raises(DataError, match="different lengths"):
        write_table(path, {"text": ["a"], "b": []})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.parquet"]


def test_only_known_endings_are_written(tmp_path):
    with pytest.raises(DataError, match=r"'\.xlsx'.*\.csv"):
        write_table(tmp_path / "v.xlsx", {"text": ["a"]})
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_table(tmp_path / "file" / "v.csv", {"text": ["a"]})


# --- in windows -----------------------------------------------------------------------------

ODD = [
    "plain words",
    "",
    "  ",
    'a "quote", and a comma',
    "two\nlines",
    "a lone\rreturn",
    "naïve \u2028 é",
]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("suffix", FORMATS)
def test_windows_hold_the_rows_of_the_whole(tmp_path, suffix, size):
    columns = {"text": ODD * 3, "n": [str(i) for i in range(21)]}
    write_table(tmp_path / f"t.{suffix}", columns)
    whole = read_texts(tmp_path / f"t.{suffix}")
    file = open_texts(tmp_path / f"t.{suffix}")
    windows = list(file.windows(size))
    assert (file.rows, file.blank, file.columns) == (21, 6, ("text", "n"))
    assert [len(w.texts) for w in windows] == [size] * (21 // size) + [21 % size] * (21 % size > 0)
    assert [t for w in windows for t in w.texts] == whole.texts
    for c, values in columns.items():
        assert [v for w in windows for v in w.columns[c]] == whole.columns[c] == values
    again = tmp_path / f"again.{suffix}"
    write_windows(again, (w.columns for w in windows), lambda: (w.columns for w in windows))
    if suffix == "parquet":
        assert read(again) == columns
    else:
        assert again.read_bytes() == (tmp_path / f"t.{suffix}").read_bytes()


def test_windows_of_json_lines_have_the_columns_of_all(tmp_path):
    path = put(
        tmp_path, "r.jsonl", '{"text": "a"}\n\n{"text": "b", "n": 1}\n{"text": "c", "n": 0.5}\n'
    )
    windows = [w.columns for w in open_texts(path).windows(1)]
    assert windows == [{"text": ["a"], "n": [None]}, {"text": ["b"], "n": [1]},
                       {"text": ["c"], "n": [0.5]}]  # fmt: skip
    out = tmp_path / "o.parquet"
    write_windows(out, windows, lambda: windows)  # types: of all windows, not of the first
    assert read(out) == {"text": ["a", "b", "c"], "n": [None, 1.0, 0.5]}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("r.csv", "text,n\n" + "a b,1\n" * 50 + "a b,1,2\n", "line 52 has 3 fields"),
        ("r.csv", "text,n\n" + "a b,1\n" * 50 + '"open,1\n', "begins in line 52"),
        ("r.jsonl", '{"text": "a"}\n' * 50 + "{\n", "line 51 is not JSON"),
        ("r.jsonl", '{"text": "a"}\n' * 50 + "5\n", "line 51 holds numbers"),
        ("r.jsonl", '{"text": "a"}\n' * 50 + '{"text": 5}\n', "line 51: 5"),
        ("r.txt", "a\n" * 50 + "\0\n", "NUL byte in line 51"),
    ],
)
def test_a_fault_in_the_last_window_is_found_before_the_first_is_given(
    tmp_path, monkeypatch, name, content, match
):
    monkeypatch.setattr(texts, "WINDOW_ROWS", 4)
    monkeypatch.setattr(decode, "CHUNK_BYTES", 16)
    with pytest.raises(DataError, match=match):
        open_texts(put(tmp_path, name, content))


@pytest.mark.parametrize("before", ["", "\ufeff"])
def test_bytes_that_are_no_text_are_found_where_they_stand(tmp_path, monkeypatch, before):
    good = (before + "text\n" + "é\n" * 20).encode()
    (tmp_path / "r.csv").write_bytes(good + b"\xe9\n")
    for chunk in (1 << 20, 7, 8):  # within a character, and between two
        monkeypatch.setattr(decode, "CHUNK_BYTES", chunk)
        with pytest.raises(DataError, match=rf"line 22, byte offset {len(good)} \(0xe9\)"):
            open_texts(tmp_path / "r.csv")


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(texts, "WINDOW_ROWS", 64)
    monkeypatch.setattr(decode, "CHUNK_BYTES", 4096)

    def peak(rows: int) -> int:
        source, out = tmp_path / f"{rows}.{suffix}", tmp_path / f"out.{suffix}"
        write_table(source, {"text": [f"{i} words " * 20 for i in range(rows)]})
        gc.collect()
        tracemalloc.start()
        try:
            file = open_texts(source)
            each = (w.columns for w in file.windows(64))
            write_windows(out, each, lambda: (w.columns for w in file.windows(64)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(64)  # what is imported and kept on the way
    few, many = peak(512), peak(4096)
    assert many < 1.25 * few
    assert many < 4096 * 160  # less than the texts alone


@pytest.mark.parametrize("parity", [0, 1])
def test_the_encoding_of_a_large_file_is_told_whatever_its_parity(tmp_path: Path, parity: int):
    """A chunk of a file may end within a character: it is judged by its whole lines."""
    said = "\u8fd9\u90e8\u7535\u5f71\u5f88\u597d\u770b\u3002\u6211\u4eec\u559c\u6b22\u3002"
    line = f"{said},good\n".encode("gb18030")
    head = b"text,label\n" + b"x" * parity + b",good\n"
    file = tmp_path / "large.csv"
    file.write_bytes(head + line * (1_300_000 // len(line)))
    with pytest.raises(DataError, match="--encoding gb18030"):
        read_texts(file)
