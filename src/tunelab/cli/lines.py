"""Sentences for a terminal and for a pipe, without a library: errors come before any is loaded.

In a terminal, and where COLUMNS says a width, lines break between words; else one line is one
sentence, for those who search. What is longer than a line, such as a path, stays whole.
"""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from typing import IO

from tunelab.cli.streams import as_written, echo

__all__ = [
    "complain",
    "in_lines",
    "say_sentences",
    "columns_of",
]

_LEAST_WIDTH = 20
_USUAL_WIDTH = 80


def columns_of(stream: IO[str]) -> int | None:
    """The columns that a stream's lines must fit; None where there is no such limit."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):  # no terminal; a stream in memory has no file either
        return _USUAL_WIDTH if stream.isatty() else None


def in_lines(text: str, width: int | None, indent: int = 0) -> str:
    """A text of one or more lines in lines of `width` cells; those that go on stand `indent`
    further in than what they go on from.
    """
    if width is None:
        return text
    filled = "\n".join(
        textwrap.fill(
            _with_fillers(line),
            max(_LEAST_WIDTH, width),
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + indent),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )
    return filled.replace(_FILLER, "")


_FILLER = "\0"  # what no text has that is printed


def _with_fillers(line: str) -> str:
    """A line of as many characters as it has cells: after each of two cells (Chinese, emoji) one
    that is taken out again.
    """
    if line.isascii():
        return line
    return "".join(c + _FILLER if unicodedata.east_asian_width(c) in "WF" else c for c in line)


def say_sentences(text: str, indent: int = 2, *, err: bool = False) -> None:
    """Print sentences to standard output, or to standard error."""
    stream = sys.stderr if err else sys.stdout
    echo(in_lines(as_written(text, stream), columns_of(stream), indent), err=err)


def complain(text: str) -> None:
    """Print a fault to standard error, each of its lines under the name of the program."""
    for line in text.splitlines():
        say_sentences(f"tunelab: {line}", err=True)
