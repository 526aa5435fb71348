"""Where rows come from: the demo, a file, a folder, the hub. A function and a row in `SOURCES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from tunelab.core.errors import DataError, suggest
from tunelab.core.values import DataSpec
from tunelab.core.words import listed, rows_word, short
from tunelab.data.folders import PART_NAMES, files_of_folder
from tunelab.data.formats import FORMATS, look_alike, path_is, read_file
from tunelab.data.given import given_as
from tunelab.data.table import ReadOptions, Table, format_of, table_of_columns

__all__ = [
    "SOURCES",
    "Source",
    "source_kind",
]


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
    folder = resources.files("tunelab.data") / "demo"
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
        about += f"; stars 1-2 negative, 4-5 positive, {rows_word(left_out)} with 3 stars left out"
    return Source(spec.source, None, {"all": tables}, (about,))


def _read_one_file(spec: DataSpec) -> Source:
    """One CSV, TSV, JSONL or Parquet file: one part, to be split."""
    path = Path(spec.source).expanduser()
    given = given_as(path)
    if given is None:
        return Source(path.name, None, {"all": [read_file(path, _options(spec))]})
    table = read_file(path, replace(_options(spec), name=given))
    return Source(given, None, {"all": [replace(table, stem="rows")]})


def _options(spec: DataSpec) -> ReadOptions:
    return ReadOptions(spec.encoding, spec.on_bad_rows == "drop", quoting=spec.quoting)


def _read_folder(spec: DataSpec) -> Source:
    """A folder with train, validation and test files, or in another form that `folders` knows."""
    root = Path(spec.source).expanduser()
    name = given_as(root) or root.resolve().name
    of_parts = files_of_folder(root, name)
    tables = {
        part: [read_file(f, _options(spec)) for f in of_parts.parts[part]]
        for part in ("all", "train", "validation", "test")
        if part in of_parts.parts
    }
    return Source(name, None, tables, of_parts.notes)


def _read_hub(spec: DataSpec) -> Source:
    """A hub id (`owner/name:config@revision`), or a local folder with `:config`, by `datasets`."""
    import datasets

    local = LOCAL_WITH_CONFIG.fullmatch(spec.source)
    if local and Path(local["id"]).expanduser().is_dir():
        path, config, revision = str(Path(local["id"]).expanduser()), local["config"], None
        name = f"{Path(path).resolve().name}:{config}"
    else:
        hub_id = HUB_ID.fullmatch(spec.source)
        if not hub_id:
            raise DataError(f"{short(spec.source)!r} is not a hub id: expected owner/name.")
        path = HUB_ALIASES.get(hub_id["id"], hub_id["id"])
        config, revision = hub_id["config"], hub_id["revision"]
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
            notes.append(f"split {split!r} ({rows_word(len(rows))}) is not used")
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
        commit = re.search(r"@([0-9a-f]{40})/", str(url))
        if commit:
            return commit[1]
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
