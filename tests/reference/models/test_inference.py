"""Fast scoring equals transformers (and peft) on the padded batch, for every family and shape."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from families import FAMILY_NAMES, make_family
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.models import bases, pretrained, scoring
from tunelab.models.batches import Encoded
from tunelab.models.packed import Packed

FAST = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "albert", "electra")
CPU = torch.device("cpu")
LONGEST = 62  # positions of the tiny models, less those that RoBERTa leaves out
TUNERS = ("lora", "dora", "ia3", "oft", "vera", "loha", "bitfit", "ln-tuning", "prompt-tuning",
          "prefix-tuning")  # fmt: skip


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    """Tiny models with an adapter that does something, by family and method; made once."""
    made: dict[tuple[str, str], Any] = {}

    def make(family: str, method: str) -> Any:
        if (family, method) not in made:
            folder = tmp_path_factory.mktemp("bases") / family
            base = bases.resolve(str(make_family(folder, family)))
            row = METHODS[method]
            assert row.adapt is not None
            model, _ = adapted(base, ["a", "b", "c"], row.settings(), row.adapt, seed=0)
            generator = torch.Generator().manual_seed(1)
            for p in model.parameters():
                if p.requires_grad:  # adapters start as nothing: any fault would be hidden
                    noise = torch.randn(p.shape, generator=generator)
                    p.data += 0.05 * noise
            made[family, method] = model.eval()
        return made[family, method]

    return make


def texts_of(lengths: list[int]) -> Encoded:
    rng = np.random.default_rng(0)
    return Encoded(tuple(rng.integers(5, 40, n) for n in lengths))


def one_by_one(model: Any, texts: Encoded) -> NDArray[np.float32]:
    """The model's own answer for each text alone: no batch, no padding."""
    with torch.no_grad():
        rows = [model(input_ids=torch.from_numpy(t)[None]).logits[0] for t in texts.ids]
    return torch.stack(rows).float().numpy()


ODD = [[1], [7], [1, 1, 1], [2, 30, 1, 17], [LONGEST] * 3 + [1] * 9, list(range(1, LONGEST, 6))]


@pytest.mark.parametrize(
    ("family", "method"),
    [(f, m) for f in FAMILY_NAMES for m in ("full", "lora")],
)
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_every_family_equals_its_own_model(
    family: str, method: str, precision: str, model_of: Callable[[str, str], Any]
) -> None:
    model = model_of(family, method)
    prepared = scoring.prepare(model, precision=precision)
    assert prepared.engine == ("fast" if family in FAST else "packed"), prepared.why
    texts = texts_of([n for lengths in ODD for n in lengths])
    assert prepared.merged == (method == "lora")
    # A decoder reads the last token that is no padding: by the id that its config names.
    pad_id = model.config.pad_token_id or 0
    found = prepared(texts, pad_id, batch_size=8)
    near = 1e-4 if "tiles" in prepared.precision else 1e-5
    assert near == 1e-5 or precision == "auto"
    np.testing.assert_allclose(found, one_by_one(model, texts), atol=near, rtol=near)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("method", TUNERS)
def test_every_kind_of_adapter_merged_or_not(
    method: str, merge: bool, model_of: Callable[[str, str], Any]
) -> None:
    model = model_of("bert", method)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    prepared = scoring.prepare(model, merge=merge, precision="float32")
    texts = texts_of([1, 9, 30, 2, 30])
    found = prepared(texts, pad_id=0, batch_size=4)
    np.testing.assert_allclose(found, one_by_one(model, texts), atol=1e-5, rtol=1e-5)
    if method in {"lora", "dora"}:
        assert (prepared.engine, prepared.merged) == ("fast", merge)
    # Preparing left the model as it was: the same parameters with the same values.
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)


SHAPES = st.lists(st.integers(1, LONGEST), min_size=1, max_size=24)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow,
          HealthCheck.function_scoped_fixture])  # fmt: skip
@given(lengths=SHAPES, size=st.integers(1, 70), family=st.sampled_from(FAMILY_NAMES))
def test_any_shape_and_any_batch_size(
    lengths: list[int], size: int, family: str, model_of: Callable[[str, str], Any]
) -> None:
    model = model_of(family, "lora")
    texts = texts_of(lengths)
    prepared = scoring.prepare(model, precision="float32")
    found = prepared(texts, pad_id=model.config.pad_token_id or 0, batch_size=size)
    np.testing.assert_allclose(found, one_by_one(model, texts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert", "gpt2"])
def test_what_is_packed_leaves_its_model_alone_and_many_may_ask_it(
    family: str, model_of: Callable[[str, str], Any]
) -> None:
    """Its copy shares weights; and what it kept must be of use to a training after it."""
    model = model_of(family, "full")
    texts = texts_of([1, 9, 30, 2, 31, 17])
    expected = one_by_one(model, texts)
    prepared = scoring.prepare(model)
    pad = model.config.pad_token_id or 0
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(prepared, [texts] * 16, [pad] * 16, [2] * 16):
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(one_by_one(model, texts), expected)
    model = copy.deepcopy(model).requires_grad_(True)
    packed = Packed(model)
    with packed.installed():
        packed(texts, np.arange(6))[0].sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for n, p in model.named_parameters() if "classifier" in n)
    # Nothing of it stays in memory: a training makes one in each epoch.
    seen = weakref.ref(prepared.compute._packed.model)  # type: ignore[attr-defined]
    del prepared
    assert seen() is None


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 512), max_size=300), size=st.integers(1, 100))
def test_batches_hold_every_row_once_within_their_limits(lengths: list[int], size: int) -> None:
    n = np.asarray(lengths, dtype=np.int64)
    found = scoring.batches(n, size, CPU)
    assert sorted(np.concatenate([np.empty(0, int), *found]).tolist()) == list(range(len(n)))
    for rows in found:
        assert 1 <= len(rows) <= size
        assert len(rows) == 1 or len(rows) * n[rows].max() <= scoring.TOKENS


