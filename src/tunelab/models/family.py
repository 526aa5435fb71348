"""What tunelab knows of an architecture: the type of a row of `families.FAMILIES`. Knows no torch.

Dotted names are those of transformers' modules. A *kind* stands for something that is computed:
`anatomy` has a function for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "RELU",
    "Anatomy",
    "ConfigKeys",
    "DistanceNames",
    "Family",
    "LayerNames",
    "Limit",
    "PositionKind",
    "Sizes",
]


# A step of a head that no module stands for.
RELU = "relu"

# How layers know where a token stands: from its embedding; from a table of distances (He et al.
# 2021); from a rotation of queries and keys (Su et al. 2021), of one frequency for all layers or of
# one for each kind of layer.
PositionKind = Literal["embedded", "distances", "rotary", "rotary-by-layer"]


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """Under which keys a family's config.json says how large the model is.

    `embedding`: the width of the embeddings, which is else that of the layers. `groups`: in how
    many groups layers share their weights; "" where each has its own. `times`: the feed-forward
    part is so many times as wide as the layers, where the config says nothing else.
    """

    layers: str = "num_hidden_layers"
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    intermediate: str = "intermediate_size"
    vocabulary: str = "vocab_size"
    positions: str = "max_position_embeddings"
    embedding: str = "embedding_size"
    groups: str = ""
    times: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a model is, as its config.json says; None where it does not.

    `own_layers`: layers with weights of their own. `intermediate`: width inside the feed-forward
    part. `embedding`: width of the embeddings. `longest`: the longest input in tokens that its
    positions allow.
    """

    layers: int | None
    own_layers: int | None
    width: int | None
    heads: int | None
    intermediate: int | None
    vocabulary: int | None
    embedding: int | None
    longest: int | None


@dataclass(frozen=True, slots=True)
class DistanceNames:
    """Where attention that scores distances keeps what it reads (He et al. 2021, DeBERTa).

    `attention`: that module, within its layer; the others are its attributes. `wanted` says whether
    it does so at all, `terms` which products ("c2p", "p2c"), `shared` whether content's own
    projections `shared_key` and `shared_query` are used for distances, and not `key` and `query`.
    A distance's row in the table comes from `span`, `buckets` and `furthest`, by the function
    `bucket` of the module's file. `table`: the method of `Anatomy.encoder` that gives the table, in
    which `dropout` drops.
    """

    attention: str
    wanted: str
    terms: str
    shared: str
    shared_key: str
    shared_query: str
    key: str
    query: str
    dropout: str
    span: str
    buckets: str
    furthest: str
    bucket: str
    table: str


@dataclass(frozen=True, slots=True)
class LayerNames:
    """Where the parts of a layer in BERT's order lie: attention, norm, feed-forward, norm.

    `kind` is the layer's class; all else are dotted names within it. `mixed`: the layer after
    attention. `wide` and `narrow`: into and out of the feed-forward part. `drops`: the dropout of
    attention's weights, and of what goes into each norm; "" where nothing is dropped.
    """

    kind: str
    query: str
    key: str
    value: str
    mixed: str
    norm: str
    wide: str
    activation: str
    narrow: str
    last_norm: str
    heads: str
    head_width: str
    drops: tuple[str, str, str]
    distances: DistanceNames | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A model whose config has more than `most` under `key` is not computed packed, and `why`."""

    key: str
    most: int
    why: str


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where a family's parts lie, for those who compute it in their own way.

    `head_steps`: modules of the classifier (or RELU) that make logits of the vector that is read,
    one after the other; `head_reads`: the first of them picks it out of (texts, tokens, width).
    `tanh_head`: the linear layers that these are, tanh between them, where embeddings are BERT's
    too, all below the prefix `enters_under`: it is then scored from its files alone (`bare`).
    `causal`: attention looks back only, and the head reads the last token that is no padding.
    `pooling`: the config's key that may say "mean", which is then read. `embeddings`: last parts of
    the names of what lies below the layers. `enters`: the module whose output goes into the first
    layer. `widening`: the one that brings embeddings to the layers' width, where theirs differs.
    `layer`: of a layer that has a faster pass; `block`: the class of one that has none. `leaves`:
    the module after the last. `after_pad`: positions count from the pad id on. `token_types`: the
    model takes token_type_ids. `encoder`: the class of a module that calls the layers in its own
    way; attention has no interface there. `rms`: the class of norms without a mean (Zhang &
    Sennrich 2019).
    """

    head_steps: tuple[str, ...] = ()
    head_reads: bool = False
    tanh_head: tuple[str, ...] = ()
    enters_under: str = ""
    causal: bool = False
    pooling: str = ""
    embeddings: tuple[str, ...] = ("embeddings",)
    enters: str = "embeddings"
    widening: str = ""
    layer: LayerNames | None = None
    block: str = ""
    leaves: str = ""
    after_pad: bool = False
    token_types: bool = True
    positions: PositionKind = "embedded"
    encoder: str = ""
    rms: str = ""
    limits: tuple[Limit, ...] = ()

    @property
    def has_fast_scoring(self) -> bool:
        """Whether layers are BERT's but for names, and called one after the other."""
        return self.layer is not None and not self.encoder


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    `head` modules are trained and saved with every adapter. `query`, `value`, `attention` and `mlp`
    are the name endings of linear layers, from which the presets of `target_modules` are made.
    `keys_values` and `down` (a regular expression: the layer out of the feed-forward part) are what
    IA3 scales; `norms` are the normalisation layers. `represents` says which vector the head reads.
    `conv1d`: linear layers keep their weight as (in, out), as GPT-2's Conv1D. `biased`: layers have
    biases. `keys`: how its config.json is read. `anatomy`: where its parts lie.
    """

    head: tuple[str, ...]
    represents: str
    query: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()
    mlp: tuple[str, ...] = ()
    keys_values: tuple[str, ...] = ()
    down: str = ""
    norms: tuple[str, ...] = ()
    conv1d: bool = False
    biased: bool = True
    keys: ConfigKeys = ConfigKeys()
    anatomy: Anatomy = Anatomy()

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """Presets of `target_modules`, from few to all."""
        return {
            "query": self.query,
            "query-value": tuple(dict.fromkeys(self.query + self.value)),
            "attention": self.attention,
            "all-linear": self.attention + self.mlp,
        }
