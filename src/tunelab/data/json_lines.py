"""JSON and JSON lines, read as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tunelab.core.errors import DataError
from tunelab.core.words import kind_of, listed, rows_word
from tunelab.data.decode import check_text, is_broken, open_text
from tunelab.data.table import ReadOptions, Table, stem_of, table_of_columns, windows_of_rows

__all__ = [
    "read_json_file",
]


def _values_of_key(rows: Sequence[Mapping[str, object]], key: str) -> list[Any]:
    return [row.get(key) for row in rows]


def read_json_file(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """JSON lines, one object a line; or one document, read as a whole: a list of objects, or an
    object with such a list under a key."""
    name = options.called(path)
    checked = check_text(path, options)
    whole = checked.first == "[" or _is_one_document(checked.start)
    rows = _JsonRows(name, "row" if whole else "line", options)
    # Only "\n" ends a line here: U+2028 and others may stand within a JSON string.
    with open_text(path, options, newline="\n") as stream:
        some = False
        for numbers, window in windows_of_rows(rows.read(stream), size):
            if not some and len(window) == 1:
                _refuse_columns(window[0], name)
            some = True
            columns = tuple(dict.fromkeys(k for row in window for k in row))
            table = table_of_columns(name, stem_of(path), {}, numbers, rows.unit)
            yield replace(
                table,
                columns=columns,
                get=partial(_values_of_key, window),
                notes=rows.notes(),
            )
    if not some:
        raise DataError(f"{name}: an empty list. Expected objects with a text and a label.")


def _is_one_document(start: str) -> bool:
    """Whether a file that begins so is one object: its first line is not whole, or the only one."""
    first, end, rest = start.partition("\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        # Cut lines of JSON lines look so too: there, the next line begins an object.
        return bool(end) and not rest.lstrip().startswith("{")
    return isinstance(value, dict) and not rest.strip() and len(_row_lists(value)) > 0


def _row_lists(document: Mapping[str, object]) -> list[str]:
    """The keys under which an object holds a list of objects."""
    return [
        key
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    ]


@dataclass(slots=True)
class _JsonRows:
    """The rows of a file as they are read; where bad ones are dropped, those that are no row."""

    name: str
    unit: str
    options: ReadOptions
    _key: str | None = None
    _broken: list[int] = field(default_factory=list)

    def read(self, stream: TextIO) -> Iterator[tuple[int, dict[str, object]]]:
        """Pairs (number, row). Raises DataError for what is no object, unless it is dropped."""
        drop, rows = self.options.drop_ragged, 0
        wrong: DataError | None = None
        values = self._of_document(stream) if self.unit == "row" else self._of_lines(stream)
        for number, value in values:
            if isinstance(value, dict):
                rows += 1
                yield number, value
                continue
            if isinstance(value, DataError) and not drop:
                raise value
            wrong = wrong or self._no_object(number, value)
            self._broken.append(number)
        if wrong is not None and (not drop or len(self._broken) > rows / 10):
            raise wrong

    def _no_object(self, number: int, value: object) -> DataError:
        if isinstance(value, DataError):
            return value
        return DataError(
            f"{self.name}: {self.unit} {number} holds {kind_of(value)}, expected an object such as "
            '{"text": "a quiet film", "label": "positive"}.'
        )

    def _of_lines(self, stream: TextIO) -> Iterator[tuple[int, Any]]:
        for n, line in enumerate(stream, start=1):
            if self.options.drop_ragged and is_broken(line):
                yield n, DataError(f"{self.name}: line {n} is not {self.options.encoding} text.")
            elif line.strip():
                try:
                    yield n, _json_value(line.removesuffix("\n"), self.name, n)
                except DataError as error:
                    yield n, error

    def _of_document(self, stream: TextIO) -> Iterator[tuple[int, Any]]:
        document = _json_value(stream.read(), self.name, 1)
        if isinstance(document, dict):
            keys = _row_lists(document)
            if len(keys) > 1:
                raise DataError(
                    f"{self.name}: lists of rows under {listed(keys)}, expected one. Save each as "
                    "a file of its own: train.jsonl, test.jsonl and so on."
                )
            if keys:
                self._key = keys[0]
                document = document[self._key]
            else:
                document = [document]
        yield from enumerate(document, start=1)

    def notes(self) -> tuple[str, ...]:
        """What is said of the rows that were read so far."""
        out = []
        if self._key is not None:
            out.append(f"{self.name}: its rows are the list under {self._key!r}")
        if self._broken:
            shown = ", ".join(map(str, self._broken[:5]))
            more = f" and {len(self._broken) - 5:,} more" if len(self._broken) > 5 else ""
            many = "s" if len(self._broken) > 1 else ""
            out.append(
                f"{self.name}: dropped {rows_word(len(self._broken))} that cannot be read "
                f"({self.unit}{many} {shown}{more})"
            )
        return tuple(out)


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
