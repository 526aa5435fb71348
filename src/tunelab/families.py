"""Architectures that can be trained here: names of their heads and of the layers LoRA adapts.

One row of FAMILIES a family; nothing else in tunelab knows an architecture by name. Apart from
`models`, because a study asks before anything is trained and that must not load torch.
May import: bases, errors. May not import: torch, transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tunelab.bases import Base, weight_shapes
from tunelab.errors import ModelError, suggest

__all__ = ["FAMILIES", "Family", "family_of", "head_modules", "layer_count", "target_modules"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    `head` modules are trained and saved with every adapter. `query`, `value`, `attention` and `mlp`
    are the name endings of linear layers, from which the presets of `target_modules` are made.
    `keys_values` and `down` (a regular expression: the layer out of the feed-forward part) are what
    IA3 scales; `norms` are the normalisation layers. `represents` says which vector the head reads.
    `last_token`: it is the last token's, so the pad rule decides which one that is. `conv1d`:
    linear layers keep their weight as (in, out), as GPT-2's Conv1D.
    """

    head: tuple[str, ...]
    query: tuple[str, ...]
    value: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    keys_values: tuple[str, ...]
    down: str
    norms: tuple[str, ...]
    represents: str
    last_token: bool = False
    conv1d: bool = False

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """Presets of `target_modules`, from few to all."""
        return {
            "query": self.query,
            "query-value": tuple(dict.fromkeys(self.query + self.value)),
            "attention": self.attention,
            "all-linear": self.attention + self.mlp,
        }


_BERT = Family(
    head=("classifier",),
    query=("query",),
    value=("value",),
    attention=("query", "key", "value", "attention.output.dense"),
    mlp=("intermediate.dense", "output.dense"),
    keys_values=("key", "value"),
    # "output.dense" alone would also match the attention's own output layer.
    down=r".*(?<!attention\.)output\.dense",
    norms=("LayerNorm",),
    represents="the first token, [CLS], through the pooler (dense + tanh)",
)
_ROBERTA = replace(
    _BERT, represents="the first token, <s>, through the head's own dense layer (tanh)"
)
_LLAMA = Family(
    head=("score",),
    query=("q_proj",),
    value=("v_proj",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    keys_values=("k_proj", "v_proj"),
    down=r".*mlp\.down_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    represents="the last token that is no padding",
    last_token=True,
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "distilbert": Family(
        # pre_classifier is new and must be trained: naming only "classifier" would leave it random.
        head=("pre_classifier", "classifier"),
        query=("q_lin",),
        value=("v_lin",),
        attention=("q_lin", "k_lin", "v_lin", "out_lin"),
        mlp=("lin1", "lin2"),
        keys_values=("k_lin", "v_lin"),
        down=r".*ffn\.lin2",
        norms=("sa_layer_norm", "output_layer_norm"),
        represents="the first token, [CLS], through pre_classifier (dense + ReLU)",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "albert": Family(
        head=("classifier",),
        query=("attention.query",),
        value=("attention.value",),
        attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
        mlp=("ffn", "ffn_output"),
        keys_values=("attention.key", "attention.value"),
        down=r".*ffn_output",
        norms=("attention.LayerNorm", "full_layer_layer_norm"),
        represents="the first token, [CLS], through the pooler; all layers share one set of "
        "weights, so an adapter is shared too",
    ),
    "electra": replace(
        _BERT, represents="the first token, [CLS], through the head's own dense layer (GELU)"
    ),
    "deberta-v2": replace(
        _BERT,
        head=("pooler", "classifier"),
        query=("query_proj",),
        value=("value_proj",),
        attention=("query_proj", "key_proj", "value_proj", "attention.output.dense"),
        keys_values=("key_proj", "value_proj"),
        represents="the first token, [CLS], through a new pooler (dense + GELU)",
    ),
    "modernbert": Family(
        head=("head", "classifier"),
        # One layer computes query, key and value.
        query=("attn.Wqkv",),
        value=("attn.Wqkv",),
        attention=("attn.Wqkv", "attn.Wo"),
        mlp=("mlp.Wi", "mlp.Wo"),
        keys_values=("attn.Wqkv",),
        down=r".*mlp\.Wo",
        norms=("mlp_norm", "final_norm"),
        represents="the first token, or the mean of all, as the config's classifier_pooling says, "
        "through a new dense layer and norm",
    ),
    "gpt2": Family(
        head=("score",),
        query=("attn.c_attn",),
        value=("attn.c_attn",),
        attention=("attn.c_attn", "attn.c_proj"),
        mlp=("mlp.c_fc", "mlp.c_proj"),
        keys_values=("attn.c_attn",),
        down=r".*mlp\.c_proj",
        norms=("ln_1", "ln_2", "ln_f"),
        represents="the last token that is no padding",
        last_token=True,
        conv1d=True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


def family_of(base: Base, named: object = None) -> Family:
    """The family of a base model.

    Of an unknown type, `named` settings (a method's) may say what a row would: `modules_to_save`
    its head, `target_modules` the layers. Raises ModelError saying what to name.
    """
    if base.model_type in FAMILIES:
        return FAMILIES[base.model_type]
    head = tuple(getattr(named, "modules_to_save", None) or ())
    if getattr(named, "any_family", False):  # nothing has to be known by name to train all of it
        return Family(head, (), (), (), (), (), "", (), "unknown to tunelab", last_token=True)
    targets = getattr(named, "target_modules", None)
    presets = FAMILIES["bert"].targets
    if head and targets and (not isinstance(targets, str) or targets not in presets):
        return Family(head, (), (), (), (), (), "", (), "unknown to tunelab", last_token=True)
    raise ModelError(
        f"Model {base.ref.name} is of the type {base.model_type!r}, unknown to tunelab."
        f"{suggest(base.model_type, FAMILIES, what='Known types')} Otherwise use lora and name its "
        f"head and layers: modules_to_save: [classifier], target_modules: "
        f"[{', '.join(_linear_names(base)[:8])}]."
    )


def layer_count(base: Base) -> int | None:
    """How many layers a base has, of those with weights of their own; None where it is not said."""
    keys = ("num_hidden_layers", "n_layers", "n_layer")
    if base.model_type == "albert":  # all layers share the weights of a group
        return int(base.config.get("num_hidden_groups", 1))
    return next((int(base.config[k]) for k in keys if isinstance(base.config.get(k), int)), None)


def _linear_names(base: Base) -> list[str]:
    """Last parts of the names of a base's weight matrices, embedding tables left out."""
    names = {
        key.removesuffix(".weight").rsplit(".", 1)[-1]
        for key, shape in weight_shapes(base).items()
        if key.endswith(".weight") and len(shape) == 2 and "embed" not in key.lower()
    }
    return sorted(names)


def target_modules(family: Family, asked: str | Sequence[str]) -> str | list[str]:
    """Turn a preset ("query", "query-value", "attention", "all-linear") into module name endings.

    A list is taken as it is; any other string is a regular expression, as in peft.
    """
    if isinstance(asked, str):
        return list(family.targets[asked]) if asked in family.targets else asked
    return list(asked)


def head_modules(family: Family, fresh: Sequence[str]) -> list[str]:
    """Modules that are trained in full beside an adapter: the family's head and whatever is new."""
    return list(dict.fromkeys([*family.head, *fresh]))
