"""Files and frames -> a checked data set. Door: `load`, `describe`, `inspect` and what they give.

gate/         what is wrong with the data: a function and a row in `CHECKS`
behaviour     suites of behaviour tests -> cases
texts write labelled   files of texts in windows, tables written out, labels added to them
sent          rows as they travel to another machine
corrections   labels that a reader put right
given         rows that are given in Python: frames, Arrow tables, `datasets`, lists

May import: core. Never reaches torch.
"""

from __future__ import annotations

from tunelab.data.card import DataCard, DuplicateExample, LengthFigures, describe
from tunelab.data.duplicates import rows_unlike
from tunelab.data.gate import Gate, inspect
from tunelab.data.groups import group_numbers
from tunelab.data.loading import OtherData, load, load_every_row, load_other
from tunelab.data.sources import SOURCES
from tunelab.data.split import (
    all_rows,
    groups_to_keep,
    in_fold,
    least_of_a_class,
    redivided,
    smaller,
    tested_rows,
    without_leaked_rows,
)
from tunelab.data.texts import open_texts, read_texts
from tunelab.data.write import write_table

__all__ = [
    "SOURCES",
    "DataCard",
    "DuplicateExample",
    "Gate",
    "LengthFigures",
    "OtherData",
    "all_rows",
    "describe",
    "group_numbers",
    "groups_to_keep",
    "in_fold",
    "inspect",
    "least_of_a_class",
    "load",
    "load_every_row",
    "load_other",
    "open_texts",
    "read_texts",
    "redivided",
    "rows_unlike",
    "smaller",
    "tested_rows",
    "without_leaked_rows",
    "write_table",
]
