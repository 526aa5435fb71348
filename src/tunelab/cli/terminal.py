"""Cards and tables for the terminal (rich). Prints; computes nothing."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tunelab.analysis.numbers import format_parameters
from tunelab.cli.streams import ReaderGoneError, printable, styled

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


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table when piped."""
    width = None if sys.stdout.isatty() else _WIDTH_OF_NO_TERMINAL
    return GuardedConsole(file=styled(sys.stdout), width=width)


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
) -> None:
    """Print a table: the first column to the left, the others to the right.

    What is wider than the terminal goes on below, under the first column again; a pipe has no end.
    """
    out = console()
    if title:
        say(out, title, style="bold")
    for columns in _columns_by_table(headings, rows, out.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for i in columns:
            # Set by us: a heading of two words stands in two lines, and no word is cut.
            table.add_column(
                Text(headings[i]),
                justify="left" if i == 0 else "right",
                overflow="fold",
                width=min(_width(i, headings, rows), out.width // 2),
            )
        for row in rows:
            # Cells are users' texts: shown as they are, never read as markup.
            table.add_row(*(Text(str(row[i])) for i in columns))
        out.print(table)
        out.print()


def _width(i: int, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Least width of a column: its widest cell, or the longest word of its heading."""
    return max(cell_len(w) for w in ("", *headings[i].split(), *(str(row[i]) for row in rows)))


def _columns_by_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[list[int]]:
    """Columns of each table, so that none is wider than `width`; each begins with the first."""
    blocks, used = [[0]], _width(0, headings, rows)
    for i in range(1, len(headings)):
        wide = _width(i, headings, rows) + 3  # what stands between two columns
        if used + wide > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = _width(0, headings, rows)
        blocks[-1].append(i)
        used += wide
    return blocks


def say(out: Console, text: str, indent: int = 0, style: str = "") -> None:
    """Print a text: wrapped between words in a terminal, one line elsewhere. Never markup.

    `indent` is where the second and later lines begin.
    """
    if out.is_terminal:
        text = textwrap.fill(
            text,
            max(20, out.width),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


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
    rows = [
        [name, *(f"{counts[p][name]:,} ({100 * counts[p][name] / sizes[p]:.0f}%)" for p in sizes)]
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
    samples = [[name, " ".join(t.split())] for name, ts in facts["samples"].items() for t in ts]
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
    for label, text in rows:
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
