"""JSON and JSON lines, read as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tunelab.core.errors import DataError
from tunelab.core.words import kind_of, listed
from tunelab.data.decode import check_text, open_text
from tunelab.data.table import ReadOptions, Table, stem_of, table_of_columns, windows_of_rows

__all__ = [
    "read_json_file",
]


def _values_of_key(rows: Sequence[Mapping[str, object]], key: str) -> list[Any]:
    return [row.get(key) for row in rows]


def read_json_file(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """JSON lines, one object a line; or one list of objects, which is read as a whole."""
    name = options.called(path)
    listing = check_text(path, options).first == "["
    unit = "row" if listing else "line"

    # Only "\n" ends a line here: U+2028 and others may stand within a JSON string.
    with open_text(path, options, newline="\n") as stream:

        def values() -> Iterator[tuple[int, Any]]:
            if listing:
                yield from enumerate(_json_value(stream.read(), name, 1), start=1)
                return
            for n, line in enumerate(stream, start=1):
                if line.strip():
                    yield n, _json_value(line.removesuffix("\n"), name, n)

        def rows() -> Iterator[tuple[int, dict[str, object]]]:
            wrong: tuple[int, str] | None = None
            for number, row in values():
                if isinstance(row, dict):
                    yield number, row
                elif wrong is None:
                    wrong = number, kind_of(row)
            if wrong is not None:
                raise DataError(
                    f"{name}: {unit} {wrong[0]} holds {wrong[1]}, expected an object such as "
                    '{"text": "a quiet film", "label": "positive"}.'
                )

        some = False
        for numbers, window in windows_of_rows(rows(), size):
            if not some and len(window) == 1:
                _refuse_columns(window[0], name)
            some = True
            columns = tuple(dict.fromkeys(k for row in window for k in row))
            table = table_of_columns(name, stem_of(path), {}, numbers, unit)
            yield replace(
                table,
                columns=columns,
                get=partial(_values_of_key, window),
            )
    if not some:
        raise DataError(f"{name}: an empty list. Expected objects with a text and a label.")


def _refuse_columns(only: Mapping[str, object], name: str) -> None:
    """Refuse a file that is one object of columns, as pandas' to_json writes unless told."""
    if only and all(isinstance(v, list | dict) for v in only.values()):
        raise DataError(
            f"{name}: one object of {listed(list(only))}, each a list or an object, expected one "
            "object a line, or one list of objects. From pandas: "
            "to_json(path, orient='records', lines=True)."
        )


def _json_value(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: line {line + error.lineno - 1} is not JSON: {error.msg} at column "
            f"{error.colno}. Expected one object a line, or one list of objects."
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{name}: line {line} cannot be read as JSON: {error}.") from error
