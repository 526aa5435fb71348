"""Cards and tables for the terminal (rich). Prints; computes nothing."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tunelab.analysis.numbers import format_parameters
from tunelab.cli.lines import columns_of, in_lines
from tunelab.cli.streams import ReaderGoneError, as_written, printable, styled
from tunelab.core.words import short_labels, told_apart

if TYPE_CHECKING:
    from tunelab.core.cards import DataCard, LengthFigures
    from tunelab.methods.inspection import BaseCard
    from tunelab.models.tokens import TokenLengths

__all__ = [
    "GuardedConsole",
    "console",
    "print_data_card",
    "model_card",
    "print_table",
    "say",
]


_WIDTH_OF_NO_TERMINAL = 1_000
_GAP, _NARROW_GAP = 3, 2  # between two columns of a table
_ROOM_BESIDE = 20  # what the first column leaves to the others, at least


class GuardedConsole(Console):
    """A console that prints what is printable of all that it is given, and styles it."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich renders it, without control characters but for its own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Let the command line end as it does (`streams.ReaderGoneError`)."""
        raise ReaderGoneError


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Standard output or error: as wide as the terminal or COLUMNS say; wide enough for any table
    where neither does, in a pipe or a file.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else columns_of(stream) or _WIDTH_OF_NO_TERMINAL
    return GuardedConsole(file=styled(stream), stderr=stderr, quiet=quiet, width=width)


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    *,
    keys: int = 1,
    all_of_it: str | None = None,
) -> None:
    """Print a table: the first column to the left, the others to the right. A pipe has no end.

    Where it is too wide for the terminal, methods go by their short names, and columns move closer.
    What is still too wide is only named, with `all_of_it`: where it is to be had; else each row
    becomes a card: its first columns (`keys`) in a line, and below it the others, one a line.
    """
    out = console()
    if title:
        say(out, title, style="bold")
    headings, *rows = _as_written([headings, *rows])
    gap = _GAP
    fitting = _fitting_columns(headings, rows, out.width, gap)
    if fitting < len(headings):
        names = short_labels(dict.fromkeys([*headings, *(row[0] for row in rows)]))
        short = [[names.get(cell, cell) for cell in row] for row in (headings, *rows)]
        gap = _GAP if _fits(short[0], short[1:], out.width, _GAP) else _NARROW_GAP
        fewer = _fitting_columns(short[0], short[1:], out.width, gap)
        if fewer < len(headings) and not all_of_it:
            _print_cards(out, headings, rows, keys)
            return
        if fewer > fitting:
            headings, rows, fitting = short[0], short[1:], fewer
    _print_columns(out, headings[:fitting], rows, gap)
    if fitting < len(headings):
        say(out, f"No room for {', '.join(headings[fitting:])}: {all_of_it}", indent=2)
        out.print()


def _as_written(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cells as standard output shows them, so that columns are as wide as what stands in them."""
    return [[as_written(str(cell), sys.stdout) for cell in row] for row in rows]


def _print_columns(
    out: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], gap: int
) -> None:
    """A table of the columns that have headings here, `gap` cells between two of them."""
    widest = (out.width - _ROOM_BESIDE, out.width // 2)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap - 2, 0, 1))
    for i, heading in enumerate(headings):
        # Set by us: a heading of two words stands in two lines, and no word is cut.
        table.add_column(
            Text(heading),
            justify="left" if i == 0 else "right",
            overflow="fold",
            width=min(_width(i, headings, rows), widest[i > 0]),
        )
    for row in rows:
        # Cells are users' texts: shown as they are, never read as markup.
        table.add_row(*(Text(str(cell)) for cell in row[: len(headings)]))
    out.print(table)
    out.print()


def _print_cards(
    out: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], keys: int
) -> None:
    """Each row by itself: its first columns, and below it a line for each of the others."""
    wide = max(cell_len(h) for h in headings[keys:])
    for row in rows:
        say(out, ", ".join(str(cell) for cell in row[:keys]), style="bold")
        for heading, cell in zip(headings[keys:], row[keys:], strict=True):
            blanks = " " * (wide - cell_len(heading))
            say(out, f"  {heading}{blanks}  {cell}", indent=wide + 4)
        out.print()


def _width(i: int, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Least width of a column: its widest cell, or the longest word of its heading."""
    return max(cell_len(w) for w in ("", *headings[i].split(), *(str(row[i]) for row in rows)))


def _fits(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, gap: int) -> bool:
    return _fitting_columns(headings, rows, width, gap) == len(headings)


def _fitting_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, gap: int
) -> int:
    """How many columns, from the first, have room beside each other; two at least are shown."""
    ends = itertools.accumulate(_width(i, headings, rows) + gap for i in range(len(headings)))
    return max(min(2, len(headings)), sum(end - gap <= width for end in ends))


def say(out: Console, text: str, indent: int = 0, style: str = "") -> None:
    """Print a text: in lines where there is a width, else in one. Never markup.

    `indent` is where the second and later lines begin.
    """
    width = None if out.width >= _WIDTH_OF_NO_TERMINAL else out.width
    written = as_written(text, sys.stderr if out.stderr else sys.stdout)
    out.print(
        in_lines(written, width, indent), style=style, markup=False, highlight=False, soft_wrap=True
    )


