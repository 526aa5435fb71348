"""How labelled texts are read: each key said once, for flags, keywords and study files alike.

Nothing is imported here: `predict` reads it before anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = [
    "DATA_FLAGS",
    "TEXT_FILE_KEYS",
    "Flag",
    "TextFileKeys",
]


@dataclass(frozen=True, slots=True)
class Flag:
    """How a study key is said on the command line, where its name and type do not say it.

    `help`: what --help says; {default} stands for the key's default. `reads`: "value", as the
    key's type says; "switch", on without a value (and off by `off`, where there is one); "names",
    several with commas; "repeated", one each time; "yaml", as a study file reads it. `least`: the
    smallest number. `group`: flags of a group stand together in --help.
    """

    help: str
    metavar: str | None = None
    group: Literal["study", "protocol", "data", "run"] = "study"
    reads: Literal["value", "switch", "names", "repeated", "yaml"] = "value"
    off: str | None = None
    least: int | None = None


# The keys of a study's `data` beside its source, which are the fields of `values.DataSpec`: there
# stand their types and defaults.
DATA_FLAGS: Mapping[str, Flag] = {
    "text_column": Flag("Column of the texts (else guessed).", "NAME", "data"),
    "label_column": Flag("Column of the labels (else guessed).", "NAME", "data"),
    "id_column": Flag("Column of rows' ids (else guessed).", "NAME", "data"),
    "subset": Flag("Train on N rows, stratified.", "N", "data"),
    "split_seed": Flag("Seed of the split, where parts are split off.", "N", "data"),
    "encoding": Flag("Encoding of text files ({default}).", "NAME", "data"),
    "on_bad_rows": Flag(
        "Rows without text or label, or that are broken ({default}).", group="data"
    ),
    "on_leak": Flag(
        "Training rows that are, or nearly, in validation or test ({default}).", group="data"
    ),
    "quoting": Flag(
        "Quotes in CSV and TSV: double (around fields), none (part of the texts), auto (double, "
        "but refused where a quote swallows rows).",
        group="data",
    ),
    "join_labels": Flag(
        "Join labels that look alike: case, accents, invisible characters, 01 and 1.",
        group="data",
        reads="switch",
    ),
    "drop_classes": Flag("Leave out the rows of these classes.", "A,B,..", "data", "names"),
    "min_rows_per_class": Flag("Leave out classes with fewer training rows.", "N", "data"),
    "corrections": Flag("Labels put right: the file of `report --review`.", "FILE", "data"),
    "group_column": Flag(
        "Column of what rows have in common (author, document): never divided.", "NAME", "data"
    ),
}


class TextFileKeys(TypedDict, total=False):
    """What says how a file of texts without labels is read."""

    text_column: str | None
    id_column: str | None
    encoding: str
    quoting: Literal["auto", "double", "none"]


TEXT_FILE_KEYS = tuple(TextFileKeys.__annotations__)
