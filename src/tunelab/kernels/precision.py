"""Which number format a processor trains in when nobody says: by what it has, never by a clock.

bfloat16 pays where the processor multiplies it in hardware, and on AMD's without that, float32
products are faster through oneDNN than through MKL. A timing would fall out otherwise beside other
work, and results with it. Both are tried for their error, which is the same each time; what was
taken is recorded with each result.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tunelab.core import machine

__all__ = [
    "Choice",
    "Errors",
    "choose",
    "decide",
    "float32_route",
]


# A product of a small model: 512 tokens, 384 -> 1,536.
_SHAPE = (512, 384, 1536)
# bfloat16 has 8 bits: one product of random numbers is off by 0.2%. More means something is wrong.
_MOST_BFLOAT16, _MOST_ONEDNN = 0.01, 1e-5


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` means on this machine: `dtype` of activations and frozen weights, why, and the
    `route` of float32 products (mkl or onednn).
    """

    dtype: str
    reason: str
    route: str


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a product is off, as a share of the exact one: in bfloat16, and in float32 through
    oneDNN, which takes bfloat16 for it where the processor has that.
    """

    bfloat16: float
    onednn: float


@functools.cache
def choose() -> Choice:
    """The fastest format whose error is what it should be: the same whenever it is asked."""
    return decide(machine.multiplies_bfloat16(), machine.is_amd(), _errors())


def decide(has_bfloat16: bool, amd: bool, errors: Errors) -> Choice:
    """Decide from what the processor says of itself, and from the errors of its products."""
    route = "onednn" if amd and errors.onednn <= _MOST_ONEDNN else "mkl"
    if not has_bfloat16:
        return Choice("float32", "the processor does not multiply bfloat16", route)
    if errors.bfloat16 > _MOST_BFLOAT16:
        why = f"bfloat16 products are off by {errors.bfloat16:.1%}"
        return Choice("float32", why, route)
    return Choice("bfloat16", "the processor multiplies bfloat16", route)


def _errors() -> Errors:
    tokens, wide, out = _SHAPE
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, wide, generator=generator)
    w = torch.randn(out, wide, generator=generator) / wide**0.5
    exact = functional.linear(x.double(), w.double())

    def error(product: torch.Tensor) -> float:
        return float((product.double() - exact).norm() / exact.norm())

    with torch.no_grad():
        narrow = functional.linear(x.bfloat16(), w.bfloat16())
        with float32_route("onednn"):
            return Errors(error(narrow), error(functional.linear(x, w)))


@contextlib.contextmanager
def float32_route(route: str) -> Iterator[None]:
    """While inside, float32 products go through MKL as shipped, or through oneDNN."""
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    try:
        if route == "onednn":
            settings.fp32_precision = "bf16"
        yield
    finally:
        settings.fp32_precision = before
