"""Which number format a processor trains fastest in, found out by running it once.

bfloat16 pays where the processor multiplies it in hardware; on some others, float32 products are
much faster through oneDNN than through MKL. Both are tried for speed and error, the answer is kept
in the user's cache for this machine, and it is recorded with each result.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from tunelab.core import cache
from tunelab.kernels import build

__all__ = [
    "Choice",
    "choose",
    "fastest",
    "float32_route",
]


# A product of a small model: 512 tokens, 384 -> 1,536.
_SHAPE = (512, 384, 1536)
# bfloat16 has 8 bits: one product of random numbers is off by 0.2%. More means something is wrong.
_MOST_ERROR = {"bfloat16": 0.01, "onednn": 1e-5}
# Below this, casts and rounding are not worth it.
_LEAST_GAIN = {"bfloat16": 1.3, "onednn": 1.15}


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` means on this machine: `dtype` of activations and frozen weights, `route` of
    float32 products (mkl or onednn), why, and the measured figures (products a second, relative to
    float32 as shipped; relative error).
    """

    dtype: str
    route: str
    reason: str
    speed: dict[str, float]
    error: dict[str, float]


def choose() -> Choice:
    """The fastest format whose error is what it should be; measured once for a machine."""
    return _choose(torch.get_num_threads())


@functools.cache
def _choose(threads: int) -> Choice:
    kept = cache.machine_folder() / f"precision-{_machine_key(threads)}.json"
    known = cache.kept_json(kept)
    if known is not None:
        return Choice(**known)
    choice = fastest(*_measure())
    cache.keep_json(kept, asdict(choice), bounded=False)
    return choice


def fastest(speed: dict[str, float], error: dict[str, float]) -> Choice:
    """Decide from figures: speed relative to float32 as shipped, and relative error."""
    gain = {k: speed[k] for k in _LEAST_GAIN}
    route = "mkl"
    if gain["onednn"] >= _LEAST_GAIN["onednn"] and error["onednn"] <= _MOST_ERROR["onednn"]:
        route = "onednn"
    against = gain["onednn"] if route == "onednn" else 1.0
    said = f"bfloat16 products {gain['bfloat16'] / against:.1f}x as fast as float32"
    if error["bfloat16"] > _MOST_ERROR["bfloat16"]:
        said = f"bfloat16 products are off by {error['bfloat16']:.1%}"
    elif gain["bfloat16"] >= _LEAST_GAIN["bfloat16"] * against:
        return Choice("bfloat16", route, said, speed, error)
    return Choice("float32", route, said, speed, error)


def _measure() -> tuple[dict[str, float], dict[str, float]]:
    """Speed and error of the candidates; under 1 s, interleaved, the best of each counts."""
    tokens, wide, out = _SHAPE
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, wide, generator=generator)
    w = torch.randn(out, wide, generator=generator) / wide**0.5
    exact = functional.linear(x.double(), w.double())
    narrow = (x.bfloat16(), w.bfloat16())

    def onednn() -> torch.Tensor:
        with float32_route("onednn"):
            return functional.linear(x, w)

    candidates: dict[str, Callable[[], torch.Tensor]] = {
        "float32": lambda: functional.linear(x, w),
        "onednn": onednn,
        "bfloat16": lambda: functional.linear(*narrow),
    }
    best = dict.fromkeys(candidates, float("inf"))
    error: dict[str, float] = {}
    with torch.no_grad():
        for name, run in candidates.items():
            for _ in range(3):
                got = run()
            error[name] = float((got.double() - exact).norm() / exact.norm())
        until = time.perf_counter() + 0.4
        while time.perf_counter() < until:
            for name, run in candidates.items():
                started = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - started)
    return {k: best["float32"] / v for k, v in best.items()}, error


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


def _machine_key(threads: int) -> str:
    parts = [build.processor(), torch.__version__.encode(), str(threads).encode(), b"2"]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
