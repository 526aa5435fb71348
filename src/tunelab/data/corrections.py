"""Labels put right by a reader: a CSV file that the review page writes, and what it changes.

Each line names a row, by its own id or ours, and holds the digest of its text, the label that it
had and the one that it is to have. Rows are divided into parts and folds by the labels that they
had, so that a study with corrections tests the rows that the study before tested.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tunelab.core.errors import DataError
from tunelab.core.sent import file_here
from tunelab.core.values import Corrected, Split
from tunelab.core.words import agreeing, counted, listed, rows_word, short

__all__ = [
    "CORRECTION_COLUMNS",
    "Correction",
    "Corrections",
    "corrected_parts",
    "corrections_in_words",
    "read_corrections",
    "text_digest",
]

CORRECTION_COLUMNS = ("id", "text_sha256", "old_label", "new_label", "study")


@dataclass(frozen=True, slots=True)
class Correction:
    """A row by its `id` (the data's own, or ours) and the SHA-256 of its text (hex), the label that
    it has in the data, and the one that it is to have. `line`: where that stands in the file.
    """

    line: int
    id: str
    text_sha256: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Corrections:
    """What a file of corrections holds: those that change a label, and the study that they are of
    ("" where it does not say).
    """

    path: str
    study: str
    rows: tuple[Correction, ...]


def text_digest(text: str) -> str:
    """What a row's text is known by in a file of corrections: its SHA-256 (hex)."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_corrections(path: str) -> Corrections:
    """Read a file of corrections. Raises DataError, in one line, where it is none."""
    try:
        content = file_here(path).read_text(encoding="utf-8-sig")
        table = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise DataError(f"--corrections {path}: cannot be read ({why}). {_EXPECTED}") from None
    head = table[0] if table else []
    if missing := [c for c in CORRECTION_COLUMNS[:4] if c not in head]:
        raise DataError(f"--corrections {path}: has no column {listed(missing)}. {_EXPECTED}")
    rows: dict[tuple[str, str], Correction] = {}
    studies = set()
    for number, cells in enumerate(table[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(head):
            raise DataError(
                f"--corrections {path}: row {number} has {counted(len(cells), 'field')}, expected "
                f"{len(head)}. {_EXPECTED}"
            )
        line = dict(zip(head, cells, strict=True))
        studies.add(line.get("study", ""))
        told = (line["id"], line["text_sha256"].lower(), line["old_label"], line["new_label"])
        one = Correction(number, *told)
        before = rows.setdefault(told[:2], one)
        if before.new != one.new:
            raise DataError(
                f"--corrections {path}: row {one.id!r} has two labels, {before.new!r} (row "
                f"{before.line}) and {one.new!r} (row {number}). Keep one of them."
            )
    changed = tuple(one for one in rows.values() if one.old != one.new)
    if not changed:
        raise DataError(f"--corrections {path}: changes no label. Leave it out.")
    return Corrections(path, studies.pop() if len(studies) == 1 else "", changed)


_EXPECTED = (
    "Expected a CSV file with the columns id, text_sha256, old_label and new_label, as the page of "
    "`tunelab report STUDY --review` gives it."
)


def corrected_parts(
    corrections: Corrections,
    parts: Mapping[str, Split],
    label_names: Sequence[str],
    id_column: str | None,
) -> tuple[dict[str, Split], Corrected]:
    """The parts with their labels put right, each divided as before (`Split.divided_by`), and how
    many of each were.

    Raises DataError naming the row where a correction is not of these rows and labels.
    """
    labels = {part: split.labels.copy() for part, split in parts.items()}
    known = {name: i for i, name in enumerate(label_names)}
    places = _places_by_name(parts, id_column)
    changed: Counter[str] = Counter()
    for one in corrections.rows:
        part, row = _place_of(one, corrections, places, parts)
        label = int(parts[part].labels[row])
        has = label_names[label] if label >= 0 else ""
        where = f"--corrections {corrections.path}: row {one.id!r}"
        if has != one.old:
            already = " Its label was put right already." if has == one.new else ""
            raise DataError(
                f"{where} is labelled {has!r} in the data, expected {one.old!r} (row {one.line} of "
                f"the file).{already} Remove that line, or give the data that was reviewed."
            )
        if one.new not in known:
            raise DataError(
                f"{where} is to be {one.new!r} (row {one.line} of the file), which is none of the "
                f"labels: {listed(list(label_names))}. Write one of them."
            )
        labels[part][row] = known[one.new]
        changed[part] += 1
    divided = {
        part: replace(split, labels=labels[part], before=split.labels)
        for part, split in parts.items()
    }
    return divided, Corrected(corrections.study, dict(changed))


_RowOfPart = tuple[str, int]  # a part, and a row of it


def _places_by_name(
    parts: Mapping[str, Split], id_column: str | None
) -> dict[str, list[_RowOfPart]]:
    """Where the rows of a name stand: the data's own name first, then ours."""
    places: dict[str, list[_RowOfPart]] = {}
    for part, split in parts.items():
        own = split.columns.get(id_column, ()) if id_column is not None else ()
        for names in (own, split.ids):
            for row, name in enumerate(names):
                places.setdefault(str(name), []).append((part, row))
    return places


def _place_of(
    one: Correction,
    corrections: Corrections,
    places: Mapping[str, Sequence[_RowOfPart]],
    parts: Mapping[str, Split],
) -> _RowOfPart:
    of_name = places.get(one.id, ())
    where = f"--corrections {corrections.path}: row {one.id!r} (row {one.line} of the file)"
    if not of_name:
        raise DataError(
            f"{where} is none of the {rows_word(sum(map(len, parts.values())))} of the data. "
            "Give the data that was reviewed, or remove that line."
        )
    for part, row in of_name:
        if text_digest(parts[part].texts[row]) == one.text_sha256:
            return part, row
    part, row = of_name[0]
    raise DataError(
        f"{where} has another text in the data: {short(parts[part].texts[row])!r}. Give the data "
        "that was reviewed, or remove that line."
    )


def corrections_in_words(corrected: Corrected) -> str:
    """How many labels were put right, and of which parts."""
    total = sum(corrected.by_part.values())
    where = ", ".join(f"{n:,} of {part}" for part, n in corrected.by_part.items())
    return f"{counted(total, 'label')} {agreeing(total, 'were')} put right ({where})"
