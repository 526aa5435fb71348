"""Bytes to text: which encoding a file is in."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from tunelab.core.errors import DataError, suggest
from tunelab.data.content import refuse_other_content
from tunelab.data.limits import LONGEST_LINE, refuse_unpacked
from tunelab.data.table import ReadOptions

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "CHUNK_BYTES",
    "check_text",
    "is_broken",
    "open_text",
]

# Bytes that are read and decoded at a time.
CHUNK_BYTES = 1 << 20


@contextmanager
def _binary(path: Path, name: str) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked; whatever goes wrong while they are read is a DataError."""
    opened = {".gz": _open_gzip, ".zst": _open_zstandard}.get(path.suffix.lower())
    try:
        if opened is None:
            with path.open("rb") as plain:
                yield plain
        else:
            with opened(path) as stream:
                yield io.BufferedReader(_Unpacked(stream, name, path.stat().st_size))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a whole gzip file ({error}). Download it again.") from error
    except OSError as error:
        if opened is _open_zstandard and not error.errno:  # what Arrow says of the content
            said = " ".join(str(error).split()).rstrip(".")
            whole = f"{name}: not a whole Zstandard file ({said}). Download it again."
            raise DataError(whole) from error
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error


def _open_gzip(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb"))


def _open_zstandard(path: Path) -> BinaryIO:
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression="zstd")
    return cast("BinaryIO", stream)


class _Unpacked(io.RawIOBase):
    """What a packed file holds; refused where it is far more than its size (`limits`)."""

    def __init__(self, stream: BinaryIO, name: str, packed: int) -> None:
        self._stream, self._name, self._packed = stream, name, packed
        self._done = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """As of any raw stream; raises DataError at the limit."""
        n: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._done += n
        refuse_unpacked(self._name, self._done, self._packed)
        return n


def _codec(options: ReadOptions) -> str:
    """The codec of an encoding's name; a byte-order mark is looked through."""
    try:
        codec = codecs.lookup(options.encoding).name
        with suppress(UnicodeError):
            b"    ".decode(codec)  # some codecs are not of texts, and say so when used
    except (LookupError, ValueError) as error:
        known = ("utf-8", "utf-16", "latin-1", "cp1252", "cp1251", "gb18030", "shift_jis", "big5")
        raise DataError(
            f"no such text encoding: {options.encoding!r}."
            f"{suggest(options.encoding, known, what='Common ones')}"
        ) from error
    return "utf-8-sig" if codec == "utf-8" else codec


@contextmanager
def open_text(path: Path, options: ReadOptions, newline: str = "") -> Iterator[TextIO]:
    """A text file, decoded strictly, line ends as they are; `newline` says where lines end."""
    errors = "surrogateescape" if options.drop_ragged else "strict"
    with _binary(path, options.called(path)) as stream:
        yield io.TextIOWrapper(stream, _codec(options), errors, newline)


_BROKEN = re.compile("[\0\ud800-\udfff]")


def is_broken(text: str) -> bool:
    """Whether a text that was read for its good rows holds a NUL, or bytes that are no text."""
    return not text.isprintable() and _BROKEN.search(text) is not None


@dataclass(frozen=True, slots=True)
class CheckedText:
    """What `check_text` saw: the beginning, the first character that is no space, the last one."""

    start: str
    first: str
    last: str

    @property
    def ends_in_a_line(self) -> bool:
        """Whether the last line is ended."""
        return self.last.endswith(("\n", "\r"))


