"""The lowest point of a function of one number, without scipy, whose import takes longer."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["lowest_between"]

_GOLDEN = 0.5 * (3.0 - math.sqrt(5.0))
_LEAST_STEP, _CLOSE_ENOUGH, _MOST_CALLS = math.sqrt(2.2e-16), 1e-5, 500


def lowest_between(low: float, high: float, of: Callable[[float], float]) -> float:
    """Where `of` is lowest within the bounds, by parabolas and golden sections (Brent 1973).

    Step by step as scipy.optimize.minimize_scalar(method="bounded"), so that it gives the same.
    """
    best = second = third = low + _GOLDEN * (high - low)
    f_best = f_second = f_third = of(best)
    step = before = 0.0
    for _ in range(1, _MOST_CALLS):
        middle = 0.5 * (low + high)
        tolerance = _LEAST_STEP * abs(best) + _CLOSE_ENOUGH / 3.0
        if abs(best - middle) <= 2.0 * tolerance - 0.5 * (high - low):
            break
        parabola = None
        if abs(before) > tolerance:
            r = (best - second) * (f_best - f_third)
            q = (best - third) * (f_best - f_second)
            p = (best - third) * q - (best - second) * r
            q = 2.0 * (q - r)
            p, q = -p if q > 0.0 else p, abs(q)
            r, before = before, step
            if abs(p) < abs(0.5 * q * r) and q * (low - best) < p < q * (high - best):
                parabola = p / q
        if parabola is None:
            before = low - best if best >= middle else high - best
            step = _GOLDEN * before
        else:
            x = best + parabola
            edge = x - low < 2.0 * tolerance or high - x < 2.0 * tolerance
            step = (tolerance if middle >= best else -tolerance) if edge else parabola
        x = best + (1 if step >= 0 else -1) * max(abs(step), tolerance)
        f = of(x)
        if f <= f_best:
            low, high = (best, high) if x >= best else (low, best)
            third, f_third, second, f_second = second, f_second, best, f_best
            best, f_best = x, f
        else:
            low, high = (x, high) if x < best else (low, x)
            if f <= f_second or second == best:
                third, f_third, second, f_second = second, f_second, x, f
            elif f <= f_third or third in {best, second}:
                third, f_third = x, f
    return best
