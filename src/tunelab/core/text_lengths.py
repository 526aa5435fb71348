"""How long training texts are in a model's tokens, and what a limit on them cuts and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "SHARE_WHOLE",
    "TokenLimit",
    "TextLengths",
    "text_lengths_from_json",
]

SHARE_WHOLE = 0.95  # `max_length: auto` keeps so many texts whole, and more cut ones are warned of


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """Texts read up to so many `tokens`.

    `cut`: the share of training texts that are longer. `cost`: about how many times the training
    time of 128 tokens.
    """

    tokens: int
    cut: float
    cost: float


@dataclass(frozen=True, slots=True)
class TextLengths:
    """What limits do to the `rows` training texts of a study, read in the tokens of `model`.

    Of these, `counted` were counted, evenly spaced. `positions`: the longest text that the model
    reads, None where it has no end. `limits`, rising: those of the study's methods, and the one
    that would keep 95% of texts whole, or is the longest possible. `chosen`: which of them were
    chosen for these texts (`max_length: auto`), `kept`: which the study was begun with.
    """

    model: str
    positions: int | None
    rows: int
    counted: int
    limits: Sequence[TokenLimit]
    chosen: Sequence[int] = ()
    kept: Sequence[int] = ()

    def at(self, tokens: int) -> TokenLimit:
        """What is known of a limit."""
        return next(limit for limit in self.limits if limit.tokens == tokens)

    def to_json(self) -> dict[str, object]:
        """The content of lengths.json."""
        return {**asdict(self), "limits": [asdict(limit) for limit in self.limits]}


def text_lengths_from_json(value: Mapping[str, Any]) -> TextLengths:
    """What `to_json` wrote."""
    return TextLengths(
        value["model"],
        value["positions"],
        value["rows"],
        value["counted"],
        tuple(TokenLimit(**limit) for limit in value["limits"]),
        tuple(value["chosen"]),
        tuple(value["kept"]),
    )
