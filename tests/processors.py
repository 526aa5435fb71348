"""Marks of tests that need a kind of processor."""

from __future__ import annotations

import pytest
import torch

from tunelab.kernels import library

on_tiles = pytest.mark.skipif(
    library.pick("product", torch.empty(0)) is None,
    reason="this processor has no matrix tiles, or there is no compiler",
)
in_bfloat16 = pytest.mark.skipif(
    library.pick("sublayers", torch.empty(0, dtype=torch.bfloat16)) is None,
    reason="this processor multiplies no pairs of bfloat16, or there is no compiler",
)
on_vectors = pytest.mark.skipif(
    library.pick("panels", torch.empty(0)) is None,
    reason="this processor has no wide vectors, or there is no compiler",
)
