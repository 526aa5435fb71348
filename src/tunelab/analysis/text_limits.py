"""What methods read of long texts, in words: how many are cut, and what a longer limit costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tunelab.analysis.numbers import format_percent
from tunelab.analysis.verdict import joined_by_and
from tunelab.core.text_lengths import SHARE_WHOLE, TextLengths, TokenLimit
from tunelab.core.values import MethodSpec
from tunelab.core.words import first_names

__all__ = [
    "labels_by_limit",
    "lines_of_limits",
    "warnings_of_limits",
]


def labels_by_limit(methods: Iterable[MethodSpec]) -> dict[int, list[str]]:
    """Labels of the methods that read texts up to each limit in tokens."""
    out: dict[int, list[str]] = {}
    for m in methods:
        limit = m.settings.get("max_length")
        if isinstance(limit, int):
            out.setdefault(limit, []).append(m.label)
    return out


def lines_of_limits(lengths: TextLengths | None, labels: Mapping[int, Sequence[str]]) -> list[str]:
    """Before a run, a line for each limit: what it cuts, what it costs, what a longer one would."""
    if lengths is None:
        return []
    out = []
    for tokens in sorted(labels):
        limit = lengths.at(tokens)
        whence = " (auto)" if tokens in lengths.chosen else ""
        whence = " (as this study was begun)" if tokens in lengths.kept else whence
        line = f"{', '.join(first_names(labels[tokens]))}: up to {tokens:,} tokens{whence}"
        if limit.cost >= 1.05:
            line += f", {_factor_in_words(limit.cost)} the training time of 128"
        parts = (line, _cut_in_words(lengths, limit), _longer_in_words(lengths, limit))
        out.append("; ".join(filter(None, parts)))
    return out


def warnings_of_limits(
    lengths: TextLengths | None, labels: Mapping[int, Sequence[str]]
) -> list[str]:
    """After a run: each limit that cuts more than 5% of the training texts."""
    if lengths is None:
        return []
    said = []
    for tokens in sorted(set(labels) & {limit.tokens for limit in lengths.limits}):
        limit, who = lengths.at(tokens), labels[tokens]
        if limit.cut <= 1 - SHARE_WHOLE:
            continue
        read = f"{joined_by_and(first_names(who))} {'reads' if len(who) == 1 else 'read'}"
        longer = _longer_in_words(lengths, limit)
        said.append(
            f"{read} no more than {tokens:,} tokens of a text: {_cut_in_words(lengths, limit)}, "
            f"and what follows is not read.{longer and f' {longer[:1].upper()}{longer[1:]}.'}"
        )
    return said


def _cut_in_words(lengths: TextLengths, limit: TokenLimit) -> str:
    of = f"{lengths.rows:,} training texts"
    if lengths.counted < lengths.rows:
        of += f" (by {lengths.counted:,} of them)"
    if not limit.cut:
        return f"none of {of} is longer"
    return f"{format_percent(limit.cut)}% of {of} are longer"


def _longer_in_words(lengths: TextLengths, limit: TokenLimit) -> str:
    """What more tokens would do, where more than 5% are cut; nothing where few are."""
    if limit.cut <= 1 - SHARE_WHOLE:
        return ""
    longer = lengths.limits[-1]
    if lengths.positions is not None and limit.tokens >= lengths.positions:
        return "the model reads no more"
    if longer.tokens <= limit.tokens:
        return ""
    cut = "none" if not longer.cut else f"{format_percent(longer.cut)}%"
    return (
        f"--max-length {longer.tokens} would cut {cut}, for about "
        f"{_factor_in_words(longer.cost / limit.cost)} the training time"
    )


def _factor_in_words(factor: float) -> str:
    return f"{factor:.1f} times"
