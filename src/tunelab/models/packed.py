"""Packed training: a batch as one row of tokens, no padding, transformers' and peft's modules
kept.

The texts of a batch lie end to end in one row of T tokens. All layers but attention work on tokens
one by one and need nothing more; attention is computed within each text. What is trained stays
transformers' modules and peft's adapters: while a `Packed` is installed, the forward passes of some
of these modules are exchanged for ones that compute the same faster (`kernels`), and the weights,
their names and their gradients are untouched. tests/reference/models/test_packing.py holds this to
the padded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunelab.kernels.adamw import rows_of
from tunelab.kernels.layout import Layout
from tunelab.models import anatomy
from tunelab.models.batches import Encoded
from tunelab.models.families import FAMILIES
from tunelab.models.packed_layers import LayerPass
from tunelab.models.packed_modules import (
    CastWeights,
    SideBySide,
    forward_of,
    is_coded_linear,
    is_plain_lora,
    packed_rms_norm,
)
from tunelab.models.packed_run import PACKED_ATTENTION, PackedRun, computing, exchanged

__all__ = [
    "Packed",
    "rounded_length",
    "why_float32",
    "why_not_packed",
]


# oneDNN builds its primitives anew for each shape: rounded totals come back more often.
_ROUND_TO = 16
_ROUND_LENGTH_TO = 8


# --- what can be packed ---------------------------------------------------------------------


def why_not_packed(model: Any) -> str | None:
    """Say why a model cannot be trained packed; None where it can."""
    config = getattr(model, "config", None)
    family = anatomy.family_in(model)
    if family is None:
        return f"{getattr(config, 'model_type', '')} has no packed path"
    for limit in family.anatomy.limits:
        if getattr(config, limit.key, limit.most) > limit.most:
            return limit.why
    peft = getattr(model, "active_peft_config", None)
    if peft is not None and peft.is_prompt_learning:
        return "prompt-learning methods add tokens to padded rows"
    where = next(model.parameters()).device.type
    return None if where in {"cpu", "cuda"} else f"the packed path is not for {where}"


def why_float32(model: Any) -> str | None:
    """Say why a model that is trained packed needs activations in float32; None where it does not.

    An adapter of float32 on a base of bfloat16 needs a forward pass that takes care of the types.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if is_coded_linear(module):
            continue
        if isinstance(module, BaseTunerLayer) and not is_plain_lora(module):
            kind = type(module).__module__.split(".")[2]
            return f"{kind} adapters have no bfloat16 path ({name.rsplit('.', 1)[-1]})"
        if type(module).__module__.startswith("bitsandbytes"):
            return "quantised weights choose their own type"
    return None


