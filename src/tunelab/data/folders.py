"""Which files of a folder hold which part: the hub's layout, split folders, shards, saved data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunelab.core.errors import DataError
from tunelab.core.words import listed
from tunelab.data.formats import FORMATS
from tunelab.data.table import format_of, stem_of

__all__ = [
    "PART_NAMES",
    "FolderFiles",
    "files_of_folder",
]

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
# train-00000-of-00002.parquet, as `datasets` writes it; the hub puts a hash behind.
SHARD = re.compile(r"(?P<part>.+?)-(?P<index>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{8,})?")
# part-00000-3c1b-c000.snappy.parquet, as Spark and others write a table in pieces.
PIECE = re.compile(r"part-?\d+([-_.].*)?")
# What the hub and `datasets` keep beside the data; no rows are in it.
_ABOUT = {"dataset_info.json", "dataset_infos.json", "config.json", "state.json"}
_ABOUT.add("dataset_dict.json")


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """Files by part: some of "train", "validation" and "test", or "all" alone, to be split."""

    parts: Mapping[str, Sequence[Path]]
    notes: tuple[str, ...] = ()


def files_of_folder(root: Path, name: str) -> FolderFiles:
    """The files of a folder's parts. Raises DataError where it has none, or several of one part."""
    if (root / "state.json").is_file():
        return FolderFiles({"all": _saved_files(root, name)})
    by_split = _files_of_subfolders(root, name)
    if by_split is not None:
        return by_split
    for folder in (root, root / "data", *_configurations(root, name)):
        files = _data_files(folder)
        if any(_part_of(f) for f in files):
            of_parts = _files_by_part(name, files)
            if folder in (root, root / "data"):
                return of_parts
            return replace(of_parts, notes=(f"read from its folder {folder.name}", *of_parts.notes))
    for folder in (root, root / "data"):
        files = _data_files(folder)
        if files:
            return _without_parts(name, files)
    raise DataError(
        f"{name}: no data files in this folder. Expected train, validation and test files "
        f"({', '.join(FORMATS)}) or folders in it or in its data/ folder."
    )


def _without_parts(name: str, files: Sequence[Path]) -> FolderFiles:
    """Files whose names say nothing of a part: one file, or the pieces of one table."""
    if len(files) == 1:
        return FolderFiles(
            {"all": files}, (f"the folder holds one file, {files[0].name}: it is split",)
        )
    if _are_pieces(files):
        return FolderFiles(
            {"all": files}, (f"the folder holds {len(files):,} pieces of one table: it is split",)
        )
    raise DataError(
        f"{name}: no train file in this folder. Expected train.csv, train.parquet or the like; "
        f"found {listed([f.name for f in files])}. Rename one, or give one file itself."
    )


def _are_pieces(files: Sequence[Path]) -> bool:
    """Whether files are pieces of one table, by their names: numbered, of one format."""
    if len({format_of(f) for f in files}) > 1:
        return False
    if all(PIECE.fullmatch(stem_of(f)) for f in files):
        return True
    return len({re.sub(r"\d+", "0", stem_of(f)) for f in files}) == 1 and all(
        re.fullmatch(r"(data|rows|chunk|shard)?[-_]?\d+", stem_of(f)) for f in files
    )


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(
            p
            for p in folder.iterdir()
            if p.is_file()
            and format_of(p) in FORMATS
            and not p.name.startswith((".", "_"))
            and p.name not in _ABOUT
        )
    except OSError as error:
        raise DataError(f"{folder.name}: cannot be read: {error.strerror}.") from error


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
    except OSError as error:
        raise DataError(f"{root.name}: cannot be read: {error.strerror}.") from error


# --- folders for parts ----------------------------------------------------------------------


