"""Users' texts inside Markdown: of the lab report, of a comparison of studies, of model cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = [
    "in_markdown",
    "table_lines",
]


def in_markdown(text: str) -> str:
    """A text inside Markdown: never markup, never two cells."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))


def table_lines(
    headings: Sequence[str], rules: Sequence[str], rows: Iterable[Sequence[str]]
) -> list[str]:
    """A table's lines; `rules` stand below the headings: "---" of a text, "--:" of a figure."""
    first, *rest = ([in_markdown(c) for c in line] for line in (headings, *rows))
    return [f"| {' | '.join(line)} |" for line in (first, rules, *rest)]
