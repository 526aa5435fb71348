"""What a file holds, told by its first bytes, where that is not what its name says."""

from __future__ import annotations

import re
from itertools import chain

from tunelab.core.errors import DataError

__all__ = [
    "refuse_other_content",
]

# First bytes, what they are the beginning of, and what to do.
_SAVE_AS = "Open it where it was made and save it as CSV, JSONL or Parquet."
_UNPACK = "Unpack it first."
_MARKS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a git-lfs pointer", "Run git lfs pull."),
    (b"\x1f\x8b", "gzip", "Put .gz behind its name, or unpack it."),
    (b"PAR1", "Parquet", "Call it .parquet."),
    (b"ARROW1", "an Arrow file", "Call it .arrow."),
    (b"\xff\xff\xff\xff", "an Arrow stream", "Call it .arrow."),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _SAVE_AS),
    (b"FEA1", "a Feather file", _SAVE_AS),
    (b"ORC", "an ORC file", _SAVE_AS),
    (b"Obj\x01", "an Avro file", _SAVE_AS),
    (b"SQLite format 3\x00", "an SQLite database", _SAVE_AS),
    (b"\x89HDF", "an HDF5 file", _SAVE_AS),
    (b"\x93NUMPY", "a NumPy array", _SAVE_AS),
    (b"%PDF-", "a PDF", _SAVE_AS),
    (b"{\\rtf", "an RTF document", _SAVE_AS),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "Put .zst behind its name, or unpack it."),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x89PNG", "a picture", "Choose another file."),
    (b"\xff\xd8\xff", "a picture", "Choose another file."),
)
_FORMS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (
        re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE),
        "a web page",
        "Download the file itself: a page may have asked to sign in.",
    ),
    (re.compile(rb"\s*<\?xml\b"), "XML", _SAVE_AS),
    (re.compile(rb"\x80[\x02-\x05]"), "a Python pickle", _SAVE_AS),
)


def refuse_other_content(name: str, head: bytes, own: tuple[bytes, ...] = ()) -> None:
    """Refuse a file whose first bytes are known to be something else, saying what and what to do.

    `own`: the marks that files of this kind begin with. Raises DataError.
    """
    start = head.removeprefix(b"\xef\xbb\xbf")
    other = _kind(start, own)
    if other is not None:
        what, remedy = other
        raise DataError(f"{name}: it holds {what}, not what its name says. {remedy}")


def _kind(start: bytes, own: tuple[bytes, ...]) -> tuple[str, str] | None:
    if start.startswith(own):
        return None
    if start.startswith(b"PK\x03\x04"):
        sheet = b"[Content_Types].xml" in start[:2000] or b"xl/" in start
        return ("an Excel workbook", "Call it .xlsx.") if sheet else ("a ZIP archive", _UNPACK)
    by_mark = ((what, remedy) for mark, what, remedy in _MARKS if start.startswith(mark))
    by_form = ((what, remedy) for form, what, remedy in _FORMS if form.match(start))
    return next(chain(by_mark, by_form), None)