@contextmanager
def _passed_over(blocks: list[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """While inside, layers give back what enters them; a list of what did, in order."""
    seen: list[torch.Tensor] = []

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(x)
        return x

    before = [b.__dict__.get("forward") for b in blocks]
    try:
        for block in blocks:
            block.__dict__["forward"] = forward
        yield seen
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.__dict__["forward"]
            else:
                block.__dict__["forward"] = own


class Packed:
    """Calls a classifier on packed rows: `packed(encoded, rows)` gives logits (b, n_classes).

    `dtype` is the type of activations and frozen weights inside the encoder; head, adapters,
    normalisation and optimizer stay in float32. `seed` decides the dropout masks, with the step.
    `every_token`: the last layer computes all tokens of a text, which `pooled` reads.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        *,
        every_token: bool = False,
    ) -> None:
        self.model = anatomy.classifier_in(model)
        config = self.model.config
        self.family = FAMILIES[str(config.model_type)]
        self._anatomy = self.family.anatomy
        self._dtype = dtype
        self._pad_id: int | None = config.pad_token_id
        self._mean = getattr(config, self._anatomy.pooling or "-", "") == "mean"
        self.run = PackedRun(self.model, self.family, seed, every_token=every_token)

    @property
    def encoder(self) -> Any:
        """The model without its head."""
        return anatomy.encoder_in(self.model)

    @property
    def passes(self) -> int:
        """Batches that it has computed in training: each draws other masks."""
        return self.run.step

    @passes.setter
    def passes(self, count: int) -> None:
        self.run.step = count

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While inside, attention, dropout and the like are computed the packed way."""
        before = self.model.config._attn_implementation
        if not self._anatomy.encoder:
            self.model.set_attn_implementation(PACKED_ATTENTION)
        hooks: list[Any] = []
        cast = CastWeights()
        try:
            if self._dtype != torch.float32:
                enters = self.encoder.get_submodule(self._anatomy.enters)
                hooks.append(enters.register_forward_hook(self._narrow))
            with exchanged(self.forwards(cast)):
                yield
        finally:
            for hook in hooks:
                hook.remove()
            if not self._anatomy.encoder:
                self.model.set_attn_implementation(before)
            for weight in cast.by_rows:
                rows_of(weight).settle(weight)

    def forwards(
        self, cast: CastWeights
    ) -> Iterator[tuple[nn.Module, Callable[..., torch.Tensor]]]:
        """The modules whose forward pass is exchanged, each with its new one."""
        # Layers that are shared are not called in the order in which they lie.
        in_order = len(self.blocks) == self.run.layers
        before: LayerPass | None = None
        for module in self.model.modules():
            forward = self.forward_of(module, cast)
            if isinstance(forward, LayerPass):
                if before is not None and in_order:
                    before.next = forward
                before = forward
            if forward is not None:
                yield module, forward

    def _narrow(self, module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out.to(self._dtype)

    def _own_forward_of(self, module: Any, cast: CastWeights) -> Callable[..., Any] | None:
        """Of a module that the family names."""
        name, layer = type(module).__name__, self._anatomy.layer
        if layer is not None and name == layer.kind:
            parts = anatomy.parts_of(module, layer)
            return LayerPass(self.run, module, parts, lambda ms: self.join(ms, cast))
        if name == self._anatomy.encoder:
            return anatomy.own_pass(self._anatomy, module)
        return packed_rms_norm(module) if name == self._anatomy.rms else None

    def forward_of(self, module: Any, cast: CastWeights) -> Callable[..., Any] | None:
        """Its faster forward pass; None where it stays as it is."""
        own = self._own_forward_of(module, cast)
        if own is not None:
            return own
        return forward_of(self.run, module, cast, self._dtype)

    def join(self, modules: Sequence[Any], cast: CastWeights) -> SideBySide | None:
        """Layers of one x in one product, where weights are copied anyway."""
        exact = self._dtype == torch.float32
        if not all(
            type(m) is nn.Linear or is_plain_lora(m) or (is_coded_linear(m) and not exact)
            for m in modules
        ):
            return None
        bases = [getattr(m, "base_layer", m) for m in modules]
        alike = len({(type(b), b.bias is None) for b in bases}) == 1
        if not alike or (exact and cast.laid_out(bases, self._dtype) is None):
            return None
        return SideBySide(self.run, modules, cast)

    def __call__(self, encoded: Encoded, rows: NDArray[np.int64]) -> tuple[torch.Tensor, int]:
        """Logits (b, n_classes) in float32, and the number of tokens computed."""
        ids, positions, layout = self.pack([encoded.ids[r] for r in rows])
        self.run.begin(layout)
        return self.logits_of(self.vectors_of(ids, positions)), ids.shape[1]

    def vectors_of(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The vectors (b, width) that the head reads, of the row that `_run` has begun."""
        return self._read(self._states_of(ids, positions))

    def pooled(self, encoded: Encoded, rows: NDArray[np.int64], pooling: str) -> torch.Tensor:
        """Vectors (b, width of the pooling) of texts, as `scoring.pooled` gives them."""
        ids, positions, layout = self.pack([encoded.ids[r] for r in rows])
        self.run.begin(layout)
        hidden = self._states_of(ids, positions)
        lengths = torch.diff(layout.bounds)
        parts = []
        for part in pooling.split("+"):
            if part == "mean":
                text = torch.repeat_interleave(
                    torch.arange(len(rows), device=hidden.device), lengths
                )
                sums = hidden.new_zeros(len(rows), hidden.shape[1])
                sums = sums.index_add(0, text, hidden[: len(text)])
                parts.append(sums / lengths[:, None])
            else:
                at = layout.bounds[:-1] if part == "cls" else layout.bounds[1:] - 1
                parts.append(hidden.index_select(0, at))
        return torch.cat(parts, dim=1)

    def _states_of(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        more: dict[str, object] = {"use_cache": False} if self._anatomy.causal else {}
        if self._anatomy.token_types:
            more["token_type_ids"] = torch.zeros_like(ids)
        # Nobody reads the mask, but transformers looks through ids for padding where it has none.
        mask = torch.ones_like(ids)
        with computing(self.run):
            out = self.encoder(input_ids=ids, attention_mask=mask, position_ids=positions, **more)
        states: torch.Tensor = out.last_hidden_state[0]
        return states

    def below(self, encoded: Encoded, rows: NDArray[np.int64], layers: int) -> torch.Tensor:
        """What so many of the lowest layers give, without a gradient: (tokens, width).

        After all layers that is (b, width), the vectors that the head reads. The model has to be
        in evaluation mode.
        """
        ids, positions, layout = self.pack([encoded.ids[r] for r in rows])
        self.run.begin(layout, training=False)
        with torch.no_grad():
            if layers == self.run.layers:
                return self.vectors_of(ids, positions)
            with _passed_over(self.blocks[layers:]) as seen:
                self.vectors_of(ids, positions)
            return seen[0][0, : int(layout.bounds[-1])]

    def above(
        self, encoded: Encoded, rows: NDArray[np.int64], layers: int, entering: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """As calling it, from what `below` gave of these rows in their order."""
        if layers == self.run.layers:
            self.run.begin(None)
            return self.logits_of(entering), int(encoded.lengths_of(rows).sum())
        ids, positions, layout = self.pack([encoded.ids[r] for r in rows])
        self.run.begin(layout, layers)
        x = functional.pad(entering, (0, 0, 0, ids.shape[1] - len(entering))).unsqueeze(0)
        with computing(self.run):
            given = anatomy.given_to_layers(self._anatomy, self.encoder, x, positions)
            for block in self.blocks[layers:]:
                x = block(x, **given(block))
            if self._anatomy.leaves:
                x = self.encoder.get_submodule(self._anatomy.leaves)(x)
        return self.logits_of(self._read(x[0])), ids.shape[1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers from the lowest up; fewer than the model computes where they are shared."""
        layer = self._anatomy.layer
        name = layer.kind if layer else self._anatomy.block
        return [m for m in self.model.modules() if type(m).__name__ == name]

    def _read(self, hidden: torch.Tensor) -> torch.Tensor:
        """The vectors (b, width) that the head reads."""
        layout = self.run.layout
        hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
        if self._mean:
            b, longest = layout.shape
            real = layout.mask.view(b, longest, 1)
            padded = hidden.index_select(0, layout.gather).view(b, longest, -1)
            return (padded * real).sum(1) / real.sum(1)
        # Layers of ours give only what the head reads; transformers' own give every token.
        if hidden.shape[0] == len(layout.starts):
            return hidden
        return hidden.index_select(0, layout.starts if layout.reads is None else layout.reads)

    def logits_of(self, read: torch.Tensor) -> torch.Tensor:
        """Logits (b, n_classes) of vectors (b, width)."""
        return anatomy.logits_of(self._anatomy, self.model, read.unsqueeze(1)).float()

    def pack(self, texts: Sequence[NDArray[np.int64]]) -> tuple[torch.Tensor, torch.Tensor, Layout]:
        """Token ids and positions, both (1, T), and where each text lies."""
        n = np.asarray([len(t) for t in texts], dtype=np.int64)
        bounds = np.concatenate([[0], np.cumsum(n)])
        starts = bounds[:-1]
        fill = -int(bounds[-1]) % _ROUND_TO
        longest = rounded_length(int(n.max()))
        ids = np.concatenate([*texts, np.full(fill, self._pad_id or 0, dtype=np.int64)])
        steps = [np.arange(k) for k in n]
        places = [*map(self._places_in, texts)] if self._anatomy.after_pad else steps
        positions = np.concatenate([*places, np.zeros(fill, dtype=np.int64)])
        columns = np.arange(longest)
        gather = starts[:, None] + np.minimum(columns[None], n[:, None] - 1)
        # Tokens that fill up the row belong to no text: they read anything and are read by nobody.
        back = [i * longest + s for i, s in enumerate(steps)]
        scatter = np.concatenate([*back, np.zeros(fill, dtype=np.int64)])
        where = next(self.model.parameters()).device

        def put(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(values).to(where, non_blocking=True)

        layout = Layout(
            bounds=put(bounds),
            gather=put(gather.reshape(-1)),
            mask=put(columns[None] < n[:, None])[:, None, None, :],
            scatter=put(scatter),
            starts=put(starts),
            shape=(len(texts), longest),
            reads=put(starts + self._last_of(texts)) if self._anatomy.causal else None,
        )
        return put(ids)[None], put(positions)[None], layout

    def _places_in(self, text: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions that count from the pad id on, which itself has no place, in a text either."""
        real = text != self._pad_id
        return np.where(real, np.cumsum(real), 0) + (self._pad_id or 0)

    def _last_of(self, texts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Which token of each text transformers' own head reads: the last that is not the pad id.

        That may stand in a text too, as where texts end with the token that padding is made of. In
        a text of nothing else it is the first, and without a pad id the last of all.
        """
        pad = -1 if self._pad_id is None else self._pad_id
        real = [np.flatnonzero(t != pad) for t in texts]
        return np.asarray([r[-1] if len(r) else 0 for r in real], dtype=np.int64)


def rounded_length(longest: int) -> int:
    """The length to which attention pads a batch whose longest text has so many tokens."""
    return longest + (-longest % _ROUND_LENGTH_TO)
