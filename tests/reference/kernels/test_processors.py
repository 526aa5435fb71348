"""The kernels as other processors have them: each variant is built here and held to the same tests.

Variants of fewer instructions run wherever those of more do. Matrix tiles (AMX) are emulated in
`amx.h` where the processor multiplies pairs of bfloat16.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunelab.kernels.build import build, compiler, processor

HERE = Path(__file__).parent
NO_TILES = ["-mno-amx-bf16", "-mno-amx-int8", "-mno-amx-tile"]
# What computes in float32 and in bfloat16, what the processor needs, and how the library is built.
WIDE, TILES = "compiled, wide vectors", "compiled, matrix tiles"
VARIANTS = {
    "matrix tiles": (WIDE, TILES, "avx512_bf16", ["-include", str(HERE / "amx.h")]),
    "pairs of bfloat16": (WIDE, WIDE, "avx512_bf16", NO_TILES),
    "wide vectors": (WIDE, "compiled", "avx512bw", [*NO_TILES, "-mno-avx512bf16"]),
    "vectors": ("compiled", "compiled", "avx2", ["-march=x86-64-v3"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    *computes, needs, flags = VARIANTS[name]
    if needs.encode() not in processor().split() or compiler() is None:
        pytest.skip(f"this processor has no {needs}, or there is no compiler")
    built = tmp_path / "kernels.so"
    build(built, flags)
    environment = {**os.environ, "TUNELAB_KERNELS": str(built)}
    code = (
        "import torch\n"
        "from tunelab.kernels.library import built\n"
        "print(built(torch.float32), built(torch.bfloat16), sep='; ')"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "; ".join(computes)
    parts = (
        "kernels/test_fused",
        "kernels/test_kernels",
        "models/test_inference",
        "models/test_packing",
    )
    tests = [HERE.parent / f"{part}.py" for part in parts]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
         "-m", "not slow and not gpu", *map(str, tests)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
