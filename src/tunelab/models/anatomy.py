"""A loaded model's parts, found by the names in its family's row."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunelab.models.families import FAMILIES
from tunelab.models.family import RELU, Anatomy, DistanceNames, Family, LayerNames

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutput

__all__ = [
    "DistanceParts",
    "LayerParts",
    "blocks_in",
    "by_distance",
    "classifier_in",
    "encoder_in",
    "family_in",
    "given_to_layers",
    "has_fast_scoring",
    "is_quantised",
    "layers_in",
    "logits_of",
    "own_pass",
    "parts_of",
    "reads_distances",
    "widening_in",
    "width_of",
]


# --- a model as a whole -----------------------------------------------------------------------


def classifier_in(model: Any) -> Any:
    """The transformers classifier inside what peft wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def encoder_in(classifier: Any) -> Any:
    """What lies below a transformers classifier's head; None where that is not told."""
    return getattr(classifier, classifier.base_model_prefix, None)


def family_in(model: Any) -> Family | None:
    """A model's family; None where it is unknown."""
    return FAMILIES.get(str(getattr(getattr(model, "config", None), "model_type", "")))


def blocks_in(model: Any) -> nn.ModuleList:
    """The layers of any model, known or not: the longest list of modules that it has."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def is_quantised(classifier: Any) -> bool:
    """Whether a classifier's weights were loaded in fewer bits."""
    return getattr(classifier, "quantization_method", None) is not None


def has_fast_scoring(model: Any) -> bool:
    """Whether a model's layers are BERT's but for names, and called one after the other."""
    family = family_in(model)
    return family is not None and family.anatomy.has_fast_scoring


def widening_in(encoder: Any, anatomy: Anatomy) -> Any:
    """What brings embeddings to the width of the layers; None where they have it."""
    inside, _, last = anatomy.widening.rpartition(".")
    return getattr(encoder.get_submodule(inside), last, None) if last else None


# transformers gives every config these two names, whatever the family's own are.
def layers_in(model: Any) -> int:
    """How many layers a model computes; 0 where its config does not say."""
    return int(getattr(model.config, "num_hidden_layers", 0))


def width_of(model: Any) -> int:
    """Numbers in a token's vector after each layer."""
    return int(model.config.hidden_size)


def logits_of(anatomy: Anatomy, classifier: Any, read: torch.Tensor) -> torch.Tensor:
    """Logits (b, n_classes) of the vectors (b, 1, width) that the head reads."""
    x = read if anatomy.head_reads else read[:, 0]
    for step in anatomy.head_steps:
        x = torch.relu(x) if step == RELU else classifier.get_submodule(step)(x)
    return x


# --- a layer's parts --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DistanceParts:
    """What attention makes of the table of distances (He et al. 2021).

    `key` and `query` project its rows for content to position and for position to content; None
    where that product is left out. `bucket`: distances -> those that share a row; None where each
    has its own.
    """

    key: Any
    query: Any
    dropout: Any
    span: int
    buckets: int
    furthest: int
    bucket: Callable[..., torch.Tensor] | None


@dataclass(frozen=True, slots=True)
class LayerParts:
    """The parts of a layer in BERT's order: attention, norm, feed-forward, norm.

    `drops`: rates of dropout in attention's weights, and of what goes into each norm. `distances`:
    where attention's scores depend on distances too.
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
    distances: DistanceParts | None = None


def parts_of(layer: Any, names: LayerNames) -> LayerParts:
    """A layer's parts by their names."""

    def at(name: str) -> Any:
        return attrgetter(name)(layer)

    weights, mixed, narrow = (at(name).p if name else 0.0 for name in names.drops)
    distances, terms = _distances_of(layer, names.distances)
    return LayerParts(
        attention=(at(names.query), at(names.key), at(names.value)),
        mixed=at(names.mixed),
        norm=at(names.norm),
        wide=at(names.wide),
        activation=at(names.activation),
        narrow=at(names.narrow),
        last_norm=at(names.last_norm),
        heads=at(names.heads),
        scale=((1 + terms) * at(names.head_width)) ** -0.5,
        drops=(weights, mixed, narrow),
        distances=distances,
    )


