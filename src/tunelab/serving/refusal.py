"""Why a request is not answered, in the server's own words; each protocol says it in its form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunelab.core.errors import TunelabError

__all__ = [
    "Fault",
    "Limits",
    "Refusal",
]


Fault = Literal[
    "empty",  # no text
    "invalid",  # a body, a field or a text that cannot be read
    "no_tokens",  # of a model that reads texts without a tokenizer
    "too_long",  # a text of more tokens than the model reads, and it may not be cut
    "too_many",  # texts in one request
    "too_large",  # bytes in one request
    "unknown",  # no such model
    "exists",  # a model of this name is there already
    "forbidden",  # a path outside of what may be loaded
    "unauthorized",  # no key, or a wrong one
    "overloaded",  # too many tokens are waiting
    "failed",  # our fault
    "stopping",  # the server is going away
]


class Refusal(TunelabError):  # noqa: N818  it is no error of the server's
    """A request that is not answered. `retry_after`: seconds, where waiting helps."""

    def __init__(self, fault: Fault, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken at once.

    `body`: bytes of a request. `texts`: of a request. `batch_tokens`: what is computed together; a
    longer text is computed alone. `queued_tokens`: how many may wait before requests are refused.
    """

    body: int = 2_000_000
    texts: int = 32
    batch_tokens: int = 16_384
    queued_tokens: int = 262_144
