"""Standard output and error: what may reach a terminal, in whatever encoding it has.

Texts, labels, names and paths are other people's: a control character in one of them could move the
cursor, rewrite a line or set the window's title. All that is printed goes through here.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from typing import TextIO

__all__ = [
    "ReaderGoneError",
    "as_written",
    "close_output",
    "echo",
    "guard_streams",
    "printable",
    "styled",
]

# Control characters but for tab and line end; those that turn the direction of writing; line ends
# of Unicode, at which some terminals begin a line.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")
# A sequence that a terminal would carry out, whole: its letters are no text either.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI
    "|(?:\x1b[\\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)?"  # OSC, DCS
    "|\x1b[ -/]*[0-~]"
)

# Our own glyphs, where an encoding lacks them.
_GLYPHS = str.maketrans(
    {
        "…": "...", "─": "-", "│": "|", "├": "+", "└": "+", "±": "+-", "·": ".", "\u00d7": "x",
        "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
        "\u2265": ">=", "\u2264": "<=", "\u2248": "~", "\u2192": "->", "\u2713": "+",
    }
)  # fmt: skip


def printable(text: str) -> str:
    """A text without what a terminal would carry out: escape sequences and control characters.

    Tabs and line ends stay; "\\r\\n" is a line end.
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def as_written(text: str, stream: TextIO) -> str:
    """A text as a stream will show it: what is laid out in columns is as wide as this."""
    if text.isascii() and text.isprintable():
        return text
    shown, encoding = printable(text), getattr(stream, "encoding", None)
    if not encoding:
        return shown
    return shown.encode(encoding, "tunelab.glyphs").decode(encoding)


def _in_other_glyphs(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding lacks: a like glyph, or their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    alike = lacking.translate(_GLYPHS)
    if not alike.isascii():
        alike = alike.encode("ascii", "backslashreplace").decode("ascii")
    return alike, error.end


codecs.register_error("tunelab.glyphs", _in_other_glyphs)


class ReaderGoneError(Exception):
    """Whoever read a pipe has seen enough (head, less). No OSError: click would end with 1."""


class _Stream(io.TextIOWrapper):
    """A stream whose reader may go."""

    def write(self, text: str) -> int:
        """Write a text. Raises ReaderGoneError."""
        try:
            return super().write(text)
        except BrokenPipeError as error:
            raise ReaderGoneError from error


class _Guarded(_Stream):
    """A stream that writes what is printable. `styled`: the same, for what we style ourselves."""

    styled: TextIO
    before: TextIO  # kept: with it, the bytes below both would be closed

    def write(self, text: str) -> int:
        """Write a text; the return that a progress bar begins with stays."""
        bar = text.startswith("\r") and not text.endswith("\n")
        super().write("\r" * bar + printable(text))
        return len(text)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a line of what is printable, on standard output or error."""
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{printable(str(text))}\n")
    stream.flush()


def guard_streams() -> None:
    """Guard standard output and error of this process; no character that they lack is a fault."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and not isinstance(stream, _Guarded):
            stream.flush()
            kinds = [
                kind(
                    stream.buffer,
                    stream.encoding,
                    "tunelab.glyphs",
                    line_buffering=stream.line_buffering,
                    write_through=True,
                )
                for kind in (_Guarded, _Stream)
            ]
            guarded, plain = kinds
            guarded.styled, guarded.before = plain, stream  # type: ignore[attr-defined]
            setattr(sys, name, guarded)


def styled(stream: TextIO) -> TextIO:
    """The stream to which a rich console writes, which guards what it prints itself."""
    return stream.styled if isinstance(stream, _Guarded) else stream


def close_output() -> None:
    """Write out what is left, and give standard output to nobody. Raises OSError.

    What is written at the end of the process cannot fail any more.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, 1)
        raise