def _distances_of(layer: Any, names: DistanceNames | None) -> tuple[DistanceParts | None, int]:
    """What scores distances, and how many products are added to content's own."""
    if names is None:
        return None, 0
    own = attrgetter(names.attention)(layer)
    terms = getattr(own, names.terms)
    to_position, to_content = "c2p" in terms, "p2c" in terms
    count = to_position + to_content
    if not getattr(own, names.wanted):
        return None, count
    shared = getattr(own, names.shared)
    buckets, furthest = getattr(own, names.buckets), getattr(own, names.furthest)
    bucket = getattr(sys.modules[type(own).__module__], names.bucket)
    parts = DistanceParts(
        key=getattr(own, names.shared_key if shared else names.key) if to_position else None,
        query=getattr(own, names.shared_query if shared else names.query) if to_content else None,
        dropout=getattr(own, names.dropout),
        span=getattr(own, names.span),
        buckets=buckets,
        furthest=furthest,
        bucket=bucket if buckets > 0 and furthest > 0 else None,
    )
    return parts, count


# --- distances --------------------------------------------------------------------------------


def reads_distances(model: Any) -> bool:
    """Whether attention's scores depend on a table of distances."""
    family = family_in(model)
    layer = family.anatomy.layer if family else None
    names = layer.distances if layer else None
    return names is not None and bool(getattr(model.config, names.wanted, False))


def by_distance(longest: int, parts: DistanceParts) -> list[torch.Tensor]:
    """Rows of the table that texts of so many tokens read, and which of these each distance reads,
    from 1 - longest to longest - 1.
    """
    return _distances_between(longest, parts.buckets, parts.furthest, parts.span, parts.bucket)


@functools.cache
def _distances_between(
    longest: int,
    buckets: int,
    furthest: int,
    span: int,
    bucket: Callable[..., torch.Tensor] | None,
) -> list[torch.Tensor]:
    with torch.inference_mode(False):  # what is kept is for training too
        d = torch.arange(1 - longest, longest)
        if bucket is not None:
            d = bucket(d, buckets, furthest)
        return list(torch.unique((d.long() + span).clamp(0, 2 * span - 1), return_inverse=True))


# --- what layers take beside their tokens -----------------------------------------------------

_GivenTo = Callable[[Any], Mapping[str, object]]


def _nothing(*_: Any) -> _GivenTo:
    return lambda _: {}


def _table(anatomy: Anatomy, encoder: Any, *_: Any) -> _GivenTo:
    caller = next(m for m in encoder.modules() if type(m).__name__ == anatomy.encoder)
    given = {"rel_embeddings": _table_of(anatomy, caller)}
    return lambda _: given


def _rotation(_: Anatomy, encoder: Any, x: torch.Tensor, positions: torch.Tensor) -> _GivenTo:
    given = {"position_embeddings": encoder.rotary_emb(x, positions)}
    return lambda _: given


def _rotations(_: Anatomy, encoder: Any, x: torch.Tensor, positions: torch.Tensor) -> _GivenTo:
    kinds = set(encoder.config.layer_types)
    turns = {k: encoder.rotary_emb(x, positions, k) for k in kinds}
    return lambda block: {"position_embeddings": turns[block.attention_type]}


_GIVEN: dict[str, Callable[..., _GivenTo]] = {
    "embedded": _nothing,
    "distances": _table,
    "rotary": _rotation,
    "rotary-by-layer": _rotations,
}


def given_to_layers(
    anatomy: Anatomy, encoder: Any, x: torch.Tensor, positions: torch.Tensor
) -> _GivenTo:
    """What each layer takes beside its tokens, which enter as `x`: layer -> keyword arguments."""
    return _GIVEN[anatomy.positions](anatomy, encoder, x, positions)


def own_pass(anatomy: Anatomy, m: Any) -> Callable[..., Any]:
    """A forward pass of `m`, an `anatomy.encoder`: its layers one after the other.

    transformers' makes a table of all tokens by all tokens.
    """
    from transformers.modeling_outputs import BaseModelOutput

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> BaseModelOutput:
        table = _table_of(anatomy, m)
        for layer in m.layer:
            x = layer(x, rel_embeddings=table)
        return BaseModelOutput(last_hidden_state=x, hidden_states=(x,))

    return forward


def _table_of(anatomy: Anatomy, m: Any) -> torch.Tensor:
    """Embeddings of distances, which `m`, an `anatomy.encoder`, holds."""
    assert anatomy.layer is not None  # noqa: S101  the row says so
    assert anatomy.layer.distances is not None  # noqa: S101
    table: torch.Tensor = getattr(m, anatomy.layer.distances.table)()
    return table