def check_text(path: Path, options: ReadOptions) -> CheckedText:
    """Go through a text file once: decoded strictly, without NUL, not empty. Raises DataError.

    Where broken rows are to be left out, NUL and bytes that are no text are their fault.
    """
    name = options.called(path)
    start = first = last = ""
    lines = running = 0  # line ends so far, and characters since the last of them
    nul: int | None = None
    with _binary(path, name) as stream:
        for text in _text_chunks(stream, name, options):
            if nul is None and not options.drop_ragged and (nul_at := text.find("\0")) >= 0:
                nul = lines + text.count("\n", 0, nul_at) + 1
            lines += text.count("\n")
            end = max(text.rfind("\n"), text.rfind("\r"))
            running = running + len(text) if end < 0 else len(text) - end - 1
            if running > LONGEST_LINE and (first or text.lstrip()[:1]) != "[":
                raise DataError(
                    f"{name}: line {lines + 1} is longer than {LONGEST_LINE >> 20} MiB, "
                    "expected a row a line. Cut its text, or leave it out."
                )
            if len(start) < 100_000:
                start = (start + text).lstrip("\r\n")[:100_000]
            first = first or text.lstrip()[:1]
            last = text[-1:] or last
    if nul is not None:
        raise DataError(
            f"{name}: NUL byte in line {nul}: a binary file, or text in another encoding. "
            "Expected plain text; if it is UTF-16, add --encoding utf-16."
        )
    if not first:
        raise DataError(f"{name}: the file is empty. Expected a header and labelled texts.")
    return CheckedText(start, first, last)


def _text_chunks(stream: BinaryIO, name: str, options: ReadOptions) -> Iterator[str]:
    """A text file's chunks as text. Raises DataError where bytes are no text, or another kind's."""
    codec = _codec(options)
    decoder = codecs.getincrementaldecoder(codec)(
        "surrogateescape" if options.drop_ragged else "strict"
    )
    read = lines = 0  # bytes of earlier chunks, and newlines among them
    while True:
        chunk = stream.read(CHUNK_BYTES)
        if not read and codec == "utf-8-sig":
            _refuse_utf16(name, chunk)
            refuse_other_content(name, chunk)
        begun = decoder.getstate()[0]  # bytes of a character that the last chunk began
        try:
            text = decoder.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            here = begun + chunk
            at = len(here) - len(error.object) + error.start  # a mark is not in the object
            line = lines - begun.count(b"\n") + here.count(b"\n", 0, at) + 1
            likely = _likely_encoding(here) if codec.startswith("utf") else "utf-8"
            raise DataError(
                f"{name}: not {options.encoding.upper()}: line {line}, byte offset "
                f"{read - len(begun) + at} (0x{here[at]:02x}). Save it as UTF-8, or name its "
                f"encoding, e.g. --encoding {likely}."
            ) from error
        except UnicodeError as error:
            raise DataError(f"{name}: not {options.encoding.upper()}: {error}.") from error
        yield text
        if not chunk:
            return
        read, lines = read + len(chunk), lines + chunk.count(b"\n")


# Encodings that spreadsheets and mail still write, most of them Windows' own.
_OLD_ENCODINGS = [f"cp{page}" for page in (*range(1250, 1258), 874, 932, 949)]
_OLD_ENCODINGS += ["gb18030", "big5", "koi8_r"]


def _likely_encoding(data: bytes) -> str:
    """The encoding that bytes which are not UTF-8 are likely in; of equal ones, Windows-1252."""
    import charset_normalizer

    # Whole lines: half a character at a chunk's end would rule out the encoding that it is in.
    data = data[: data.rfind(b"\n") + 1] or data
    matches = charset_normalizer.from_bytes(data, cp_isolation=_OLD_ENCODINGS)
    best = matches.best()
    if best is None:
        return "latin-1"  # of any bytes; Windows-1252 leaves five undefined
    as_good = (m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence))
    western = any("cp1252" in match.could_be_from_charset for match in as_good)
    return "cp1252" if western else best.encoding


def _refuse_utf16(name: str, data: bytes) -> None:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "UTF-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    else:
        return
    raise DataError(
        f"{name}: not UTF-8: line 1, byte offset 0 is the mark of {encoding}. "
        f"Save it as UTF-8, or add --encoding {encoding.lower()}."
    )