def _files_of_subfolders(root: Path, name: str) -> FolderFiles | None:
    """A folder a part (train/, test/), its files the pieces; None where there is no train."""
    for place in (root, root / "data"):
        parts: dict[str, Sequence[Path]] = {}
        for folder in _subfolders(place) if place.is_dir() else []:
            part = PART_NAMES.get(re.sub(r"\.(parquet|csv|json)$", "", folder.name.lower()))
            if part is None:
                continue
            files = _files_of_part(folder, name)
            if not files:
                continue
            if part in parts:
                rivals = [parts[part][0].parent.name, folder.name]
                raise DataError(f"{name}: more than one {part} part: {listed(rivals)}. Keep one.")
            parts[part] = files
        if "train" in parts:
            return FolderFiles(parts)
    return None


def _files_of_part(folder: Path, name: str) -> Sequence[Path]:
    if (folder / "state.json").is_file():
        return _saved_files(folder, name)
    files = _data_files(folder)
    if len(files) < 2 or _are_pieces(files) or SHARD.fullmatch(stem_of(files[0])):
        if files:
            _check_shards(name, files)
        return files
    raise DataError(
        f"{name}: {len(files):,} files in its folder {folder.name}: "
        f"{listed([f.name for f in files], 5)}. Expected one, or the numbered pieces of one."
    )


def _saved_files(folder: Path, name: str) -> list[Path]:
    """The files of what `datasets` saved with save_to_disk, in their order."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{name}: {folder.name}/state.json does not say which files hold the rows. Save the "
            "data again with save_to_disk."
        ) from error
    if not names or any(Path(n).name != n for n in names):
        raise DataError(f"{name}: {folder.name}/state.json names no files of this folder.")
    missing = [n for n in names if not (folder / n).is_file()]
    if missing:
        raise DataError(
            f"{name}: {listed(missing)} of {folder.name}/state.json is not there. Copy the whole "
            "folder."
        )
    return [folder / n for n in names]


def _configurations(root: Path, name: str) -> list[Path]:
    """The folders that hold a train part each: one, or none. Raises DataError for several."""
    with_train = [
        f for f in _subfolders(root) if any(_part_of(p) == "train" for p in _data_files(f))
    ]
    with_train = [f for f in with_train if f.name != "data"]
    if len(with_train) > 1 and not _data_files(root):
        raise DataError(
            f"{name}: train files in each of its folders {listed([f.name for f in with_train])}. "
            f"Give one of them, such as {root / with_train[0].name}."
        )
    return with_train if len(with_train) == 1 else []


# --- files for parts ------------------------------------------------------------------------


def _part_of(path: Path) -> str | None:
    shard = SHARD.fullmatch(stem_of(path))
    return PART_NAMES.get((shard["part"] if shard else stem_of(path)).lower())


def _files_by_part(name: str, files: Sequence[Path]) -> FolderFiles:
    """Files with names of parts; others are not used."""
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
    if "train" not in parts:
        raise DataError(
            f"{name}: no train file in this folder. Expected train.csv, train.parquet or the like; "
            f"found {listed([f.name for f in files])}. Rename one, or give one file itself."
        )
    notes = (f"not used: {listed([f.name for f in others])}",) if others else ()
    return FolderFiles(parts, notes)


def _check_shards(name: str, paths: Sequence[Path]) -> None:
    """Refuse a part of which pieces are missing, or there twice."""
    shard = SHARD.fullmatch(stem_of(paths[0]))
    if shard is None:
        return
    count = int(shard["count"])
    numbers = {m["index"] for m in (SHARD.fullmatch(stem_of(p)) for p in paths) if m}
    if len(numbers) < min(count, len(paths)) or len(paths) > count:
        raise DataError(
            f"{name}: {len(paths)} files {shard['part']}-*-of-{shard['count']} with the numbers "
            f"{listed(sorted(numbers))}, expected each once. Remove those of another version."
        )
    if len(paths) < count:
        raise DataError(
            f"{name}: expected {count} files {shard['part']}-*-of-{shard['count']}, "
            f"found {len(paths)}. Download the missing ones."
        )
