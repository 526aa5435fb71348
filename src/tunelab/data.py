"""Sources of labelled texts -> Dataset: read, validate, split, count duplicates.

Knows no tokenizer and no model. May import: types, errors, tables, duplicates, numpy and the
standard library; datasets inside the functions that need it. May not import: torch, transformers,
any other part of tunelab.

Main path: `load` -> `SOURCES[kind](spec)` gives parts made of tables -> columns -> rows ->
label names -> parts -> subset. Whoever adds a source writes a function `DataSpec -> Source` and a
row in SOURCES.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import duplicates
from tunelab.errors import DataError, suggest
from tunelab.tables import (
    FORMATS,
    ReadOptions,
    Table,
    TextTable,
    check_unicode,
    choose_columns,
    format_of,
    is_nan,
    kind_of,
    known_column,
    listed,
    look_alike,
    path_is,
    read_file,
    read_texts,
    rows_word,
    short,
    stem_of,
    table_of_columns,
    texts_of_column,
    write_table,
)
from tunelab.types import Dataset, DataSpec, Duplicates, Split

__all__ = [
    "SOURCES",
    "OtherData",
    "Source",
    "TextTable",
    "describe",
    "load",
    "load_other",
    "read_texts",
    "redivided",
    "smaller",
    "without_leaked_rows",
    "write_table",
]

HELD_OUT_PERCENT = 15
VALIDATION_LIMIT = 5_000
CLASS_LIMIT = 1_000
LONGEST_COLUMN = 200  # characters on average: a further column that is longer is not kept

# Short names that people know from papers, where the hub moved the data under an owner.
HUB_ALIASES = {
    "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes",
    "sst2": "stanfordnlp/sst2",
    "imdb": "stanfordnlp/imdb",
    "emotion": "dair-ai/emotion",
    "ag_news": "fancyzhx/ag_news",
    "yelp_polarity": "fancyzhx/yelp_polarity",
    "amazon_polarity": "fancyzhx/amazon_polarity",
    "dbpedia_14": "fancyzhx/dbpedia_14",
    "glue": "nyu-mll/glue",
    "tweet_eval": "cardiffnlp/tweet_eval",
    "trec": "CogComp/trec",
    "sms_spam": "ucirvine/sms_spam",
    "yelp_review_full": "Yelp/yelp_review_full",
}
HUB_ID = re.compile(
    r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@:]+))?(@(?P<revision>[^@:]+))?", re.ASCII
)
LOCAL_WITH_CONFIG = re.compile(r"(?P<id>.+):(?P<config>[^:@/\\]+)")

PART_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
SHARD = re.compile(r"(?P<part>.+?)-(?P<index>\d{5})-of-(?P<count>\d{5})")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
# What programs write for no value; a label of this name is mostly none.
MISSING_WORDS = frozenset(
    ("nan", "NaN", "NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None"),
)
WHOLE_FLOAT = re.compile(r"(?P<whole>[+-]?[0-9]+)\.0+")


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader found: parts by name, each of one or more tables.

    The parts are some of "train", "validation" and "test", or "all" alone: one part to be split.
    """

    name: str
    revision: str | None
    parts: Mapping[str, Sequence[Table]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows of one part: ids, texts, label names as read (None: no label), and other columns."""

    ids: list[str]
    texts: list[str]
    labels: list[str | None]
    columns: dict[str, list[Any]]


# --- the main path --------------------------------------------------------------------------


def load(spec: DataSpec) -> Dataset:
    """Read labelled texts, check them, and give train, validation and test parts.

    Texts and label names are kept exactly as they are. Label names that are all whole numbers are
    sorted as numbers, others as strings; a ClassLabel keeps its order. A missing test or
    validation part is split off, stratified, by `split_seed`; `subset` then takes rows of the
    train part alone, after `on_leak`. Everything decided for the user stands in `notes`. Row ids
    are `stem:number`, the number as a reader of the file counts it (lines of a text file, rows
    from 1 of others).

    Raises DataError, one line, for whatever cannot be used.
    """
    if spec.on_bad_rows not in ("fail", "drop"):
        raise DataError(f"on_bad_rows is {spec.on_bad_rows!r}, expected 'fail' or 'drop'.")
    if spec.on_leak not in ("warn", "drop", "fail"):
        raise DataError(f"on_leak is {spec.on_leak!r}, expected 'warn', 'drop' or 'fail'.")
    source = SOURCES[source_kind(spec.source)](spec)
    notes = list(source.notes)
    first = next(iter(source.parts.values()))[0]
    text_column, label_column, said = choose_columns(first, spec.text_column, spec.label_column)
    notes.append(said)

    parts = {}
    for part, tables in source.parts.items():
        parts[part] = rows_of_part(part, tables, (text_column, label_column), spec, notes)
    rows = without_unlabelled(source.name, parts, label_column, notes)
    declared = declared_names(source.parts, label_column)
    label_names, splits = encode_labels(source.name, rows, declared, label_column, notes)
    splits = three_parts(source.name, splits, label_names, spec.split_seed, notes)
    if spec.on_leak != "warn":
        splits["train"] = train_without_leaks(source.name, splits, len(label_names), spec, notes)
    splits["train"] = subset_of_train(splits["train"], label_names, spec, notes)
    return Dataset(
        name=source.name,
        revision=source.revision,
        label_names=label_names,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fingerprint=fingerprint_of(label_names, splits),
        text_column=text_column,
        label_column=label_column,
        notes=tuple(notes),
        duplicates=count_duplicates(splits),
    )


# --- sources --------------------------------------------------------------------------------


def source_kind(source: str) -> str:
    """Which row of SOURCES reads this. What exists on this disk wins over a hub id."""
    if not source.strip():
        raise DataError(
            "no data given: expected demo, a CSV / TSV / JSON / Parquet file, a folder with "
            "train, validation and test files, or a hub id."
        )
    if source == "demo" or source.startswith("demo:"):
        return "demo"
    if "://" in source:
        raise DataError(
            f"{short(source)!r} is an address; expected a file or folder on this machine, or a hub "
            "id such as owner/name. Download it and give the file."
        )
    path = Path(source).expanduser()
    if path_is(path, Path.is_dir):
        return "folder"
    if path_is(path, Path.exists):
        return "file"
    local = LOCAL_WITH_CONFIG.fullmatch(source)
    if local and path_is(Path(local["id"]).expanduser(), Path.is_dir):
        return "hub"
    if _looks_like_a_path(source) or not HUB_ID.fullmatch(source):
        raise DataError(_no_such_file(path, source))
    return "hub"


def _looks_like_a_path(source: str) -> bool:
    return (
        source.startswith((".", "~", "/"))
        or source.endswith("/")
        or "\\" in source
        or source.count("/") > 1
        or format_of(Path(source)) in {*FORMATS, ".txt"}
        or ("/" not in source and Path(source).suffix != "" and "@" not in source)
    )


def _no_such_file(path: Path, source: str) -> str:
    folder = path.parent
    if not path_is(folder, Path.is_dir):
        return f"no such file: {short(source)!r} (there is no folder {short(str(folder))!r})."
    return (
        f"no such file or folder: {short(source)!r}.{look_alike(path)} Expected demo, a CSV / "
        "TSV / JSON / Parquet file, a folder with train, validation and test files, or a hub id."
    )


def _read_demo(spec: DataSpec) -> Source:
    """The bundled reviews: two classes (stars 1-2 and 4-5), or five with `demo:stars`."""
    variants = ("demo", "demo:stars")
    if spec.source not in variants:
        hint = suggest(spec.source, variants, what="Demos")
        raise DataError(f"no such demo: {spec.source!r}.{hint}")
    two = spec.source == "demo"
    names = {"1": "negative", "2": "negative", "4": "positive", "5": "positive"}
    tables = []
    left_out = 0
    folder = resources.files("tunelab") / "demo"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".tsv"):
            continue
        # These files have neither header nor quoting, so they are split by hand.
        lines = file.read_bytes().decode("utf-8").rstrip("\n").split("\n")
        rows = [line.split("\t") for line in lines]
        kept = [i for i, row in enumerate(rows) if not two or row[0] in names]
        left_out += len(rows) - len(kept)
        columns: dict[str, list[Any]] = {
            "text": [rows[i][2] for i in kept],
            "label": [names[rows[i][0]] if two else rows[i][0] for i in kept],
            "phenomenon": [rows[i][1] for i in kept],
        }
        tables.append(
            table_of_columns(file.name, file.name[:-4], columns, [i + 1 for i in kept], "line")
        )
    about = "the bundled reviews: a demo and a test bed, not a benchmark"
    if two:
        about += f"; stars 1-2 negative, 4-5 positive, {left_out:,} rows with 3 stars left out"
    return Source(spec.source, None, {"all": tables}, (about,))


def _read_one_file(spec: DataSpec) -> Source:
    """One CSV, TSV, JSONL or Parquet file: one part, to be split."""
    path = Path(spec.source).expanduser()
    options = ReadOptions(spec.encoding, spec.on_bad_rows == "drop")
    return Source(path.name, None, {"all": [read_file(path, options)]})


def _read_folder(spec: DataSpec) -> Source:
    """A folder in the hub's layout: train, validation, test files, whole or in shards."""
    root = Path(spec.source).expanduser()
    name = root.resolve().name
    found = [_data_files(folder) for folder in (root, root / "data")]
    if not any(found):
        raise DataError(
            f"{name}: no data files in this folder. Expected train, validation and test files "
            f"({', '.join(FORMATS)}) in it or in its data/ folder."
        )
    # Where the root holds only strangers (metadata.json), the parts may lie in data/.
    named = [files for files in found if any(_part_of(f) for f in files)]
    files = next(iter(named or filter(None, found)))
    parts, others = _files_by_part(name, files)
    notes = []
    if not parts and len(others) == 1:
        notes.append(f"the folder holds one file, {others[0].name}: it is split")
        parts = {"all": others}
    elif "train" not in parts:
        raise DataError(
            f"{name}: no train file in this folder. Expected train.csv, train.parquet or the like; "
            f"found {listed([f.name for f in files])}. Rename one, or give one file itself."
        )
    elif others:
        notes.append(f"not used: {listed([f.name for f in others])}")
    drop = spec.on_bad_rows == "drop"
    tables: dict[str, list[Table]] = {
        part: [read_file(f, ReadOptions(spec.encoding, drop)) for f in parts[part]]
        for part in ("all", "train", "validation", "test")
        if part in parts
    }
    return Source(name, None, tables, tuple(notes))


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    hidden = (".", "_")
    try:
        return sorted(
            p
            for p in folder.iterdir()
            if p.is_file()
            and format_of(p) in FORMATS
            and not p.name.startswith(hidden)
            # The hub keeps these beside the data; they hold no rows.
            and p.name not in ("dataset_info.json", "dataset_infos.json", "config.json")
        )
    except OSError as error:
        raise DataError(f"{folder.name}: cannot be read: {error.strerror}.") from error


def _part_of(path: Path) -> str | None:
    shard = SHARD.fullmatch(stem_of(path))
    return PART_NAMES.get((shard["part"] if shard else stem_of(path)).lower())


def _files_by_part(name: str, files: Sequence[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Sort files into parts by their names; the rest are `others`."""
    groups: dict[str, dict[tuple[str, str], list[Path]]] = {}
    others = []
    for path in files:
        shard = SHARD.fullmatch(stem_of(path))
        part = _part_of(path)
        if part is None:
            others.append(path)
            continue
        base = shard["part"] if shard else stem_of(path)
        group = (base, f"{shard['count'] if shard else ''}{format_of(path)}")
        groups.setdefault(part, {}).setdefault(group, []).append(path)
    parts = {}
    for part, found in groups.items():
        if len(found) > 1:
            rivals = [paths[0].name for paths in found.values()]
            raise DataError(
                f"{name}: more than one {part} part: {listed(rivals)}. Keep one of them."
            )
        parts[part] = next(iter(found.values()))
        _check_shards(name, parts[part])
    return parts, others


def _check_shards(name: str, paths: Sequence[Path]) -> None:
    shard = SHARD.fullmatch(stem_of(paths[0]))
    if shard and len(paths) != int(shard["count"]):
        raise DataError(
            f"{name}: expected {int(shard['count'])} files {shard['part']}-*-of-{shard['count']}, "
            f"found {len(paths)}. Download the missing ones."
        )


def _read_hub(spec: DataSpec) -> Source:
    """A hub id (`owner/name:config@revision`), or a local folder with `:config`, by `datasets`."""
    import datasets

    local = LOCAL_WITH_CONFIG.fullmatch(spec.source)
    if local and Path(local["id"]).expanduser().is_dir():
        path, config, revision = str(Path(local["id"]).expanduser()), local["config"], None
        name = f"{Path(path).resolve().name}:{config}"
    else:
        found = HUB_ID.fullmatch(spec.source)
        if not found:
            raise DataError(f"{short(spec.source)!r} is not a hub id: expected owner/name.")
        path = HUB_ALIASES.get(found["id"], found["id"])
        config, revision = found["config"], found["revision"]
        name = f"{path}:{config}" if config else path
    try:
        loaded = datasets.load_dataset(path, config, revision=revision)
    except Exception as error:  # the hub, its cache and its file readers raise all kinds
        raise DataError(_no_such_hub_dataset(spec.source, path, error)) from error
    parts: dict[str, list[Table]] = {}
    notes = [f"{spec.source} is {path} on the hub"] if path not in spec.source else []
    for split, rows in loaded.items():
        part = PART_NAMES.get(str(split)) or ("all" if len(loaded) == 1 else None)
        if part is None or part in parts:
            notes.append(f"split {split!r} ({len(rows):,} rows) is not used")
        else:
            parts[part] = [_hub_table(name, str(split), rows)]
    if "train" not in parts and "all" not in parts:
        raise DataError(
            f"{name}: no train split; found {listed(list(loaded))}. Save the rows you want as a "
            "file and give that."
        )
    order = [p for p in ("all", "train", "validation", "test") if p in parts]
    resolved = revision or _resolved_revision(next(iter(loaded.values())))
    return Source(name, resolved, {p: parts[p] for p in order}, tuple(notes))


def _hub_table(name: str, split: str, rows: Any) -> Table:
    import datasets

    names = {
        column: tuple(feature.names)
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return Table(
        name=f"{name} {split}",
        stem=split,
        columns=tuple(rows.column_names),
        numbers=range(1, len(rows) + 1),
        unit="row",
        # The Arrow column itself: decoding row by row is a hundred times slower.
        get=lambda column: list(rows.data.column(column).to_pylist()),
        class_names=names,
    )


def _resolved_revision(rows: Any) -> str | None:
    """The commit that the hub served, where `datasets` recorded it."""
    for url in rows.info.download_checksums or {}:
        found = re.search(r"@([0-9a-f]{40})/", str(url))
        if found:
            return found[1]
    return None


def _no_such_hub_dataset(source: str, path: str, error: Exception) -> str:
    cause = short(" ".join(str(error).split()) or type(error).__name__, 300).rstrip(".")
    if isinstance(error, ValueError) and "onfig" in cause:
        return f"{source}: {cause}. Give one as {path}:CONFIG."
    return (
        f"no such file or folder, and no hub dataset {path!r} could be loaded: {cause}."
        f"{look_alike(Path(source))} Without a network (or with HF_HUB_OFFLINE=1) only datasets "
        "already in the cache load: give a local folder with train.parquet, validation.parquet "
        "and test.parquet instead."
    )


SOURCES: dict[str, Callable[[DataSpec], Source]] = {
    "demo": _read_demo,
    "file": _read_one_file,
    "folder": _read_folder,
    "hub": _read_hub,
}


# --- rows -----------------------------------------------------------------------------------


def rows_of_part(
    part: str,
    tables: Sequence[Table],
    columns: tuple[str, str],
    spec: DataSpec,
    notes: list[str],
) -> LabelledRows | None:
    """The checked rows of one part; None where no row of it has a label (a hub's test part)."""
    text_column, label_column = columns
    labels: list[list[str | None]] = []
    for table in tables:
        notes.extend(table.notes)
        if label_column in table.columns or part != "test":
            known_column(table, label_column, "--label-column")
            labels.append(label_keys(table, label_column))
        else:
            labels.append([None] * len(table.numbers))
    if all(key is None for keys in labels for key in keys):
        return None
    others = [c for t in tables for c in t.columns if c not in columns]
    out = LabelledRows([], [], [], {c: [] for c in others})
    for table, keys in zip(tables, labels, strict=True):
        known_column(table, text_column, "--text-column")
        texts = texts_of_column(table, text_column)
        kept, note = _usable(table, texts, keys, columns, drop=spec.on_bad_rows == "drop")
        notes.extend(note)
        out.ids.extend(f"{table.stem}:{table.numbers[i]}" for i in kept)
        out.texts.extend(texts[i] or "" for i in kept)
        out.labels.extend(keys[i] for i in kept)
        for column, values in out.columns.items():
            found = _plain_column(table, column) or [None] * len(texts)
            values.extend(found[i] for i in kept)
    for column in [c for c, values in out.columns.items() if all(v is None for v in values)]:
        del out.columns[column]
    return out


def _plain_column(table: Table, column: str) -> list[Any] | None:
    """A further column as plain values; None where it is absent, of lists or objects, or texts."""
    if column not in table.columns:
        return None
    names = table.class_names.get(column)
    values = [None if v == "" or is_nan(v) else v for v in table.get(column)]
    known = [v for v in values if v is not None]
    if not all(isinstance(v, str | int | float) for v in known):
        return None
    if sum(len(v) for v in known if isinstance(v, str)) > LONGEST_COLUMN * len(known):
        return None
    if names:
        return [names[v] if isinstance(v, int) and 0 <= v < len(names) else None for v in values]
    return values


def _all_numbers(texts: Iterable[str | None]) -> bool:
    return all(NUMBER.fullmatch(t.strip()) for t in texts if t and not t.isspace())


def label_keys(table: Table, column: str) -> list[str | None]:
    """Labels as names: ints "3", whole floats "3", bools "True", ClassLabel by name; None: none."""
    names = table.class_names.get(column)
    convert = _label_key if names is None else lambda v: _class_name(v, names)
    known: dict[tuple[type, Any], str | None] = {}  # by type: 1, 1.0 and True are equal keys
    keys = []
    for i, value in enumerate(table.get(column)):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = convert(value)
            keys.append(known[key])
        except (TypeError, ValueError) as error:
            cause = str(error) if isinstance(error, _NotAClassError) else kind_of(value)
            raise DataError(
                f"{table.name}: column {column!r} holds {cause} ({table.at(i)}: "
                f"{short(repr(value), 40)}), expected one class a row: a string, a whole number, "
                "or true / false. Choose another with --label-column."
            ) from error
    for name in known.values():
        if name is not None:
            check_unicode(name, f"{table.name}: column {column!r}")
    return keys


class _NotAClassError(ValueError):
    """A label that is no class; its message says what it is."""


_NOT_WHOLE = "numbers that are not whole (a regression target?)"


def _label_key(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()) or is_nan(value):
        return None
    if isinstance(value, str | bool | int):
        return str(value)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value) or value != int(value):
            raise _NotAClassError(_NOT_WHOLE)
        return str(int(value))
    raise TypeError


def _class_name(value: Any, names: tuple[str, ...]) -> str | None:
    if value is None or value == -1:
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    if value in names:
        return str(value)
    raise _NotAClassError(f"a value outside its {len(names)} class names")


def _usable(
    table: Table,
    texts: Sequence[str | None],
    keys: Sequence[str | None],
    columns: tuple[str, str],
    *,
    drop: bool,
) -> tuple[list[int], list[str]]:
    """Indices of the rows with a text and a label. Bad rows raise, or are dropped with a note."""
    if _all_numbers(texts) and any(texts):
        raise DataError(
            f"{table.name}: column {columns[0]!r} holds numbers only, expected texts. "
            "Choose another with --text-column."
        )
    no_text = [i for i, t in enumerate(texts) if not t or t.isspace()]
    no_label = [i for i, k in enumerate(keys) if k is None]
    faults = []
    for rows, what, column in ((no_text, "text", columns[0]), (no_label, "label", columns[1])):
        if rows:
            many = f"{rows_word(len(rows))} without {what} in column {column!r}"
            faults.append(f"{many} ({table.places(rows)})")
    if not faults:
        return list(range(len(texts))), []
    if not drop:
        raise DataError(
            f"{table.name}: {' and '.join(faults)}. Expected a text and a label in every row: "
            "fill them in, or add --on-bad-rows drop."
        )
    bad = {*no_text, *no_label}
    kept = [i for i in range(len(texts)) if i not in bad]
    return kept, [f"{table.name}: dropped {' and '.join(faults)}"]


def without_unlabelled(
    name: str, parts: Mapping[str, LabelledRows | None], label_column: str, notes: list[str]
) -> dict[str, LabelledRows]:
    """The labelled parts, as train, validation and test. What has no label is named, not scored."""
    train = parts.get("train", parts.get("all"))
    hidden = f"every label in column {label_column!r} is missing or -1"
    if train is None or set(train.labels) == {"-1"}:
        raise DataError(
            f"{name}: no labels to learn from: {hidden}. Expected a class for every row; "
            "choose another column with --label-column."
        )
    out = {"train": train}
    for part in ("validation", "test"):
        if part not in parts:
            continue
        rows = parts[part]
        # -1 hides the labels of a hub's test part, unless it is one of the classes.
        if rows is None or (set(rows.labels) == {"-1"} and "-1" not in train.labels):
            notes.append(f"the {part} part is unlabelled ({hidden}): not scored")
        else:
            out[part] = rows
    if "test" in parts and "test" not in out and "validation" in out:
        out["test"] = out.pop("validation")
        notes.append("the validation part serves as test; a new one is split off train")
    for part, rows in out.items():
        if not rows.ids:
            raise DataError(f"{name}: no rows left in the {part} part after dropping bad ones.")
    return out


# --- labels ---------------------------------------------------------------------------------


def declared_names(parts: Mapping[str, Sequence[Table]], column: str) -> tuple[str, ...]:
    """ClassLabel names of all tables, in order, each once."""
    return tuple(
        dict.fromkeys(
            name
            for tables in parts.values()
            for table in tables
            for name in table.class_names.get(column, ())
        )
    )


def encode_labels(
    name: str,
    parts: Mapping[str, LabelledRows],
    declared: tuple[str, ...],
    column: str,
    notes: list[str],
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Label names in order, and the parts with labels that index them."""
    counts = {
        part: Counter(k for k in rows.labels if k is not None) for part, rows in parts.items()
    }
    found = set().union(*counts.values())
    rename = {} if declared else _stripped(found, notes)
    if not declared:
        whole = _whole_numbers(name, column, {rename.get(k, k) for k in found})
        rename = {k: whole.get(rename.get(k, k), rename.get(k, k)) for k in found}
    counts = {p: _renamed(c, rename) for p, c in counts.items()}
    names = _ordered_names(set().union(*counts.values()), declared)
    for label in MISSING_WORDS.intersection(names).difference(declared):
        n = sum(c[label] for c in counts.values())
        notes.append(
            f"label {label!r} ({rows_word(n)}) looks like a missing value and is taken as a "
            "class: if it is none, leave such cells empty and add --on-bad-rows drop"
        )
    _refuse_unusable_classes(name, column, names, counts)
    unused = [n for n in declared if n not in names]
    if unused:
        notes.append(f"class names that no row has are left out: {listed(unused)}")
    alike = [g for g in _groups(names, lambda n: n.strip().casefold()) if len(g) > 1]
    if alike:
        notes.append(
            f"labels that differ only in case are kept apart: {listed(alike[0])}; if they are one, "
            "write them alike"
        )
    index = {n: i for i, n in enumerate(names)}
    splits = {}
    for part, rows in parts.items():
        codes = [index[rename.get(k, k)] for k in rows.labels if k is not None]
        splits[part] = Split(
            tuple(rows.ids),
            tuple(rows.texts),
            np.asarray(codes, dtype=np.int64),
            {c: tuple(values) for c, values in rows.columns.items()},
        )
    return names, splits


def _refuse_unusable_classes(
    name: str, column: str, names: Sequence[str], counts: Mapping[str, Counter[str]]
) -> None:
    """Raise DataError where classes are too many, too few, or not among the training rows."""
    if len(names) > CLASS_LIMIT:
        raise DataError(
            f"{name}: column {column!r} has {len(names):,} classes, expected at most "
            f"{CLASS_LIMIT:,}: almost surely the wrong column. Choose one with --label-column."
        )
    for part in ("validation", "test"):
        strange = [n for n in names if n in counts.get(part, {}) and n not in counts["train"]]
        if strange:
            raise DataError(
                f"{name}: label {listed(strange)} stands in the {part} part and never in train. "
                "Expected the same classes: correct the label, or add such rows to train."
            )
    if len(names) < 2:
        raise DataError(
            f"{name}: every row has the label {names[0]!r} (column {column!r}), expected at least "
            "two classes. Choose another column with --label-column, or add rows."
        )


def _renamed(counts: Counter[str], rename: Mapping[str, str]) -> Counter[str]:
    out: Counter[str] = Counter()
    for name, n in counts.items():
        out[rename.get(name, name)] += n
    return out


def _stripped(found: Iterable[str], notes: list[str]) -> dict[str, str]:
    """Renames "good " to "good" where both are there; a blank alone is part of a label's name."""
    groups = [sorted(g) for g in _groups(sorted(found), str.strip) if len(g) > 1]
    if groups:
        notes.append(
            f"labels that differ only in the blanks around them are one: {listed(groups[0])}"
        )
    return {n: n.strip() for g in groups for n in g}


def _whole_numbers(name: str, column: str, found: Iterable[str]) -> dict[str, str]:
    """Renames "1.0" to "1" where all labels are numbers. Raises where one is not whole."""
    found = list(found)
    if not all(NUMBER.fullmatch(k) for k in found):
        return {}
    rename = {}
    for key in found:
        whole = WHOLE_FLOAT.fullmatch(key)
        if whole:
            rename[key] = whole["whole"]
        elif "." in key:
            raise DataError(
                f"{name}: column {column!r} holds {_NOT_WHOLE}, such as {key}. Expected classes: "
                "whole numbers or names. Choose another with --label-column."
            )
    return rename


def _ordered_names(names: set[str], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Declared order first; the rest as numbers where all are numbers, else as strings."""
    rest = names - set(declared)
    numeric = all(NUMBER.fullmatch(n) for n in rest)
    later = sorted(rest, key=lambda n: (Decimal(n), n)) if numeric else sorted(rest)
    return (*(n for n in declared if n in names), *later)


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(key(name), []).append(name)
    return list(out.values())


# --- parts ----------------------------------------------------------------------------------


def three_parts(
    name: str,
    parts: Mapping[str, Split],
    label_names: Sequence[str],
    seed: int,
    notes: list[str],
) -> dict[str, Split]:
    """Train, validation and test; a missing one is split off the train part and said."""
    whole = parts["train"]
    missing = [part for part in ("test", "validation") if part not in parts]
    _enough_rows(name, whole, label_names, missing)
    out = dict(parts)
    rows = np.arange(len(whole))
    for part in missing:
        n = (len(whole) * HELD_OUT_PERCENT + 50) // 100
        if part == "validation":
            n = min(n, VALIDATION_LIMIT)
        order = rows[_stratified_order(whole.labels[rows], seed, part)]
        n = max(n, len(label_names))
        out[part] = _take_rows(whole, order[:n])
        rows = np.sort(order[n:])
        notes.append(
            f"no {part} part: {n:,} of {len(whole):,} rows split off for it "
            f"({n / len(whole):.0%}, stratified, split seed {seed})"
        )
    out["train"] = _take_rows(whole, rows)
    return {part: out[part] for part in ("train", "validation", "test")}


def _enough_rows(
    name: str, whole: Split, label_names: Sequence[str], missing: Sequence[str]
) -> None:
    need = 3 if missing else 2
    counts = np.bincount(whole.labels, minlength=len(label_names))
    few = [f"{label!r} ({n})" for label, n in zip(label_names, counts, strict=True) if n < need]
    if few:
        why = f"to split off {' and '.join(missing)}" if missing else "in train"
        shown = f"{', '.join(few[:5])}{f' and {len(few) - 5:,} more' if len(few) > 5 else ''}"
        classes = "a class has" if len(few) == 1 else f"{len(few):,} classes have"
        raise DataError(
            f"{name}: {classes} too few rows: {shown}; expected at least {need} of each {why}. "
            "Add rows, or leave the class out."
        )


def _stratified_order(labels: NDArray[np.int64], seed: int, purpose: str) -> NDArray[np.int64]:
    """An order of n rows such that every prefix of at least n_classes rows is stratified, (n,).

    Rows of a class are shuffled; the row of rank r among n_c stands at (r + 1/2) / n_c, the
    first of each class before all: Webster's apportionment, whose prefixes are nested, where
    quotas by largest remainder are not (the Alabama paradox). The shuffle sorts by BLAKE2 of seed
    and position: equal on every machine, process and NumPy.
    """
    shuffle = np.fromiter(
        (
            int.from_bytes(
                hashlib.blake2b(f"{seed}/{purpose}/{i}".encode(), digest_size=8).digest(), "big"
            )
            for i in range(len(labels))
        ),
        dtype=np.uint64,
        count=len(labels),
    )
    by_class = np.lexsort((shuffle, labels))
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    classes = labels[by_class]
    rank = np.arange(len(labels)) - starts[classes]
    share = (rank + 0.5) / sizes[classes]
    return np.asarray(by_class[np.lexsort((classes, share, rank > 0))], dtype=np.int64)


def _take_rows(split: Split, rows: NDArray[np.int64]) -> Split:
    """Some rows of a part, in the order of the source."""
    rows = np.sort(rows)
    return Split(
        ids=tuple(split.ids[i] for i in rows),
        texts=tuple(split.texts[i] for i in rows),
        labels=split.labels[rows],
        columns={c: tuple(values[i] for i in rows) for c, values in split.columns.items()},
    )


def train_without_leaks(
    name: str,
    parts: Mapping[str, Split],
    classes: int,
    spec: DataSpec,
    notes: list[str],
) -> Split:
    """The train part without rows whose text, or nearly, is in validation or test.

    Raises DataError where `on_leak` is "fail" and there are such rows, or where none of a class
    would be left.
    """
    train = parts["train"]
    held_out = [t for part in ("validation", "test") for t in parts[part].texts]
    found = duplicates.match(held_out, train.texts)
    leaked = found.found
    n = int(leaked.sum())
    if not n:
        return train
    what = f"{rows_word(n)} of the train part stand, or nearly, in validation or test too"
    if spec.on_leak == "fail":
        likest = np.argsort(-found.similarity, kind="stable")[: min(n, 5)]
        where = ", ".join(train.ids[i] for i in likest)
        raise DataError(
            f"{name}: {what} (such as {where}): what is measured there is partly memory. Remove "
            "them from train with --on-leak drop, or go on with --on-leak warn."
        )
    kept = _take_rows(train, np.flatnonzero(~leaked))
    counts = np.bincount(kept.labels, minlength=classes)
    if counts.min() < 2:
        raise DataError(
            f"{name}: {what}; without them a class has {counts.min()} rows in train, expected at "
            "least 2. Add rows, or go on with --on-leak warn."
        )
    notes.append(f"{what}: dropped from train (on_leak: drop)")
    return kept


def subset_of_train(
    train: Split, label_names: Sequence[str], spec: DataSpec, notes: list[str]
) -> Split:
    """`spec.subset` rows of the train part, stratified; a smaller subset lies in a larger one."""
    n = spec.subset
    if n is None:
        return train
    if n < len(label_names):
        raise DataError(
            f"--subset {n}: expected at least {len(label_names)}, one row for each class."
        )
    if n >= len(train):
        notes.append(f"subset {n:,}: the train part has {len(train):,} rows, all are used")
        return train
    notes.append(
        f"subset: {n:,} of {len(train):,} train rows (stratified, split seed {spec.split_seed})"
    )
    return _take_rows(train, _stratified_order(train.labels, spec.split_seed, "subset")[:n])


def redivided(dataset: Dataset, seed: int) -> Dataset:
    """The rows of train and validation divided anew, stratified, sizes as before; test stays.

    The seed alone decides, so every method of a study sees the same parts with the same seed. A
    class too rare for its share of a small train part has one row there all the same.
    """
    pool = _joined_splits(dataset.train, dataset.validation)
    order = _stratified_order(pool.labels, seed, "vary_split")
    n = len(dataset.validation)
    for c in np.setdiff1d(pool.labels, pool.labels[order[n:]]):
        mine = pool.labels[order]
        commonest = np.bincount(mine[n:]).argmax()
        here = np.flatnonzero(mine[:n] == c)[-1]
        there = n + np.flatnonzero(mine[n:] == commonest)[0]
        order[[here, there]] = order[[there, here]]
    return replace(
        dataset, train=_take_rows(pool, order[n:]), validation=_take_rows(pool, order[:n])
    )


def without_leaked_rows(dataset: Dataset) -> Dataset:
    """The same data without training rows whose text, or nearly, is in validation or test.

    `load` does that where `on_leak` is "drop"; rows that are divided anew need it again: texts that
    stood twice in train are torn apart, and validation's rows come into train.
    """
    held_out = (*dataset.validation.texts, *dataset.test.texts)
    leaked = duplicates.match(held_out, dataset.train.texts).found
    kept = _take_rows(dataset.train, np.flatnonzero(~leaked))
    if len(np.unique(kept.labels)) < len(dataset.label_names):
        raise DataError(
            f"{dataset.name}: {rows_word(int(leaked.sum()))} of train, divided anew, stand in "
            "validation or test too; without them a class has none left. Add rows, or go on with "
            "--on-leak warn."
        )
    return replace(dataset, train=kept)


def smaller(dataset: Dataset, rows: int, seed: int) -> Dataset:
    """The same data with `rows` training rows, stratified; those of fewer rows lie within.

    Raises DataError for fewer rows than classes.
    """
    if rows < len(dataset.label_names):
        raise DataError(
            f"--train-sizes {rows}: expected at least {len(dataset.label_names)}, one row for each "
            "class."
        )
    order = _stratified_order(dataset.train.labels, seed, "train_rows")
    return replace(dataset, train=_take_rows(dataset.train, order[:rows]))


def _joined_splits(a: Split, b: Split) -> Split:
    def column(split: Split, name: str) -> tuple[Any, ...]:
        return tuple(split.columns.get(name, (None,) * len(split)))

    return Split(
        (*a.ids, *b.ids),
        (*a.texts, *b.texts),
        np.concatenate([a.labels, b.labels]),
        {c: (*column(a, c), *column(b, c)) for c in (*a.columns, *b.columns)},
    )


@dataclass(frozen=True, slots=True, eq=False)
class OtherData:
    """Labelled rows from elsewhere, on which trained classifiers are scored.

    `split.labels` index the study's label names. `domains` (n,) names where each row comes from,
    where the data has a column `domain`. `in_train`: how many rows stand, or nearly, in the
    training part; None where that was not asked.
    """

    name: str
    split: Split
    domains: tuple[str, ...] | None
    fingerprint: str
    notes: tuple[str, ...]
    in_train: int | None = None


def load_other(spec: DataSpec, label_names: Sequence[str], train: Split | None = None) -> OtherData:
    """Read data to score on: its test part, else its validation part, else all of its rows.

    `train`: the training part, in which its rows are looked for. Raises DataError where a label is
    none of `label_names`.
    """
    source = SOURCES[source_kind(spec.source)](spec)
    first = next(iter(source.parts.values()))[0]
    text_column, label_column, said = choose_columns(first, spec.text_column, spec.label_column)
    notes = [*source.notes, said]
    for part in ("test", "validation", "all", "train"):
        tables = source.parts.get(part)
        rows = (
            rows_of_part(part, tables, (text_column, label_column), spec, notes) if tables else None
        )
        if tables and rows is not None and (set(rows.labels) != {"-1"} or "-1" in label_names):
            break
        if tables:
            notes.append(f"the {part} part is unlabelled: not scored")
    else:
        raise DataError(f"{source.name}: no labelled rows to score on.")
    notes.append(
        f"scored on {'all' if part == 'all' else f'the {part} part'}: {len(rows.ids):,} rows"
    )
    known = {name: i for i, name in enumerate(label_names)}
    keys = [str(k) for k in rows.labels]
    strange = sorted({k for k in keys if _known_label(k, known) not in known})
    if strange:
        raise DataError(
            f"--test-on {source.name}: label {listed(strange)} is none of the training data's: "
            f"{listed(list(label_names))}. Rename it, or leave its rows out."
        )
    labels = np.asarray([known[_known_label(k, known)] for k in keys], dtype=np.int64)
    columns = {c: tuple(values) for c, values in rows.columns.items()}
    split = Split(tuple(rows.ids), tuple(rows.texts), labels, columns)
    domains = tuple(str(d) for d in columns["domain"]) if "domain" in columns else None
    digest = fingerprint_of(label_names, {"train": split, "validation": split, "test": split})
    seen = None
    if train is not None:
        seen = int(duplicates.match(train.texts, split.texts).found.sum())
        if seen:
            stand = f"{seen:,} of them stand, or nearly, in train too"
            notes.append(f"{stand}: what is scored there is partly memory")
    return OtherData(source.name, split, domains, digest, tuple(notes), seen)


def _known_label(key: str, known: Mapping[str, int]) -> str:
    if key in known:
        return key
    whole = WHOLE_FLOAT.fullmatch(key)
    return whole["whole"] if whole else key.strip()


# --- what is known of the content -----------------------------------------------------------


def fingerprint_of(label_names: Sequence[str], parts: Mapping[str, Split]) -> str:
    """SHA-256 (hex) of label names and all rows. Each string goes in with its length before it."""
    digest = hashlib.sha256()

    def add(strings: Sequence[str]) -> None:
        digest.update(len(strings).to_bytes(8, "big"))
        for start in range(0, len(strings), 10_000):  # in pieces: memory stays small
            encoded = [s.encode("utf-8") for s in strings[start : start + 10_000]]
            digest.update(b"".join(len(b).to_bytes(8, "big") + b for b in encoded))

    add(label_names)
    for part in ("train", "validation", "test"):
        split = parts[part]
        add((part,))
        add(split.ids)
        add(split.texts)
        digest.update(split.labels.astype(">i8").tobytes())
    return digest.hexdigest()


def count_duplicates(parts: Mapping[str, Split]) -> Duplicates:
    """Count texts that are equal character for character."""
    texts = {part: set(split.texts) for part, split in parts.items()}
    within = {part: len(split) - len(texts[part]) for part, split in parts.items()}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    across = {f"{a}/{b}": sum(t in texts[a] for t in parts[b].texts) for a, b in pairs}
    label_of: dict[str, int] = {}
    conflicting = set()
    for split in parts.values():
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            if label_of.setdefault(text, label) != label:
                conflicting.add(text)
    return Duplicates(within=within, across=across, conflicting=len(conflicting))


def describe(dataset: Dataset) -> dict[str, Any]:
    """The data card: JSON-able facts for `inspect data`, the report and data.json.

    `sizes` {part: n}; `label_counts` {part: {name: n}}; `words` (split at white space) and
    `characters` {part: {min, p5, p50, p95, max, mean}}; `duplicates` {within, across, conflicting,
    total, examples}, an example being {text, rows: [{part, id, label}]} (five rows at most);
    `samples` {label: the first three texts of train}. Texts are cut at 200 characters.
    """
    names = dataset.label_names
    duplicates = dataset.duplicates
    return {
        "name": dataset.name,
        "revision": dataset.revision,
        "fingerprint": dataset.fingerprint,
        "text_column": dataset.text_column,
        "label_column": dataset.label_column,
        "label_names": list(names),
        "sizes": {part: len(split) for part, split in dataset.parts.items()},
        "label_counts": {
            part: dict(
                zip(names, np.bincount(split.labels, minlength=len(names)).tolist(), strict=True)
            )
            for part, split in dataset.parts.items()
        },
        "words": {
            p: _length_figures([len(t.split()) for t in s.texts]) for p, s in dataset.parts.items()
        },
        "characters": {
            p: _length_figures([len(t) for t in s.texts]) for p, s in dataset.parts.items()
        },
        "duplicates": {
            "within": dict(duplicates.within),
            "across": dict(duplicates.across),
            "conflicting": duplicates.conflicting,
            "total": duplicates.total,
            "examples": _duplicate_examples(dataset),
        },
        "samples": {name: _sample_texts(dataset.train, i) for i, name in enumerate(names)},
        "notes": list(dataset.notes),
    }


def _length_figures(lengths: Sequence[int]) -> dict[str, float]:
    values = np.asarray(lengths, dtype=np.float64)
    p5, p50, p95 = (float(v) for v in np.percentile(values, [5, 50, 95]))
    return {
        "min": int(values.min()),
        "p5": p5,
        "p50": p50,
        "p95": p95,
        "max": int(values.max()),
        "mean": float(values.mean()),
    }


def _duplicate_examples(dataset: Dataset) -> list[dict[str, Any]]:
    counts = Counter(t for split in dataset.parts.values() for t in split.texts)
    # Shortest first: they are read at a glance. Ties by text, so that the card is always the same.
    repeated = sorted((t for t, n in counts.items() if n > 1), key=lambda t: (len(t), t))[:5]
    rows: dict[str, list[dict[str, str]]] = {t: [] for t in repeated}
    for part, split in dataset.parts.items():
        for i, text in enumerate(split.texts):
            if text in rows and len(rows[text]) < 5:
                label = dataset.label_names[int(split.labels[i])]
                rows[text].append({"part": part, "id": split.ids[i], "label": label})
    return [{"text": short(text), "rows": found} for text, found in rows.items()]


def _sample_texts(split: Split, label: int) -> list[str]:
    return [short(split.texts[i]) for i in np.flatnonzero(split.labels == label)[:3]]
