"""A file of texts, labelled window by window: what the page shows meanwhile, and the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.data.labelled import labelled_columns
from tunelab.data.texts import TextFile, TextTable
from tunelab.data.write import Columns, write_windows
from tunelab.serving.engine import ServingEngine, items_of
from tunelab.serving.refusal import Refusal
from tunelab.serving.served import Served

__all__ = ["LabelledRow", "LabelledWindow", "label_file"]

_WINDOW_ROWS = 64
_SHOWN_OF_TEXT = 400


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A row as the page shows it: its text (cut), its label, and that label's probability."""

    text: str
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class LabelledWindow:
    """Rows that have just been labelled; `done` of the file's rows so far."""

    done: int
    rows: tuple[LabelledRow, ...]


def label_file(
    engine: ServingEngine,
    model: Served,
    source: TextFile,
    out: Path,
    on_window: Callable[[LabelledWindow], None],
) -> None:
    """Write a file's rows with label and probability added, as `tunelab predict` does.

    Others are answered in between. What `on_window` raises ends it, and nothing is written.
    """

    def labelled() -> Iterator[Columns]:
        done = 0
        for window in source.windows(_WINDOW_ROWS):
            p = _probabilities_of_window(engine, model, window)
            done += len(window.texts)
            on_window(LabelledWindow(done, _rows_shown(window, model, p)))
            yield labelled_columns(window.columns, model.label_names, p)

    def like() -> Iterator[Columns]:
        for window in source.windows():
            yield labelled_columns(window.columns, model.label_names, None)

    write_windows(out, labelled(), like)


def _probabilities_of_window(
    engine: ServingEngine, model: Served, window: TextTable
) -> NDArray[np.float64]:
    items = items_of(model, window.texts)
    while True:
        try:
            return engine.submit(model, items).result().probabilities()
        except Refusal as e:
            if e.fault != "overloaded":
                raise
            time.sleep(e.retry_after or 1)


def _rows_shown(
    window: TextTable, model: Served, p: NDArray[np.float64]
) -> tuple[LabelledRow, ...]:
    best = p.argmax(axis=1)
    return tuple(
        LabelledRow(text[:_SHOWN_OF_TEXT], model.label_names[k], float(row[k]))
        for text, row, k in zip(window.texts, p, best, strict=True)
    )
