"""Where the parts of each family lie, for those who compute it in their own way.

A new family is a row of FAMILIES, and its head and its layer where none fits.

May import: nothing of tunelab.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

__all__ = ["FAMILIES", "Family", "Layer", "distances"]


@dataclass(frozen=True, slots=True)
class Layer:
    """The parts of a layer in BERT's order: attention, norm, feed-forward, norm.

    `drops`: rates of dropout in attention's weights, and of what goes into each norm. `relative`:
    the attention module whose scores depend on distances too (DeBERTa).
    """

    attention: tuple[Any, Any, Any]
    mixed: Any
    norm: Any
    wide: Any
    activation: Any
    narrow: Any
    last_norm: Any
    heads: int
    scale: float
    drops: tuple[float, float, float]
    relative: Any = None


def _bert_layer(layer: Any) -> Layer:
    """BERT and those that have its layers: RoBERTa, XLM-R, CamemBERT, ELECTRA."""
    att, mid, up, out = (
        layer.attention.self, layer.attention.output, layer.intermediate, layer.output
    )  # fmt: skip
    return Layer(
        (att.query, att.key, att.value), mid.dense, mid.LayerNorm, up.dense,
        up.intermediate_act_fn, out.dense, out.LayerNorm, att.num_attention_heads,
        att.attention_head_size**-0.5, (att.dropout.p, mid.dropout.p, out.dropout.p),
    )  # fmt: skip


def _distilbert_layer(layer: Any) -> Layer:
    att, ffn = layer.attention, layer.ffn
    return Layer(
        (att.q_lin, att.k_lin, att.v_lin), att.out_lin, layer.sa_layer_norm, ffn.lin1,
        ffn.activation, ffn.lin2, layer.output_layer_norm, att.n_heads,
        att.attention_head_size**-0.5, (att.dropout.p, 0.0, ffn.dropout.p),
    )  # fmt: skip


def _albert_layer(layer: Any) -> Layer:
    att = layer.attention
    return Layer(
        (att.query, att.key, att.value), att.dense, att.LayerNorm, layer.ffn, layer.activation,
        layer.ffn_output, layer.full_layer_layer_norm, att.num_attention_heads,
        att.attention_head_size**-0.5, (att.attention_dropout.p, att.output_dropout.p, 0.0),
    )  # fmt: skip


def _deberta_layer(layer: Any) -> Layer:
    att, mid, up, out = (
        layer.attention.self, layer.attention.output, layer.intermediate, layer.output
    )  # fmt: skip
    terms = 1 + ("c2p" in att.pos_att_type) + ("p2c" in att.pos_att_type)
    return Layer(
        (att.query_proj, att.key_proj, att.value_proj), mid.dense, mid.LayerNorm, up.dense,
        up.intermediate_act_fn, out.dense, out.LayerNorm, att.num_attention_heads,
        (terms * att.attention_head_size) ** -0.5, (att.dropout.p, mid.dropout.p, out.dropout.p),
        att if att.relative_attention else None,
    )  # fmt: skip


def _deberta_encoder(m: Any) -> Callable[..., Any]:
    """Its layers one after the other; its own pass makes a table of all tokens by all tokens."""

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> BaseModelOutput:
        table = m.get_rel_embedding()
        for layer in m.layer:
            x = layer(x, rel_embeddings=table)
        return BaseModelOutput(last_hidden_state=x, hidden_states=(x,))

    return forward


@functools.cache
def distances(longest: int, buckets: int, furthest: int, span: int) -> list[torch.Tensor]:
    """Rows of DeBERTa's table that texts of so many tokens read, and which of these each distance
    reads, from 1 - longest to longest - 1.
    """
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    with torch.inference_mode(False):  # what is kept is for training too
        d = torch.arange(1 - longest, longest)
        if buckets > 0 and furthest > 0:
            d = make_log_bucket_position(d, buckets, furthest)
        return list(torch.unique((d.long() + span).clamp(0, 2 * span - 1), return_inverse=True))


# What a layer takes beside its tokens.
_Given = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Family:
    """How a family is computed packed.

    `head(model, read)`: logits from the vectors (B, 1, width) that are read: of each text's first
    token or, with `causal` attention, its last. `pooling`: where a model's config may say "mean",
    which is then read. `enters`: the module whose output goes into the first layer. `layer`: the
    class name of a layer that has a faster pass, and its parts; `block`: of one that has none.
    `leaves`: the module after the last. `offset`: positions count from the pad id on. `types`: the
    model takes token_type_ids. `given(encoder, x, positions)`: what each layer takes beside its
    tokens, which enter as x. `encoder`: the class name of a module that calls the layers in its own
    way, and its new forward pass; attention has no interface there. `rms`: the class name of norms
    without a mean (Zhang & Sennrich 2019).
    """

    head: Callable[[Any, torch.Tensor], Any]
    enters: str = "embeddings"
    layer: tuple[str, Callable[[Any], Layer]] | None = None
    block: str = ""
    leaves: str | None = None
    offset: bool = False
    types: bool = True
    causal: bool = False
    given: Callable[[Any, torch.Tensor, torch.Tensor], _Given] = lambda *_: lambda _: {}
    encoder: tuple[str, Callable[[Any], Callable[..., Any]]] | None = None
    rms: str = ""
    pooling: str = ""


# --- heads ----------------------------------------------------------------------------------


def _bert_head(m: Any, read: torch.Tensor) -> Any:
    return m.classifier(m.dropout(m.bert.pooler(read)))


def _distilbert_head(m: Any, read: torch.Tensor) -> Any:
    return m.classifier(m.dropout(torch.relu(m.pre_classifier(read[:, 0]))))


def _whole_head(m: Any, read: torch.Tensor) -> Any:
    return m.classifier(read)


def _albert_head(m: Any, read: torch.Tensor) -> Any:
    return m.classifier(m.dropout(m.albert.pooler_activation(m.albert.pooler(read[:, 0]))))


def _deberta_head(m: Any, read: torch.Tensor) -> Any:
    return m.classifier(m.dropout(m.pooler(read)))


def _modernbert_head(m: Any, read: torch.Tensor) -> Any:
    return m.classifier(m.drop(m.head(read[:, 0])))


def _causal_head(m: Any, read: torch.Tensor) -> Any:
    return m.score(read[:, 0])


# --- what layers take -----------------------------------------------------------------------


def _deberta_given(encoder: Any, *_: Any) -> _Given:
    given = {"rel_embeddings": encoder.encoder.get_rel_embedding()}
    return lambda _: given


def _modernbert_given(encoder: Any, x: torch.Tensor, positions: torch.Tensor) -> _Given:
    kinds = set(encoder.config.layer_types)
    turns = {k: encoder.rotary_emb(x, positions, k) for k in kinds}
    return lambda block: {"position_embeddings": turns[block.attention_type]}


def _llama_given(encoder: Any, x: torch.Tensor, positions: torch.Tensor) -> _Given:
    given = {"position_embeddings": encoder.rotary_emb(x, positions)}
    return lambda _: given


def _llama(name: str) -> Family:
    """Llama and those that have its layers; `name` begins the names of their classes."""
    return Family(
        _causal_head, enters="embed_tokens", types=False, causal=True, block=f"{name}DecoderLayer",
        leaves="norm", given=_llama_given, rms=f"{name}RMSNorm",
    )  # fmt: skip


_ROBERTA = Family(_whole_head, layer=("RobertaLayer", _bert_layer), offset=True)
# model_type -> how it is computed packed. A new family: a row, and its head where none fits.
FAMILIES: dict[str, Family] = {
    "bert": Family(_bert_head, layer=("BertLayer", _bert_layer)),
    "distilbert": Family(
        _distilbert_head, layer=("TransformerBlock", _distilbert_layer), types=False
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": Family(_whole_head, layer=("XLMRobertaLayer", _bert_layer), offset=True),
    "camembert": Family(_whole_head, layer=("CamembertLayer", _bert_layer), offset=True),
    "electra": Family(_whole_head, layer=("ElectraLayer", _bert_layer)),
    "albert": Family(_albert_head, layer=("AlbertLayer", _albert_layer)),
    "deberta-v2": Family(
        _deberta_head,
        layer=("DebertaV2Layer", _deberta_layer),
        given=_deberta_given,
        encoder=("DebertaV2Encoder", _deberta_encoder),
    ),
    "modernbert": Family(
        _modernbert_head,
        types=False,
        block="ModernBertEncoderLayer",
        leaves="final_norm",
        given=_modernbert_given,
        pooling="classifier_pooling",
    ),
    "gpt2": Family(
        _causal_head, enters="drop", types=False, causal=True, block="GPT2Block", leaves="ln_f"
    ),
    "llama": _llama("Llama"),
    "mistral": _llama("Mistral"),
    "qwen2": _llama("Qwen2"),
    "qwen3": _llama("Qwen3"),
}
