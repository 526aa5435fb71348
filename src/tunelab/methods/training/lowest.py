"""The frozen layers below all that a training changes, as the loop meets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tunelab.core.details import FrozenLayers
from tunelab.methods.settings import TrainingSettings
from tunelab.methods.training.engine import Engine, RowsToCompute, scored_in
from tunelab.models import frozen
from tunelab.models.batches import Encoded

__all__ = [
    "Lowest",
]


class Lowest:
    """The frozen layers below all that learn: without dropout if asked, computed once if possible.

    Where they are computed once, `rows_to_compute` has what enters the layers above them.
    """

    def __init__(
        self,
        model: nn.Module,
        engine: Engine,
        train: Encoded,
        validation: Encoded,
        settings: TrainingSettings,
    ) -> None:
        self._engine = engine
        self._where = next(model.parameters()).device
        self.seconds, self.peak_memory_bytes = 0.0, None
        self._states: frozen.States | str = ""
        self._lower: frozen.Lower | None = None
        self._frozen = frozen.find_lower(model)
        if self._frozen is None:
            return
        # Methods without this setting train in the lowest layer, or all of it.
        self._drops = bool(self._frozen.dropout) and getattr(settings, "frozen_dropout", True)
        self._states = self._keep(model, train)
        if isinstance(self._states, frozen.States):
            self.seconds = self._states.seconds
            if self._states.from_cache:
                self.peak_memory_bytes = self._states.peak_memory_bytes
        self._lower = frozen.lower(
            self._frozen,
            model,
            validation,
            settings.per_device_eval_batch_size,
            scored_in(settings),
        )

    def _keep(self, model: nn.Module, train: Encoded) -> frozen.States | str:
        if self._frozen is None:
            return ""
        if self._drops:
            return (
                f"dropout of {self._frozen.dropout:g} in them differs in each step "
                "(frozen_dropout: true)"
            )
        engine = self._engine
        if engine.below is None:
            return (
                "several trainings share each step"
                if engine.name == "packed"
                else "the plain engine computes them in each step"
            )
        with engine.installed():
            return frozen.keep_states(self._frozen, model, train, engine.below, [engine.route])

    def rows_to_compute(self, encoded: Encoded, rows: NDArray[np.int64]) -> RowsToCompute:
        """These rows, from the first text on, or from what was kept of them."""
        if not isinstance(self._states, frozen.States):
            return RowsToCompute(encoded, rows)
        assert self._frozen is not None  # noqa: S101  they are its states
        entering = self._states.of(rows).to(self._where)
        return RowsToCompute(encoded, rows, self._frozen.layers, entering)

    def disable_dropout(self) -> None:
        """Turn dropout off in them, where the settings say so."""
        if self._frozen is not None and not self._drops:
            self._frozen.disable_dropout()

    @contextmanager
    def scored(self) -> Iterator[frozen.Lower | None]:
        """What they give for validation's batches; kept when all of these were scored."""
        yield self._lower
        if self._lower is not None:
            self._lower.finish()

    def frozen_layers(self) -> FrozenLayers | None:
        """What there is of them, and how they were computed; None where there are none."""
        if self._frozen is None:
            return None
        frozen_below, kept = self._frozen, self._states
        if isinstance(kept, str):
            return FrozenLayers(
                frozen_below.layers, frozen_below.of, self._drops, "each step", kept
            )
        return FrozenLayers(
            frozen_below.layers,
            frozen_below.of,
            self._drops,
            "once",
            None,
            kept.from_cache,
            kept.seconds,
            kept.kept.bytes,
        )

    def close(self) -> None:
        """Close the files of what is kept."""
        for one in (self._lower, getattr(self._states, "kept", None)):
            if one is not None:
                one.close()
