"""Where rows come from: the demo, a file, a folder, the hub. A function and a row in `SOURCES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tunelab.core.errors import DataError, suggest
from tunelab.core.values import DataSpec
from tunelab.core.words import listed, rows_word, short
from tunelab.data.formats import FORMATS, look_alike, path_is, read_file
from tunelab.data.table import ReadOptions, Table, format_of, stem_of, table_of_columns

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
    options = ReadOptions(spec.encoding, spec.on_bad_rows == "drop")
    return Source(path.name, None, {"all": [read_file(path, options)]})


def _read_folder(spec: DataSpec) -> Source:
    """A folder in the hub's layout: train, validation, test files, whole or in shards."""
    root = Path(spec.source).expanduser()
    name = root.resolve().name
    files_of_folders = [_data_files(folder) for folder in (root, root / "data")]
    if not any(files_of_folders):
        raise DataError(
            f"{name}: no data files in this folder. Expected train, validation and test files "
            f"({', '.join(FORMATS)}) in it or in its data/ folder."
        )
    # Where the root holds only strangers (metadata.json), the parts may lie in data/.
    named = [files for files in files_of_folders if any(_part_of(f) for f in files)]
    files = next(iter(named or filter(None, files_of_folders)))
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
    for part, paths_by_group in groups.items():
        if len(paths_by_group) > 1:
            rivals = [paths[0].name for paths in paths_by_group.values()]
            raise DataError(
                f"{name}: more than one {part} part: {listed(rivals)}. Keep one of them."
            )
        parts[part] = next(iter(paths_by_group.values()))
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