def test_on_a_card_batches_are_larger() -> None:
    n, card = np.arange(1, 101), torch.device("cuda")
    found = scoring.batches(n, 40, card)
    assert [len(rows) for rows in found] == [40, 40, 20]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(100)[::-1])
    many = [len(rows) for rows in scoring.batches(np.full(70, 512), 64, card)]
    assert many == [scoring.TOKENS_ON_A_CARD // 512, 32, 6]


def test_padding_computed_is_at_most_two_percent_on_ordinary_lengths() -> None:
    # Lengths of Rotten Tomatoes: 27 tokens on average, longest 84.
    n = np.clip(np.random.default_rng(0).normal(27, 11, 4096), 3, 84).astype(np.int64)
    computed = sum(len(r) * int(n[r].max()) for r in scoring.batches(n, 64, CPU))
    assert computed <= 1.02 * n.sum()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_512_tokens(family: str, tmp_path: Path) -> None:
    import transformers as t

    torch.manual_seed(0)
    small: dict[str, Any] = {"vocab_size": 60, "num_labels": 2}
    model: Any = (
        t.BertForSequenceClassification(t.BertConfig(**small, hidden_size=32,
            num_hidden_layers=3, num_attention_heads=2, intermediate_size=64))
        if family == "bert"
        else t.DistilBertForSequenceClassification(t.DistilBertConfig(**small, dim=32, n_layers=3,
            n_heads=2, hidden_dim=64))
    )  # fmt: skip
    texts = texts_of([512, 1, 511, 512, 300])
    found = scoring.prepare(model.eval())(texts, pad_id=0, batch_size=64)
    np.testing.assert_allclose(found, one_by_one(model, texts), atol=1e-5)


def test_threads_side_by_side_give_the_same_and_are_put_back(
    model_of: Callable[[str, str], Any],
) -> None:
    texts = texts_of(list(range(1, LONGEST)) * 3)
    prepared = scoring.prepare(model_of("bert", "lora"))
    before = torch.get_num_threads()
    alone = prepared(texts, 0, 8)
    try:
        torch.set_num_threads(2)
        together = prepared(texts, 0, 8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("family", FAST)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_of_an_encoder(family: str, pooling: str, tmp_path: Path) -> None:
    model = pretrained.load_encoder(bases.resolve(str(make_family(tmp_path / family, family))))
    texts = texts_of([3, 1, 17, 40, 17])
    prepared = scoring.prepare_encoder(model, pooling)
    assert prepared.engine == "fast"
    found = prepared(texts, pad_id=0, batch_size=2)
    with torch.no_grad():
        own = [model(input_ids=torch.from_numpy(t)[None]).last_hidden_state[0] for t in texts.ids]
    expected = [h[0] if pooling == "cls" else h.mean(0) for h in own]
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), atol=1e-5, rtol=1e-5)


def test_no_texts_give_no_rows(model_of: Callable[[str, str], Any]) -> None:
    prepared = scoring.prepare(model_of("bert", "full"))
    assert prepared(Encoded(()), 0, 8, width=3).shape == (0, 3)


def test_bf16_is_near_and_its_head_exact(model_of: Callable[[str, str], Any]) -> None:
    model = model_of("bert", "full")
    texts = texts_of([5, 20, 33, 1])
    half = scoring.prepare(model, precision="bfloat16")
    assert half.engine == "fast"
    found, expected = half(texts, 0, 4), one_by_one(model, texts)
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_what_was_done_to_a_model_is_seen(model_of: Callable[[str, str], Any]) -> None:
    """Weights that change, and adapters switched off, make what was prepared out of date."""
    model = copy.deepcopy(model_of("bert", "lora"))
    seen = {scoring.fingerprint(model)}
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).mul_(2)
    seen.add(scoring.fingerprint(model))
    with model.disable_adapter():
        seen.add(scoring.fingerprint(model))
    assert len(seen) == 3


def test_a_model_that_computes_something_else_runs_as_it_is(
    model_of: Callable[[str, str], Any],
) -> None:
    model = copy.deepcopy(model_of("bert", "full"))
    model.bert.encoder.layer[0].output.register_forward_hook(lambda *a: a[2] * 1.5)
    hooked = scoring.prepare(model)
    assert hooked.engine == "plain"
    texts = texts_of([4, 9])
    np.testing.assert_allclose(hooked(texts, 0, 2), one_by_one(model, texts), atol=1e-5)
    # A module that is not looked at: seen by what comes out.
    other = copy.deepcopy(model_of("bert", "full"))
    other.bert.register_forward_hook(
        lambda _m, _i, out: type(out)(last_hidden_state=out[0] * 1.5, pooler_output=out[1] * 2)
    )
    assert scoring.prepare(other).engine == "plain"


def test_windows_change_nothing(
    model_of: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = scoring.prepare(model_of("bert", "lora"), precision="float32")
    texts = texts_of([3, 9, 1, 30, 2, 2, 17])
    whole = prepared(texts, 0, 8)

    def score(some: Any) -> NDArray[np.float32]:
        return prepared(Encoded(tuple(some)), 0, 8, width=3)

    for size in (1, 2, 7, 8):
        monkeypatch.setattr(scoring, "TEXTS_TOKENIZED_AT_A_TIME", size)
        found = scoring.texts_in_windows(texts.ids, score)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, whole, atol=1e-6)
    assert scoring.texts_in_windows([], score).shape == (0, 3)
