"""Every method x every family through one contract, on tiny random models.

A pair either keeps all of it or is refused before training with a line that names what can.
"""

from __future__ import annotations

import copy
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import DECODERS, FAMILY_NAMES, make_family
from tunelab.core.errors import InputError
from tunelab.core.values import MethodSpec, Seeds, Split
from tunelab.methods import METHODS, Outcome, Task, check, fit_alone
from tunelab.methods.scaling import PEFT_TYPES, REFUSED_TYPES
from tunelab.models import bases, pretrained, text_classifier
from tunelab.models.families import FAMILIES

NEURAL = [m.name for m in METHODS.values() if m.adapt]
# What a 32-wide model needs: smaller sizes, and rates at which so small a model learns in a second.
SMALL: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 3e-3},
    "probe": {"learning_rate": 5e-2},
    "bitfit": {"learning_rate": 5e-2},
    "lora-plus": {"learning_rate": 2e-3},
    "adalora": {"init_r": 6, "target_r": 3, "learning_rate": 2e-2},
    "vera": {"r": 16, "learning_rate": 5e-2},
    "ia3": {"learning_rate": 5e-2},
    "lokr": {"learning_rate": 3e-2},
    "fourierft": {"n_frequency": 200, "scaling": 30.0, "learning_rate": 3e-2},
    "olora": {"learning_rate": 5e-3},
    "oft": {"oft_block_size": 16},
    "ln-tuning": {"learning_rate": 5e-2},
    "prompt-tuning": {"num_virtual_tokens": 4, "learning_rate": 5e-2},
    "p-tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16, "learning_rate": 5e-2},
    "prefix-tuning": {"num_virtual_tokens": 4, "learning_rate": 5e-2},
}  # fmt: skip
REFUSED = {
    ("bitfit", "modernbert"), ("bitfit", "llama"), ("bitfit", "mistral"), ("bitfit", "qwen3"),
    ("olora", "gpt2"), ("loha", "gpt2"), ("lokr", "gpt2"), ("oft", "gpt2"),
    ("p-tuning", "modernbert"), ("eva", "deberta-v2"),
    *((m, f) for m in ("prompt-tuning", "p-tuning") for f in DECODERS),
    *(("prefix-tuning", f) for f in FAMILY_NAMES if f not in DECODERS),
}  # fmt: skip
# Of so small a random model these train a few hundred numbers, too few to fit every text.
WEAK = {
    "probe", "bitfit", "ia3", "vera", "fourierft", "ln-tuning", "prompt-tuning", "p-tuning",
    "prefix-tuning", "lokr", "TINYLORA", "UNILORA", "ROAD", "C3A", "VBLORA", "DELORA", "WAVEFT",
    "SHIRA", "PVERA", "RANDLORA", "BEFT", "SUPERTUNING",
}  # fmt: skip
# The whole base is trained, or there is nothing that could be folded into it.
NOT_MERGED = {
    "full", "probe", "bitfit", "qlora-8bit", "qlora-4bit", "prompt-tuning", "p-tuning",
    "prefix-tuning",
}  # fmt: skip
QUICK = {("lora", f) for f in FAMILY_NAMES} | {("full", f) for f in FAMILY_NAMES}
QUICK |= {("probe", f) for f in FAMILY_NAMES} | {(m, "bert") for m in NEURAL} | REFUSED
LABELS = ("bad, really", "good")


