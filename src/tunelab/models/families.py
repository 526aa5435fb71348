"""Architectures that can be trained here, a row each: nothing else in tunelab knows one by name.

tests/unit/models/test_families.py looks through all other modules for their names. A new family is
a row of FAMILIES; every method on it, packed training and scoring follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunelab.models.family import (
    RELU,
    Anatomy,
    ConfigKeys,
    DistanceNames,
    Family,
    LayerNames,
    Limit,
    Sizes,
)

__all__ = [
    "AN_ENCODER",
    "A_DECODER",
    "FAMILIES",
    "PRESETS",
    "USUAL_HEADS",
    "head_modules",
    "sizes_of",
    "target_modules",
    "unknown_family",
]


# Examples for messages.
AN_ENCODER, A_DECODER = "bert", "gpt2"
# What transformers calls the last layer of a head, for types that have no row here.
USUAL_HEADS = ("classifier", "score")
# The pad id where positions count from it and the config does not say it.
_USUAL_PAD = 1


# --- BERT and those that have its layers ------------------------------------------------------

_BERT_LAYER = LayerNames(
    kind="BertLayer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    mixed="attention.output.dense",
    norm="attention.output.LayerNorm",
    wide="intermediate.dense",
    activation="intermediate.intermediate_act_fn",
    narrow="output.dense",
    last_norm="output.LayerNorm",
    heads="attention.self.num_attention_heads",
    head_width="attention.self.attention_head_size",
    drops=("attention.self.dropout", "attention.output.dropout", "output.dropout"),
)
_BERT = Family(
    head=("classifier",),
    represents="the first token, [CLS], through the pooler (dense + tanh)",
    query=("query",),
    value=("value",),
    attention=("query", "key", "value", "attention.output.dense"),
    mlp=("intermediate.dense", "output.dense"),
    keys_values=("key", "value"),
    # "output.dense" alone would also match the attention's own output layer.
    down=r".*(?<!attention\.)output\.dense",
    norms=("LayerNorm",),
    anatomy=Anatomy(
        head_steps=("bert.pooler", "dropout", "classifier"),
        head_reads=True,
        tanh_head=("bert.pooler.dense", "classifier"),
        enters_under="bert.",
        layer=_BERT_LAYER,
    ),
)


def _roberta(kind: str) -> Family:
    """RoBERTa and those that are it but for names; `kind` is the class of a layer."""
    return replace(
        _BERT,
        represents="the first token, <s>, through the head's own dense layer (tanh)",
        anatomy=Anatomy(
            head_steps=("classifier",),
            head_reads=True,
            tanh_head=("classifier.dense", "classifier.out_proj"),
            enters_under="roberta.",
            layer=replace(_BERT_LAYER, kind=kind),
            after_pad=True,
        ),
    )


_ELECTRA = replace(
    _BERT,
    represents="the first token, [CLS], through the head's own dense layer (GELU)",
    anatomy=Anatomy(
        head_steps=("classifier",),
        head_reads=True,
        layer=replace(_BERT_LAYER, kind="ElectraLayer"),
        embeddings=("embeddings", "embeddings_project"),
        widening="embeddings_project",
    ),
)
_DISTILBERT = Family(
    # pre_classifier is new and must be trained: naming only "classifier" would leave it random.
    head=("pre_classifier", "classifier"),
    represents="the first token, [CLS], through pre_classifier (dense + ReLU)",
    query=("q_lin",),
    value=("v_lin",),
    attention=("q_lin", "k_lin", "v_lin", "out_lin"),
    mlp=("lin1", "lin2"),
    keys_values=("k_lin", "v_lin"),
    down=r".*ffn\.lin2",
    norms=("sa_layer_norm", "output_layer_norm"),
    keys=ConfigKeys(layers="n_layers", width="dim", heads="n_heads", intermediate="hidden_dim"),
    anatomy=Anatomy(
        head_steps=("pre_classifier", RELU, "dropout", "classifier"),
        token_types=False,
        layer=LayerNames(
            kind="TransformerBlock",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            mixed="attention.out_lin",
            norm="sa_layer_norm",
            wide="ffn.lin1",
            activation="ffn.activation",
            narrow="ffn.lin2",
            last_norm="output_layer_norm",
            heads="attention.n_heads",
            head_width="attention.attention_head_size",
            drops=("attention.dropout", "", "ffn.dropout"),
        ),
    ),
)
_ALBERT = Family(
    head=("classifier",),
    represents="the first token, [CLS], through the pooler; all layers share one set of "
    "weights, so an adapter is shared too",
    query=("attention.query",),
    value=("attention.value",),
    attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
    mlp=("ffn", "ffn_output"),
    keys_values=("attention.key", "attention.value"),
    down=r".*ffn_output",
    norms=("attention.LayerNorm", "full_layer_layer_norm"),
    keys=ConfigKeys(groups="num_hidden_groups"),
    anatomy=Anatomy(
        head_steps=("albert.pooler", "albert.pooler_activation", "dropout", "classifier"),
        embeddings=("embeddings", "embedding_hidden_mapping_in"),
        widening="encoder.embedding_hidden_mapping_in",
        layer=LayerNames(
            kind="AlbertLayer",
            query="attention.query",
            key="attention.key",
            value="attention.value",
            mixed="attention.dense",
            norm="attention.LayerNorm",
            wide="ffn",
            activation="activation",
            narrow="ffn_output",
            last_norm="full_layer_layer_norm",
            heads="attention.num_attention_heads",
            head_width="attention.attention_head_size",
            drops=("attention.attention_dropout", "attention.output_dropout", ""),
        ),
        limits=(Limit("inner_group_num", 1, "several layers in a group have no packed path"),),
    ),
)
_DEBERTA = replace(
    _BERT,
    head=("pooler", "classifier"),
    represents="the first token, [CLS], through a new pooler (dense + GELU)",
    query=("query_proj",),
    value=("value_proj",),
    attention=("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    keys_values=("key_proj", "value_proj"),
    anatomy=Anatomy(
        head_steps=("pooler", "dropout", "classifier"),
        head_reads=True,
        embeddings=("embeddings", "rel_embeddings"),
        layer=replace(
            _BERT_LAYER,
            kind="DebertaV2Layer",
            query="attention.self.query_proj",
            key="attention.self.key_proj",
            value="attention.self.value_proj",
            distances=DistanceNames(
                attention="attention.self",
                wanted="relative_attention",
                terms="pos_att_type",
                shared="share_att_key",
                shared_key="key_proj",
                shared_query="query_proj",
                key="pos_key_proj",
                query="pos_query_proj",
                dropout="pos_dropout",
                span="pos_ebd_size",
                buckets="position_buckets",
                furthest="max_relative_positions",
                bucket="make_log_bucket_position",
                table="get_rel_embedding",
            ),
        ),
        positions="distances",
        encoder="DebertaV2Encoder",
        limits=(
            Limit(
                "conv_kernel_size", 0, "a convolution over neighbouring tokens has no packed path"
            ),
        ),
    ),
)


# --- layers in another order ------------------------------------------------------------------

_MODERNBERT = Family(
    head=("head", "classifier"),
    represents="the first token, or the mean of all, as the config's classifier_pooling says, "
    "through a new dense layer and norm",
    # One layer computes query, key and value.
    query=("attn.Wqkv",),
    value=("attn.Wqkv",),
    attention=("attn.Wqkv", "attn.Wo"),
    mlp=("mlp.Wi", "mlp.Wo"),
    keys_values=("attn.Wqkv",),
    down=r".*mlp\.Wo",
    norms=("mlp_norm", "final_norm"),
    biased=False,
    anatomy=Anatomy(
        head_steps=("head", "drop", "classifier"),
        pooling="classifier_pooling",
        block="ModernBertEncoderLayer",
        leaves="final_norm",
        token_types=False,
        positions="rotary-by-layer",
    ),
)
_GPT2 = Family(
    head=("score",),
    represents="the last token that is no padding",
    query=("attn.c_attn",),
    value=("attn.c_attn",),
    attention=("attn.c_attn", "attn.c_proj"),
    mlp=("mlp.c_fc", "mlp.c_proj"),
    keys_values=("attn.c_attn",),
    down=r".*mlp\.c_proj",
    norms=("ln_1", "ln_2", "ln_f"),
    conv1d=True,
    keys=ConfigKeys(
        layers="n_layer",
        width="n_embd",
        heads="n_head",
        intermediate="n_inner",
        positions="n_positions",
        times=4,
    ),
    anatomy=Anatomy(
        head_steps=("score",),
        causal=True,
        embeddings=("wte", "wpe"),
        enters="drop",
        block="GPT2Block",
        leaves="ln_f",
        token_types=False,
    ),
)


def _llama(name: str, *, biased: bool = False) -> Family:
    """Llama and those that have its layers; `name` begins the names of their classes."""
    return Family(
        head=("score",),
        represents="the last token that is no padding",
        query=("q_proj",),
        value=("v_proj",),
        attention=("q_proj", "k_proj", "v_proj", "o_proj"),
        mlp=("gate_proj", "up_proj", "down_proj"),
        keys_values=("k_proj", "v_proj"),
        down=r".*mlp\.down_proj",
        norms=("input_layernorm", "post_attention_layernorm"),
        biased=biased,
        anatomy=Anatomy(
            head_steps=("score",),
            causal=True,
            embeddings=("embed_tokens",),
            enters="embed_tokens",
            block=f"{name}DecoderLayer",
            leaves="norm",
            token_types=False,
            positions="rotary",
            rms=f"{name}RMSNorm",
        ),
    )


# --- the rows ---------------------------------------------------------------------------------

# model_type in transformers -> what is known of it.
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "roberta": _roberta("RobertaLayer"),
    "xlm-roberta": _roberta("XLMRobertaLayer"),
    "camembert": _roberta("CamembertLayer"),
    "albert": _ALBERT,
    "electra": _ELECTRA,
    "deberta-v2": _DEBERTA,
    "modernbert": _MODERNBERT,
    "gpt2": _GPT2,
    "llama": _llama("Llama"),
    "mistral": _llama("Mistral"),
    "qwen2": _llama("Qwen2", biased=True),
    "qwen3": _llama("Qwen3"),
}

PRESETS = tuple(_BERT.targets)


# --- what is read of them ---------------------------------------------------------------------


def unknown_family(head: Sequence[str]) -> Family:
    """A row for a type that has none: its head alone is known."""
    return Family(head=tuple(head), represents="unknown to tunelab")


def sizes_of(config: Mapping[str, object]) -> Sizes:
    """How large a model is, by its config.json.

    Of an unknown type, the keys of all families are looked for, in their order.
    """
    family = FAMILIES.get(str(config.get("model_type", "")))
    keys = family.keys if family else ConfigKeys()

    def said(name: str) -> int | None:
        known = (getattr(k, name) for k in (keys, *(f.keys for f in FAMILIES.values())))
        return next((v for k in known if isinstance(v := config.get(k), int)), None)

    layers, width, positions = said("layers"), said("width"), said("positions")
    groups = config.get(keys.groups, 1) if keys.groups else layers
    times = keys.times * width if keys.times and width else None
    if family and family.anatomy.after_pad and positions is not None:
        # No token has the pad id's position, or one below it.
        pad = config.get("pad_token_id")
        positions -= (pad if isinstance(pad, int) else _USUAL_PAD) + 1
    return Sizes(
        layers=layers,
        own_layers=groups if isinstance(groups, int) else None,
        width=width,
        heads=said("heads"),
        intermediate=said("intermediate") or times,
        vocabulary=said("vocabulary"),
        embedding=said("embedding") or width,
        longest=positions,
    )


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