def _lines(pairs: Sequence[tuple[str, object]]) -> None:
    out = console()
    width = max(len(k) for k, _ in pairs)
    for key, value in pairs:
        say(out, f"{key:<{width}}  {value}", indent=width + 2)
    out.print()


def _quantile_words(facts: LengthFigures) -> list[str]:
    whole = (facts["min"], facts["p5"], facts["p50"], facts["p95"], facts["max"])
    return [*(f"{n:.0f}" for n in whole), f"{facts['mean']:.1f}"]


def print_data_card(facts: DataCard, tokens: TokenLengths) -> None:
    """What `inspect data` shows; `tokens`: lengths in a model's tokens."""
    _lines(
        [
            ("Data", facts["name"]),
            ("Text column", facts["text_column"]),
            ("Label column", facts["label_column"]),
            *[("Id column", name) for name in [facts.get("id_column")] if name],
            ("Fingerprint", facts["fingerprint"][:16]),
            *[("Note", n) for n in facts["notes"]],
        ]
    )
    sizes, counts = facts["sizes"], facts["label_counts"]
    shown = dict(zip(facts["label_names"], told_apart(facts["label_names"]), strict=True))
    rows = [
        [
            shown[name],
            *(f"{counts[p][name]:,} ({100 * counts[p][name] / sizes[p]:.0f}%)" for p in sizes),
        ]
        for name in facts["label_names"]
    ]
    rows.append(["all", *(f"{n:,}" for n in sizes.values())])
    print_table(["Label", *sizes], rows, "Rows by label")
    heads = ["", "min", "5%", "median", "95%", "max", "mean"]
    words = [[f"words, {p}", *_quantile_words(facts["words"][p]), ""] for p in sizes]
    limit = tokens["max_length"]
    token_rows = [
        [f"tokens, {p}", *_quantile_words(t), f"{t['cut']:,} ({100 * t['cut'] / t['rows']:.1f}%)"]
        for p, t in tokens["parts"].items()
    ]
    print_table(
        [*heads, f"cut at {limit} tokens"],
        words + token_rows,
        f"Lengths (tokens of {tokens['model']}, special tokens included)",
    )
    d = facts["duplicates"]
    _lines(
        [
            *[(f"Exact duplicates within {k}", f"{n:,}") for k, n in d["within"].items()],
            *[(f"Exact duplicates in both of {k}", f"{n:,}") for k, n in d["across"].items()],
            ("Texts with more than one label", f"{d['conflicting']:,}"),
        ]
    )
    samples = [[shown[x], " ".join(t.split())] for x, ts in facts["samples"].items() for t in ts]
    _print_samples(samples)


def _print_samples(rows: Sequence[Sequence[str]]) -> None:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        title="Samples",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("Label")
    table.add_column("Text", overflow="fold")
    for label, text in _as_written(rows):
        table.add_row(Text(label), Text(text))
    console().print(table)


def model_card(facts: BaseCard) -> None:
    """What `inspect model` shows."""
    shapes = facts["shapes"]
    total = sum(facts["parameters"].values())
    _lines(
        [
            ("Model", facts["name"]),
            ("Architecture", f"{facts['architecture']} ({facts['model_type']})"),
            ("Layers x width", f"{facts['layers']} x {facts['hidden_size']}"),
            ("Vocabulary", f"{facts['vocabulary']:,} tokens"),
            (
                "Longest input",
                f"{facts['max_positions']} tokens" if facts["max_positions"] else "-",
            ),
            ("Weights SHA-256", facts["sha256"][:16]),
            ("A text is", facts["represents"]),
            ("Head", ", ".join(facts["head_modules"])),
        ]
    )
    rows = [[k, f"{n:,}", f"{100 * n / total:.1f}%"] for k, n in facts["parameters"].items()]
    print_table(["Part", "Parameters", "Share"], [*rows, ["all", f"{total:,}", ""]], "Parameters")
    tokens = [
        [t["token"], str(t["id"]), "special" if t["special"] else ""] for t in facts["tokens"]
    ]
    print_table(["Token", "Id", ""], tokens, f"Tokens of: {facts['text']}")
    _lines(
        [
            ("input_ids", shapes["input_ids"]),
            ("last hidden state", f"{shapes['last_hidden_state']}  (texts, tokens, width)"),
            ("logits", f"{shapes['logits']}  (texts, classes)"),
        ]
    )
    print_table(
        ["target_modules", "adapts"],
        [[k, " ".join(v)] for k, v in facts["lora_targets"].items()],
        "What LoRA can target",
    )
    counts = [
        [
            m,
            format_parameters(c["trainable_parameters"]),
            "-" if m == "full" else format_parameters(c["adapter_parameters"]),
            format_parameters(c["head_parameters"]),
            f"{100 * c['trainable_parameters'] / c['total_parameters']:.2f}%",
        ]
        for m, c in facts["methods"].items()
    ]
    print_table(
        ["Method", "Trainable", "Adapter", "Head", "Share"],
        counts,
        "What each method trains (default settings, two classes)",
    )
