"""The lowest point of a function, against scipy's search, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tunelab.stats.brent import lowest_between

FUNCTIONS: list[Callable[[float], float]] = [
    lambda x: (x - 0.3) ** 2,
    lambda x: x,
    lambda x: -x,
    lambda x: 1.0,
    lambda x: abs(x + 1.7),
    lambda x: math.cosh(x - 1) + 0.1 * x,
    lambda x: math.sin(5 * x),
    lambda x: math.exp(-x) + 0.01 * x**2,
]


@pytest.mark.parametrize("function", range(len(FUNCTIONS)))
@pytest.mark.parametrize("bounds", [(-3.0, 3.0), (-0.2, 5.0), (1.0, 1.5)])
def test_it_finds_what_scipy_finds(function: int, bounds: tuple[float, float]) -> None:
    of = FUNCTIONS[function]
    asked: list[float] = []

    def noted(x: float) -> float:
        asked.append(float(x))
        return of(x)

    ours = lowest_between(*bounds, noted)
    mine = asked.copy()
    asked.clear()
    theirs = minimize_scalar(noted, bounds=bounds, method="bounded")
    assert mine == asked
    assert ours == theirs.x


def test_it_finds_a_temperature_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50, 3)) * 4, rng.integers(0, 3, 50)

    def loss(log_t: float) -> float:
        s = z / math.exp(log_t)
        return float((np.log(np.exp(s).sum(axis=1)) - s[np.arange(50), y]).mean())

    assert lowest_between(-3, 3, loss) == minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
