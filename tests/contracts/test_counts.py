"""Trainable numbers of every method equal the closed form, adapter and head apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from families import make_family
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.models import bases, parts

H, F, LAYERS, CLASSES, V, R = 32, 64, 2, 3, 4, 8
# (in, out) of each adapted layer in a block, and what is particular to each family.
SHAPES = {
    "bert": [(H, H)] * 4 + [(H, F), (F, H)],
    "gpt2": [(H, 3 * H), (H, H), (H, 4 * H), (4 * H, H)],
    "llama": [(H, H)] * 4 + [(H, F)] * 2 + [(F, H)],
}
HEAD = {"bert": CLASSES * (H + 1), "gpt2": CLASSES * H, "llama": CLASSES * H}
BIASES = {
    "bert": LAYERS * (4 * H + F + H + 2 * H) + H + H,  # layers; embeddings' norm; pooler
    "gpt2": LAYERS * (3 * H + H + 4 * H + H + 2 * H) + H,
}
NORMS = {
    "bert": (2 * LAYERS + 1) * 2 * H,
    "gpt2": (2 * LAYERS + 1) * 2 * H,
    "llama": 2 * LAYERS * H,
}
# Keys and values by their outputs, the feed-forward part's last layer by its input.
SCALED = {"bert": 2 * H + F, "gpt2": 3 * H + 4 * H, "llama": 2 * H + F}


def per_layer(family: str, count: Any) -> int:
    return LAYERS * sum(count(i, o) for i, o in SHAPES[family])


def lora(family: str, r: int = R) -> int:
    return per_layer(family, lambda i, o: r * (i + o))


def kronecker(i: int, o: int) -> int:
    """C (a, b) times B A of rank 8 or the whole (o/a, i/b); a and b the nearest to the roots."""

    def factor(n: int) -> int:
        return max(f for f in range(1, n + 1) if n % f == 0 and f * f <= n)

    a, b = factor(o), factor(i)
    left, right = o // a, i // b
    return a * b + (R * (left + right) if max(left, right) / 2 > R else left * right)


CLOSED: dict[str, Any] = {
    "probe": lambda f: 0,
    "bitfit": lambda f: BIASES[f],
    **dict.fromkeys(
        ("lora", "rslora", "pissa", "olora", "eva", "lora-plus", "qlora-8bit", "qlora-4bit"), lora
    ),
    "dora": lambda f: lora(f) + per_layer(f, lambda i, o: o),
    "lora-fa": lambda f: per_layer(f, lambda i, o: R * o),
    "adalora": lambda f: per_layer(f, lambda i, o: 6 * (i + o + 1)),
    "ia3": lambda f: LAYERS * SCALED[f],
    "vera": lambda f: per_layer(f, lambda i, o: o + R),
    "loha": lambda f: 2 * lora(f),
    "lokr": lambda f: per_layer(f, kronecker),
    "oft": lambda f: per_layer(f, lambda i, o: i // 16 * (16 * 15 // 2)),
    "fourierft": lambda f: per_layer(f, lambda i, o: 100),
    "ln-tuning": lambda f: NORMS[f],
    "peft": lora,
    "prompt-tuning": lambda f: V * H,
    "p-tuning": lambda f: V * H + (H * 16 + 16) + (16 * 16 + 16) + (16 * H + H),
    "prefix-tuning": lambda f: V * LAYERS * 2 * H,
}
SMALL: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 6, "target_r": 3}, "vera": {"r": R}, "oft": {"oft_block_size": 16},
    "fourierft": {"n_frequency": 100}, "prompt-tuning": {"num_virtual_tokens": V},
    "p-tuning": {"num_virtual_tokens": V, "encoder_hidden_size": 16},
    "prefix-tuning": {"num_virtual_tokens": V},
}  # fmt: skip
PAIRS = [(m, f) for m in [*CLOSED, "full"] for f in SHAPES if f not in METHODS[m].refused]


def test_every_method_has_a_closed_form() -> None:
    assert {"full", *CLOSED} == {m.name for m in METHODS.values() if m.adapt}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("counts")
    for family in SHAPES:
        make_family(path / family, family)
    return path


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_counts_equal_the_closed_form(method: str, family: str, folder: Path) -> None:
    base = bases.resolve(str(folder / family))
    row = METHODS[method]
    assert row.adapt
    settings = row.settings(**SMALL.get(method, {}))
    model, head = adapted(base, ["a", "b", "c"], settings, row.adapt, seed=0)
    counts = parts.parameter_counts(model, head)
    assert counts["head_parameters"] == HEAD[family]
    if method == "full":
        assert counts["trainable_parameters"] == counts["total_parameters"]
        return
    assert counts["adapter_parameters"] == CLOSED[method](family)
    assert counts["trainable_parameters"] == HEAD[family] + CLOSED[method](family)