def _texts() -> Split:
    """32 short texts of differing length; each has one word that tells its class."""
    rng = np.random.default_rng(0)
    plain = ["film", "plot", "scene", "actor", "the", "a", "and", "is"]
    tell = (("bad", "dull"), ("good", "warm"))
    labels = np.arange(32) % 2
    texts = [
        " ".join([*rng.choice(plain, 1 + i % 5), tell[y][i % 4 // 2], tell[y][i % 4 // 2]])
        for i, y in enumerate(labels)
    ]
    return Split(tuple(map(str, range(32))), tuple(texts), labels)


TEXTS = _texts()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bases.Base]:
    folder = tmp_path_factory.mktemp("families")

    @cache
    def base_of(family: str) -> bases.Base:
        return bases.resolve(str(make_family(folder / family, family)))

    return base_of


def settings_of(method: str, epochs: int = 25, **more: Any) -> dict[str, Any]:
    return {
        "num_train_epochs": epochs, "max_length": 16, "per_device_train_batch_size": 8,
        "metric_for_best_model": "loss", "weight_decay": 0.0, "learning_rate": 1e-2,
        **SMALL.get(method, {}), **more,
    }  # fmt: skip


def train(method: str, base: bases.Base, settings: dict[str, Any]) -> Outcome:
    row = METHODS[method]
    check(base, MethodSpec(method, method, settings))
    return fit_alone(
        row, Task(LABELS, TEXTS, TEXTS, base, row.settings(**settings), Seeds(1, 2, 3), "accuracy",
             lambda _: None)
    )  # fmt: skip


def pairs() -> list[Any]:
    def marks(method: str, family: str) -> list[Any]:
        return [] if (method, family) in QUICK else [pytest.mark.slow]

    return [
        pytest.param(m, f, marks=marks(m, f), id=f"{m}-{f}") for m in NEURAL for f in FAMILY_NAMES
    ]


@pytest.mark.parametrize(("method", "family"), pairs())
def test_contract(
    method: str, family: str, tiny: Callable[[str], bases.Base], tmp_path: Path
) -> None:
    base = tiny(family)
    if (method, family) in REFUSED:
        refused_by_name(method, family, base)
        return
    # ELECTRA's embeddings are half as wide here, so a prompt has half as many numbers.
    narrow = family == "electra" and method in {"prompt-tuning", "p-tuning"}
    outcome = train(method, base, settings_of(method, **({"epochs": 40} if narrow else {})))
    keeps_contract(method, base, outcome, tmp_path)
    same_spec_twice_is_equal(method, base, settings_of(method, epochs=2))


KWARGS: dict[str, dict[str, Any]] = {
    "MISS": {"r": 8}, "SHIRA": {"r": 4}, "C3A": {"block_size": 16}, "ROAD": {"group_size": 16},
    "WAVEFT": {"n_frequency": 200}, "VBLORA": {"vector_length": 16, "num_vectors": 32},
    "DELORA": {"delora_lambda": 3}, "UNILORA": {"theta_d_length": 512}, "ADAMSS": {"r": 16},
}  # fmt: skip
# Others diverge at the rate that most of them learn at.
RATES = {"WAVEFT": 1e-2, "TINYLORA": 3e-3, "GRALORA": 3e-3, "RANDLORA": 1e-2}


@pytest.mark.slow
@pytest.mark.parametrize("peft_type", PEFT_TYPES)
def test_other_types_of_peft(
    peft_type: str, tiny: Callable[[str], bases.Base], tmp_path: Path
) -> None:
    settings = settings_of("peft", 40, peft_type=peft_type, peft_kwargs=KWARGS.get(peft_type, {}),
                           learning_rate=RATES.get(peft_type, 3e-2))  # fmt: skip
    outcome = train("peft", tiny("bert"), settings)
    keeps_contract(peft_type, tiny("bert"), outcome, tmp_path)


def test_every_type_of_peft_passes_or_is_refused_with_a_reason(
    tiny: Callable[[str], bases.Base],
) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    own = {"ADALORA", "FOURIERFT", "IA3", "LN_TUNING", "LOHA", "LOKR", "OFT", "VERA",
           "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"}  # fmt: skip
    there = {str(k.value) for k in PEFT_TYPE_TO_CONFIG_MAPPING} - own
    assert there == {*PEFT_TYPES, *REFUSED_TYPES}
    for name, why in REFUSED_TYPES.items():
        with pytest.raises(ValueError, match=re.escape(f"another type ({why})")):
            METHODS["peft"].settings(**{"peft_type": name})
    with pytest.raises(InputError, match=r"r is 100, but a layer of .* is 32 wide"):
        check(tiny("bert"), MethodSpec("peft", "peft", {"peft_type": "ADAMSS"}))


# --- the contract ---------------------------------------------------------------------------


def refused_by_name(method: str, family: str, base: bases.Base) -> None:
    with pytest.raises(InputError, match=f"{method} cannot run on") as e:
        check(base, MethodSpec(method, method, settings_of(method)))
    line = str(e.value)
    able = line.partition("What can: ")[2]
    assert "lora" in able
    assert f" {method}," not in f" {able},"
    assert METHODS[method].refused[family] in line
    assert "\n" not in line


def keeps_contract(method: str, base: bases.Base, outcome: Outcome, folder: Path) -> None:
    from dataclasses import replace

    classifier: Any = replace(outcome.classifier, precision="float32")  # type: ignore[type-var]
    scores = classifier.scores(TEXTS.texts)
    overfits(method, scores)
    only_declared_is_trained(method, base, classifier.model, outcome)
    # Padding and batch size do not change a score.
    alone = np.concatenate([classifier.scores([t]) for t in TEXTS.texts])
    np.testing.assert_allclose(alone, scores, atol=1e-5)
    merges(method, classifier, scores)
    loads_again(classifier, scores, folder)


def overfits(method: str, scores: np.ndarray) -> None:
    wrong = int((scores.argmax(1) != TEXTS.labels).sum())
    # Chance leaves 8 or fewer wrong once in 280 times.
    assert wrong <= (8 if method in WEAK else 1), f"{wrong} of 32 training texts wrong"


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def only_declared_is_trained(method: str, base: bases.Base, model: Any, outcome: Outcome) -> None:
    """Frozen weights are bit for bit the base's; the counted trainable ones are those that are."""
    from safetensors.torch import load_file

    named = dict(model.named_parameters())
    trainable = sum(p.numel() for p in named.values() if p.requires_grad)
    # PiSSA and OLoRA train rank r and are saved as a plain LoRA of rank 2r on the same base.
    grown = outcome.counts["adapter_parameters"] if "saved_rank" in outcome.details else 0
    assert trainable == outcome.counts["trainable_parameters"] + (grown or 0)
    before = load_file(base.path / "model.safetensors")
    frozen = {
        n.replace("base_layer.", "").replace("original_module.", ""): p
        for n, p in named.items()
        if not p.requires_grad
    }
    compared = 0
    for key, tensor in before.items():
        for name, p in frozen.items():
            if not (name == key or name.endswith("." + key)) or p.dtype != tensor.dtype:
                continue
            if method in ("pissa", "olora"):  # taken out of the weight, then put back: rounding
                torch.testing.assert_close(p, tensor, atol=1e-5, rtol=0)
            else:
                assert digest(p) == digest(tensor), f"{name} was frozen and has changed"
            compared += 1
    assert compared or method == "full"


def merges(method: str, classifier: Any, scores: np.ndarray) -> None:
    if method in NOT_MERGED:
        return
    from dataclasses import replace

    before = {n: digest(p) for n, p in classifier.model.named_parameters()}
    once = copy.deepcopy(classifier.model)
    once.merge_adapter(safe_merge=True)
    merged = replace(classifier, model=once).scores(TEXTS.texts)
    np.testing.assert_allclose(merged, scores, atol=1e-5)
    with pytest.warns(UserWarning, match="[Aa]lready merged"):
        once.merge_adapter()
    np.testing.assert_array_equal(replace(classifier, model=once).scores(TEXTS.texts), merged)
    plain: Any = pretrained.merged(copy.deepcopy(classifier.model))
    assert set(plain.state_dict()) == set(plain_keys(plain))
    np.testing.assert_allclose(
        replace(classifier, model=plain).scores(TEXTS.texts), scores, atol=1e-5
    )
    assert before == {n: digest(p) for n, p in classifier.model.named_parameters()}


def plain_keys(model: Any) -> list[str]:
    """Names of a classifier of this architecture that peft has never seen."""
    from transformers import AutoModelForSequenceClassification

    return list(AutoModelForSequenceClassification.from_config(model.config).state_dict())


def loads_again(classifier: Any, scores: np.ndarray, folder: Path) -> None:
    classifier.save(folder)
    loaded = text_classifier.open_classifier(folder)
    assert loaded.label_names == LABELS
    np.testing.assert_allclose(loaded.classifier.scores(TEXTS.texts), scores, atol=5e-6)


def same_spec_twice_is_equal(method: str, base: bases.Base, settings: dict[str, Any]) -> None:
    a, b = (train(method, base, settings).classifier.scores(TEXTS.texts) for _ in range(2))
    np.testing.assert_array_equal(a, b)


# --- more ------------------------------------------------------------------------------------


def test_every_refusal_of_the_table_is_tested() -> None:
    table = {(m.name, f) for m in METHODS.values() for f in m.refused if f in FAMILY_NAMES}
    assert table == REFUSED
    assert set(FAMILY_NAMES) == set(FAMILIES)


@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("lora", "distilbert"),
        pytest.param("probe", "bert", marks=pytest.mark.slow),
        pytest.param("adalora", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_gives_the_same_scores(
    method: str, family: str, tiny: Callable[[str], bases.Base], tmp_path: Path
) -> None:
    outcome = train(method, tiny(family), settings_of(method, epochs=2))
    outcome.classifier.save(tmp_path)
    code = (
        "import sys, numpy, tunelab\n"
        "c = tunelab.load(sys.argv[1]); print(c.label_names)\n"
        "numpy.save(sys.argv[2], c.classifier.scores(sys.argv[3:]))\n"
    )
    out = tmp_path / "scores.npy"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path, out, *TEXTS.texts[:8]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(LABELS)
    expected = outcome.classifier.scores(list(TEXTS.texts[:8]))
    np.testing.assert_allclose(np.load(out), expected, atol=2e-6)
